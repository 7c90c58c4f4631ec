"use strict";
/* Stems on one clock. Every stem of a player is scheduled on the same AudioContext for the same sample, so they cannot
   drift; long tracks are fetched in chunks, each scheduled for the sample after the last one's end. */
(() => {
  const contexts = new Map();
  const players = [];
  const AHEAD = 0.06, RAMP = 0.004;

  function contextOf(rate) {
    if (!contexts.has(rate)) contexts.set(rate, rate ? new AudioContext({ sampleRate: rate }) : new AudioContext());
    return contexts.get(rate);
  }

  async function bytesOf(uri) {
    if (!uri.startsWith("data:")) {
      const answer = await fetch(uri, { cache: "no-store" });
      if (!answer.ok) throw new Error((await answer.text()).slice(0, 200) || `HTTP ${answer.status}`);
      return answer.arrayBuffer();
    }
    const text = atob(uri.slice(uri.indexOf(",") + 1));
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes.buffer;
  }

  const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;

  class Player {
    constructor(element) {
      this.element = element;
      this.spec = JSON.parse(element.querySelector("script[type='application/json']").textContent);
      this.seconds = this.spec.seconds;
      this.chunk = this.spec.chunk || this.seconds;
      this.at = 0;
      this.playing = false;
      this.turn = 0;
      this.loaded = new Map();
      this.sources = [];
      this.muted = new Set(this.spec.muted);
      this.solo = null;
      this.alone = false; // A/B: the mixture alone
      this.views = [...element.querySelectorAll(".view")];
      this.heads = [...element.querySelectorAll(".head")];
      this.range = element.querySelector("input[type=range]");
      this.output = element.querySelector("output");
      this.play_ = element.querySelector(".play");
      this.ab = element.querySelector(".ab");
      this.wire();
      this.mix();
      this.show();
    }

    wire() {
      this.play_.addEventListener("click", () => (this.playing ? this.pause() : this.play()));
      if (this.ab) this.ab.addEventListener("click", () => { this.alone = !this.alone; this.mix(); });
      this.range.addEventListener("input", () => this.seek(Number(this.range.value)));
      this.element.querySelectorAll(".lane").forEach((lane) => {
        const name = lane.dataset.stem;
        lane.querySelector(".solo").addEventListener("click", () => this.toggleSolo(name));
        lane.querySelector(".mute").addEventListener("click", () => this.toggleMute(name));
      });
      for (const view of this.views) {
        const go = (event) => {
          const box = view.getBoundingClientRect();
          this.seek(this.seconds * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
        };
        view.addEventListener("pointerdown", (event) => { view.setPointerCapture(event.pointerId); go(event); });
        view.addEventListener("pointermove", (event) => { if (event.buttons) go(event); });
      }
      this.element.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const onButton = event.target.tagName === "BUTTON", onRange = event.target === this.range;
      const names = this.spec.lanes.map((lane) => lane.name);
      if (event.key === " " && !onButton) this.playing ? this.pause() : this.play();
      else if (event.key === "ArrowLeft" && !onRange) this.seek(this.now() - 1);
      else if (event.key === "ArrowRight" && !onRange) this.seek(this.now() + 1);
      else if (event.key === "Home") this.seek(0);
      else if ((event.key === "b" || event.key === "B") && this.ab) this.ab.click();
      else if (/^[1-9]$/.test(event.key) && names[event.key - 1]) this.toggleSolo(names[event.key - 1]);
      else return;
      event.preventDefault();
    }

    toggleSolo(name) { this.solo = this.solo === name ? null : name; this.alone = false; this.mix(); }
    toggleMute(name) {
      this.solo = null; this.alone = false;
      this.muted.has(name) ? this.muted.delete(name) : this.muted.add(name);
      this.mix();
    }

    audible(name) {
      if (this.alone) return name === this.spec.lanes[0].name;
      return this.solo ? this.solo === name : !this.muted.has(name);
    }

    mix() {
      for (const lane of this.element.querySelectorAll(".lane")) {
        const name = lane.dataset.stem, on = this.audible(name);
        lane.classList.toggle("silent", !on);
        lane.querySelector(".solo").setAttribute("aria-pressed", String(this.solo === name));
        lane.querySelector(".mute").setAttribute("aria-pressed", String(this.muted.has(name)));
        if (this.gains) {
          const gain = this.gains.get(name).gain, t = this.context.currentTime;
          gain.cancelScheduledValues(t);
          gain.setTargetAtTime(on ? 1 : 0, t, RAMP);
        }
      }
      if (this.ab) {
        this.ab.setAttribute("aria-pressed", String(this.alone));
        this.ab.textContent = this.alone ? "A: mixture" : "B: stems";
      }
    }

    open() {
      if (this.context) return;
      this.context = contextOf(this.spec.rate);
      this.taps = new Map(); // every stem before its fader
      this.gains = new Map();
      for (const { name } of this.spec.lanes) {
        const tap = new GainNode(this.context), gain = new GainNode(this.context, { gain: this.audible(name) ? 1 : 0 });
        tap.connect(gain).connect(this.context.destination);
        this.taps.set(name, tap);
        this.gains.set(name, gain);
      }
    }

    load(index) {
      if (!this.loaded.has(index)) {
        const from = index * this.chunk;
        const parts = this.spec.lanes.map(async (lane) => {
          const uri = lane.audio || `${lane.url}${lane.url.includes("?") ? "&" : "?"}start=${from}&seconds=${this.chunk}`;
          return this.context.decodeAudioData(await bytesOf(uri));
        });
        this.loaded.set(index, Promise.all(parts));
        for (const old of [...this.loaded.keys()]) if (Math.abs(old - index) > 2) this.loaded.delete(old);
      }
      return this.loaded.get(index);
    }

    async play() {
      for (const other of players) if (other !== this) other.pause();
      const turn = ++this.turn;
      this.playing = true;
      this.begun = null;
      this.play_.textContent = "❚❚ Pause";
      this.play_.setAttribute("aria-label", "Pause");
      try {
        this.open();
        await this.context.resume();
        if (this.at >= this.seconds - 0.02) this.at = 0;
        let index = Math.floor(this.at / this.chunk), offset = this.at - index * this.chunk, next = null;
        while (this.playing && turn === this.turn && index * this.chunk < this.seconds - 1e-6) {
          const buffers = await this.load(index);
          if (turn !== this.turn) return;
          const soonest = this.context.currentTime + AHEAD;
          if (next === null || next < soonest) { // the first chunk, or one that came too late
            next = soonest;
            this.begun = next - (index * this.chunk + offset);
          }
          const length = Math.max(...buffers.map((buffer) => buffer.duration)) - offset;
          buffers.forEach((buffer, i) => {
            const source = new AudioBufferSourceNode(this.context, { buffer });
            source.connect(this.taps.get(this.spec.lanes[i].name));
            source.start(next, offset);
            this.sources.push(source);
            source.onended = () => { this.sources = this.sources.filter((other) => other !== source); };
          });
          this.tick(turn);
          next += Math.min(length, this.chunk - offset);
          index += 1;
          offset = 0;
          if (index * this.chunk < this.seconds) this.load(index).catch(() => {});
          while (turn === this.turn && next - this.context.currentTime > Math.min(2, this.chunk / 2)) await new Promise((r) => setTimeout(r, 100));
        }
      } catch (error) {
        if (turn === this.turn) { this.pause(); this.output.textContent = `cannot play: ${error.message || error}`; }
      }
    }

    stopSources() {
      for (const source of this.sources) { source.onended = null; try { source.stop(); } catch { /* not started */ } }
      this.sources = [];
    }

    pause() {
      if (!this.playing) return;
      this.at = this.now();
      this.playing = false;
      this.turn++;
      this.stopSources();
      this.play_.textContent = "▶ Play";
      this.play_.setAttribute("aria-label", "Play");
      this.show();
    }

    seek(to) {
      const was = this.playing;
      this.at = this.now();
      if (was) { this.turn++; this.stopSources(); }
      this.at = Math.min(this.seconds, Math.max(0, to));
      this.begun = null;
      this.show();
      if (was) this.play();
    }

    now() {
      if (!this.playing || this.begun == null) return this.at;
      return Math.min(this.seconds, Math.max(this.at, this.context.currentTime - this.begun));
    }

    tick(turn) {
      if (this.ticking === turn) return;
      this.ticking = turn;
      const step = () => {
        if (turn !== this.turn || !this.playing) return;
        if (this.now() >= this.seconds - 0.005 && this.begun != null) { this.pause(); this.at = 0; this.show(); return; }
        this.show();
        requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    }

    show() {
      const t = this.now(), percent = `${(100 * t) / (this.seconds || 1)}%`;
      for (const head of this.heads) head.style.left = percent;
      this.range.value = t;
      this.range.setAttribute("aria-valuetext", clock(t));
      this.output.textContent = `${clock(t)} / ${clock(this.seconds)}`;
    }
  }

  document.querySelectorAll(".player[data-player]").forEach((element) => players.push(new Player(element)));
  window.unbraid = { players };
})();
