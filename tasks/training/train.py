"""One training run, from a store to weights, on one worker.

Everything of the run lies in its folder: the checkpoint (weights, averages, optimiser), the best
weights so far, a log line a step report, and the record of what shaped it. Killed at any moment and
started again it goes on from its last checkpoint.
"""

import hashlib
import json
import logging
import platform
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import Weights, model_id, pack, unpack
from model.learning.trainer import Trainer
from model.preset import Preset, load_trainable
from model.scoring.scores import score
from model.separation.stream import Separator, resolved_device
from storage.errors import StoreError
from storage.files.atomic import write_bytes, write_json
from storage.files.layout import TrainingLayout
from storage.files.location import location
from storage.store import Store, StoredTrack
from tasks.loading import registry
from tasks.settings import OneTraining, Precision
from tasks.training.examples import ExampleSource, example_source
from tasks.training.spans import has_stem, read_stem

log = logging.getLogger("unbraid.train")

_VALIDATION_SHARE = 25  # one song in so many is kept for validation
_VALIDATION_TRACKS = 14
_VALIDATION_SECONDS = 60
_REPORT_EVERY = 25
_CHECKPOINT_SECONDS = 60.0


class TrainRequest(OneTraining):
    """What to train: the options of a training, a folder for the run, what replaces the preset's settings."""

    folder: str
    overrides: tuple[tuple[str, Any], ...] = ()
    precision: Precision = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class TrainReport:
    """What came of it. `best_db` is the mean cSDR of what the network estimates over the validation tracks."""

    model_id: str
    weights: str
    steps: int
    best_step: int
    best_db: float
    seconds: float
    stopped: str


def train(request: TrainRequest) -> TrainReport:
    """Train until the preset's steps are done or validation has not improved for its patience.

    Raises StoreError without usable tracks or when a finished run is in the folder and `resume` is off.
    """
    if request.threads:
        torch.set_num_threads(request.threads)
    folder = TrainingLayout(Path(request.folder))
    preset = load_trainable(request.preset, **dict(request.overrides))
    device = resolved_device(request.device)
    tracks = Store.open(location(request.store)).tracks("train")
    training, validation = split_for_validation(tracks, preset.stems)
    trainer = Trainer(preset, seed=request.seed, device=device, precision=request.precision)
    state = _RunState()
    if folder.checkpoint.exists():
        if not request.resume:
            raise StoreError(f"{folder.root} holds a training run already; add --resume or choose another --run")
        tensors, values = unpack(folder.checkpoint.read_bytes(), str(folder.checkpoint))
        if values["preset"] != json.loads(json.dumps(preset.to_dict())):
            raise StoreError(f"{folder.root} was trained with other settings; repeat them or choose another --run")
        trainer.restore(tensors, values["trainer"])
        state = _RunState(**values["run"])
        log.info("resumed at step %d", trainer.step)
    elif request.start:
        started_from, data = registry().read(request.start)
        fitting = trainer.start_from(Weights.from_bytes(data, started_from))
        log.info("%d tensors start as in %s", fitting, started_from)
    references = _validation_mixtures(request.store, validation, preset.stems)
    log.info(
        "training %s on %d tracks, validating on %d, %s in %s, from step %d to %d",
        preset.name, len(training), len(references), device, trainer.precision, trainer.step, preset.training.steps,
    )  # fmt: skip
    record = _record(request, preset, trainer, training, validation)
    write_json(folder.record, record)
    source = example_source(request.store, training, preset, request.seed)
    _loop(trainer, source, references, folder, state, record)
    final = folder.best.read_bytes()
    return TrainReport(
        model_id(preset.name, final), str(folder.best), trainer.step, state.best_step, state.best_db,
        state.seconds, state.stopped,
    )  # fmt: skip


@dataclass
class _RunState:
    best_db: float = -1e9
    best_step: int = -1
    seconds: float = 0.0
    stopped: str = ""


def _loop(trainer: Trainer, source: ExampleSource, references, folder, state: _RunState, record: dict) -> None:
    settings = trainer.settings
    losses: list[float] = []
    last = saved = time.monotonic()
    for batch in _ahead(source, trainer.step, settings.steps):
        losses.append(trainer.train(batch))
        now = time.monotonic()
        state.seconds += now - last
        last = now
        if trainer.step % _REPORT_EVERY == 0:
            _append(folder.log, {"step": trainer.step, "loss": float(np.mean(losses)), "seconds": state.seconds})
            log.info("step %d of %d, loss %.4f", trainer.step, settings.steps, np.mean(losses))
            losses = []
        if trainer.step % settings.validate_every == 0 or trainer.step == settings.steps:
            _validate(trainer, references, folder, state, record)
            _save(trainer, folder, state)
            saved = time.monotonic()
            if (trainer.step - state.best_step) // settings.validate_every >= settings.patience:
                state.stopped = "no improvement"
                break
        elif now - saved > _CHECKPOINT_SECONDS:
            _save(trainer, folder, state)
            saved = time.monotonic()
    state.stopped = state.stopped or "all steps done"
    if state.best_step < 0:
        _validate(trainer, references, folder, state, record)
    _save(trainer, folder, state)


def _ahead(source: ExampleSource, start: int, stop: int) -> Iterator:
    """Batches made one thread ahead, so that reading and mixing hide behind the network."""
    waiting: queue.Queue = queue.Queue(maxsize=3)
    abandoned = threading.Event()

    def produce() -> None:
        try:
            for step in range(start, stop):
                item = source.batch(step)
                while not abandoned.is_set():
                    try:
                        waiting.put(item, timeout=1)
                        break
                    except queue.Full:
                        continue
                if abandoned.is_set():
                    return
            waiting.put(None)
        except BaseException as error:  # handed to the trainer, which raises it
            waiting.put(error)

    threading.Thread(target=produce, daemon=True).start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        abandoned.set()


def _validate(trainer: Trainer, references, folder: TrainingLayout, state: _RunState, record: dict) -> None:
    separator = trainer.separator()
    found = [pair for stems, rate in references for pair in validation_scores(separator, stems, rate)]
    csdr, usdr = (float(np.mean([f[i] for f in found if f[i] is not None] or [-1e9])) for i in (0, 1))
    _append(folder.log, {"step": trainer.step, "csdr": csdr, "usdr": usdr})
    log.info("step %d: cSDR %.2f dB, uSDR %.2f dB over %d tracks", trainer.step, csdr, usdr, len(references))
    if csdr > state.best_db:
        state.best_db, state.best_step = csdr, trainer.step
        history = {"best_step": trainer.step, "validation_csdr": csdr, "seconds": state.seconds}
        write_bytes(
            folder.best, Weights(trainer.preset, trainer.average, {**record, **history}).to_bytes(torch.float16)
        )


def validation_scores(
    separator: Separator, stems: dict[str, np.ndarray], rate: int
) -> list[tuple[float | None, float | None]]:
    """(cSDR, uSDR) of every estimated stem of one whole track, separated as a catalog's would be."""
    estimates = separator.separate(np.add.reduce(list(stems.values()), axis=0, dtype=np.float32), rate)
    found = []
    for stem in separator.preset.estimated:
        # Each by itself: without its fellows as references BSSEval's SDR is that of the waveforms.
        result = score({stem: stems[stem]}, {stem: estimates[stem]}, rate, engine="sdr").stems[stem]
        found.append((result.sdr, result.usdr))
    return found


def _save(trainer: Trainer, folder: TrainingLayout, state: _RunState) -> None:
    tensors, values = trainer.state()
    header = {"trainer": values, "run": asdict(state), "preset": trainer.preset.to_dict()}
    write_bytes(folder.checkpoint, pack(tensors, header))


def _append(path: Path, line: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def split_for_validation(
    tracks: list[StoredTrack], stems: tuple[str, ...] = ("vocals", "accompaniment")
) -> tuple[list[StoredTrack], list[StoredTrack]]:
    """Training and validation tracks. An artist goes one way whole where a dataset has several artists."""
    artists: dict[str, set[str]] = {}
    for track in tracks:
        artists.setdefault(track.dataset, set()).add(track.artist)

    def held_out(track: StoredTrack) -> bool:
        key = track.artist if len(artists[track.dataset]) > 1 else track.track_id
        digest = hashlib.sha256(f"{track.dataset}/{key}".encode()).digest()
        return int.from_bytes(digest[:4], "big") % _VALIDATION_SHARE == 0

    validation = [track for track in tracks if held_out(track)]
    if not all(any(has_stem(track, stem) for track in validation) for stem in stems):
        # A small store: keep the last song, or the last of each stem, rather than train without a look.
        whole = [track for track in tracks if all(has_stem(track, stem) for stem in stems)]
        validation += whole[-max(1, len(whole) // 5) :]
        for stem in stems:
            having = [track for track in tracks if has_stem(track, stem)]
            if having and not any(has_stem(track, stem) for track in validation):
                validation.append(having[-1])
    kept = {track.track_id for track in validation}
    return [track for track in tracks if track.track_id not in kept], validation


def _validation_mixtures(
    store_path: str, tracks: list[StoredTrack], stems: tuple[str, ...]
) -> list[tuple[dict[str, np.ndarray], int]]:
    """(stems, rate) of whole tracks, evenly from all datasets; loose stems are paired at equal energy."""
    store = Store.open(location(store_path))
    rate = store.format.sample_rate
    lead, *others = stems
    having = {stem: _alternating([t for t in tracks if has_stem(t, stem)]) for stem in stems}
    loose = {stem: [t for t in having[stem] if not has_stem(t, lead)] or having[stem] for stem in others}
    found = []
    for index, track in enumerate(having[lead][:_VALIDATION_TRACKS]):
        stop = min(track.samples, _VALIDATION_SECONDS * rate)
        parts = {lead: read_stem(store, track, lead, 0, stop)}
        whole = all(has_stem(track, stem) for stem in others)
        for stem in others:
            candidates = [track] if whole else loose[stem]
            if candidates:
                source = candidates[index % len(candidates)]
                parts[stem] = read_stem(store, source, stem, 0, min(source.samples, stop))
        if len(parts) < len(stems) or not parts[lead].any():
            continue
        samples = min(part.shape[1] for part in parts.values())
        channels = max(part.shape[0] for part in parts.values())
        parts = {s: np.broadcast_to(part[:, :samples], (channels, samples)).copy() for s, part in parts.items()}
        if not whole:
            level = np.square(parts[lead]).mean()
            parts |= {s: parts[s] * np.sqrt(level / (np.square(parts[s]).mean() + 1e-12)) for s in others}
        found.append((parts, rate))
    if not found:
        raise StoreError(f"{store_path} leaves nothing to validate on; ingest more tracks with {' and '.join(stems)}")
    return found


def _alternating(tracks: list[StoredTrack]) -> list[StoredTrack]:
    """One of each dataset in turn."""
    by_dataset: dict[str, list[StoredTrack]] = {}
    for track in tracks:
        by_dataset.setdefault(track.dataset, []).append(track)
    turns = [(i, name, track) for name, group in by_dataset.items() for i, track in enumerate(group)]
    return [track for _, _, track in sorted(turns, key=lambda turn: turn[:2])]


def _record(request: TrainRequest, preset: Preset, trainer: Trainer, training, validation) -> dict:
    datasets: dict[str, dict] = {}
    rate = Store.open(location(request.store)).format.sample_rate
    for track in training:
        entry = datasets.setdefault(track.dataset, {"tracks": 0, "hours": 0.0})
        entry["tracks"] += 1
        entry["hours"] = round(entry["hours"] + track.samples / rate / 3600, 4)
    digest = hashlib.sha256()
    for track in training:
        digest.update(json.dumps([track.track_id, track.checksums], sort_keys=True).encode())
    return {
        "preset": preset.name,
        "settings": preset.to_dict(),
        "seed": request.seed,
        "started_from": request.start,
        "device": str(trainer.device),
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "datasets": datasets,
        "training_digest": digest.hexdigest(),
        "validation_tracks": [track.track_id for track in validation],
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "zarr")},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
