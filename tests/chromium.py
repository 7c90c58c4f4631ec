"""Debian's Chromium for tests of pages; they are skipped where it, or playwright, is not installed."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync"]  # fmt: skip


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator:
    """A headless browser with an empty profile."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not _CHROMIUM.exists():
        pytest.skip(f"{_CHROMIUM} is not installed")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(profile), executable_path=str(_CHROMIUM), headless=True, args=_FLAGS, timeout=120_000
        )
        context.set_default_timeout(60_000)
        try:
            yield context
        finally:
            context.close()


@contextlib.contextmanager
def page(browser, url: str, *, width: int = 1280, dark: bool = False) -> Iterator:
    """A page that must not say anything on its console."""
    opened = browser.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: said.append(f"error: {error}"))
    opened.set_viewport_size({"width": width, "height": 900})
    opened.emulate_media(color_scheme="dark" if dark else "light")
    opened.goto(url)
    yield opened
    assert not said, said
    opened.close()


def until(opened, expression: str, seconds: float = 60.0) -> None:
    """Wait until an expression is true; playwright's own waiting needs `eval`, which our pages forbid."""
    ends = time.monotonic() + seconds
    while not opened.evaluate(expression):
        assert time.monotonic() < ends, f"not within {seconds:.0f} s: {expression}"
        opened.wait_for_timeout(50)


# Samples of every stem at one moment, before its fader; the lags between them are what a listener would hear.
LAGS = """
async (index) => {
  const player = unbraid.players[index];
  const names = player.spec.lanes.map((lane) => lane.name);
  const analysers = names.map((name) => {
    const analyser = new AnalyserNode(player.context, { fftSize: 32768 });
    player.taps.get(name).connect(analyser);
    return analyser;
  });
  await new Promise((resolve) => setTimeout(resolve, 900));
  const captured = analysers.map((analyser) => {
    const samples = new Float32Array(analyser.fftSize);
    analyser.getFloatTimeDomainData(samples);
    return samples;
  });
  const best = (a, b) => {
    let lag = null, most = 0;
    for (let d = -1000; d <= 1000; d++) {
      let sum = 0;
      for (let i = 1000; i < a.length - 1000; i++) if (a[i] > 0.05 || a[i] < -0.05) sum += a[i] * b[i + d];
      if (sum > most) { most = sum; lag = d; }
    }
    return lag === null ? null : (1000 * lag) / player.context.sampleRate;
  };
  return captured.slice(1).map((other) => best(captured[0], other));
}
"""
