"""One training run, from a store to weights, on one worker.

Everything of the run is in its folder: the checkpoint (weights, averages, optimiser), the best
weights so far, the log with one line per report, and the record of what shaped it. Killed at any
moment and started again it goes on from its last checkpoint.
"""

import dataclasses
import hashlib
import json
import logging
import platform
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import Weights, model_id, pack, unpack
from model.errors import DivergedError
from model.header import read_header
from model.learning.trainer import Trainer
from model.preset import Preset, load_trainable
from model.separation.arithmetic import resolved_device
from model.separation.fitting import LEAST_SONGS
from model.separation.stream import Separator
from storage.files.atomic import remove_leftovers, write_bytes, write_json
from storage.files.layout import TrainingLayout
from storage.files.location import location
from storage.store import Store, StoredTrack
from tasks.loading import registry
from tasks.pages.training import refresh_training_page
from tasks.settings import OneTraining, Precision
from tasks.training.calibrate import calibrated, observations
from tasks.training.feed import Feed
from tasks.training.resume import ALL_STEPS, NO_IMPROVEMENT, RunState, resumed_state
from tasks.training.validation import (
    Reference,
    mean_score,
    split_for_validation,
    validation_mixtures,
    validation_scores,
)

log = logging.getLogger("unbraid.train")

_REPORT_EVERY = 25  # steps
_REPORT_SECONDS = 5.0  # where steps take long
_CHECKPOINT_SECONDS = 60.0


class TrainRequest(OneTraining):
    """What to train: the options of a training, a folder for the run, what replaces the preset's settings.

    `attempt` marks a request that may reach several workers, one after the other: a run that the same attempt has
    begun goes on without `resume`. `readers` are the processes that make examples, 0 for a thread.
    """

    folder: str
    overrides: tuple[tuple[str, Any], ...] = ()
    precision: Precision = "auto"
    threads: int | None = None
    attempt: str = ""
    readers: int | None = None


@dataclass(frozen=True)
class TrainReport:
    """The result of a training.

    Attributes:
        model_id: The id of the best weights, from their bytes.
        weights: Path of the best weights' file.
        steps: How many steps were done.
        best_step: The step of the best weights.
        best_db: Their mean cSDR over the validation tracks (`validation.mean_score`), of the stems that the network
            estimates, in dB.
        seconds: Time spent on steps, that of earlier commands included.
        stopped: Why it ended, in words.
        diverged: Whether it ended because the loss or its gradient was no longer finite.
    """

    model_id: str
    weights: str
    steps: int
    best_step: int
    best_db: float
    seconds: float
    stopped: str
    diverged: bool = False


def train(request: TrainRequest) -> TrainReport:
    """Train until the preset's steps are done, or validation has not improved for its patience.

    A run that ended is finished: resumed it does nothing, unless it had done all its steps and gets more, or was killed
    before its predicted scores were calibrated, which is then made up for.

    Args:
        request: The store, the preset and what replaces its settings, and the folder that the run is kept in.

    Returns:
        How the run ended, and its best weights' id and path.

    Raises:
        StoreError: There are no usable tracks, or the folder holds a run and `resume` is off, or a run that
            was begun with other settings, another seed, start or store.
        PresetError: The preset is unknown, or borrows its weights.
        RegistryError: The model to start from is unknown or damaged.
        ModelError: The device or precision is not available here, or the weights to start from do not fit.
    """
    if request.threads:
        torch.set_num_threads(request.threads)
    folder = TrainingLayout(Path(request.folder))
    preset = load_trainable(request.preset, continued=request.start is not None, **dict(request.overrides))
    device = resolved_device(request.device)
    tracks = Store.open(location(request.store)).tracks("train")
    training, validation = split_for_validation(tracks, preset.stems)
    start = registry().read(request.start) if request.start else None
    origin = {
        "preset": preset.to_dict(),
        "seed": request.seed,
        "start": start[0] if start else None,
        "store": _digest(training, validation),
    }
    remove_leftovers(folder.root)  # of a process that was killed
    trainer = Trainer(preset, seed=request.seed, device=device, precision=request.precision)
    state = RunState(attempt=request.attempt)
    if folder.checkpoint.exists():
        tensors, header = unpack(folder.checkpoint.read_bytes(), str(folder.checkpoint))
        state = resumed_state(folder.root, header, origin, resume=request.resume, attempt=request.attempt)
        trainer.restore(tensors, header["trainer"])
        if state.finished(trainer.step, preset.training.steps):
            log.info("%s is finished: %s", folder.root, state.stopped)
            if not (state.calibrated or _calibrations(folder)):
                references = validation_mixtures(request.store, validation, preset.stems)
                _Run(trainer, references, folder, state, origin, {}).calibrate()
            return _report(preset, folder, trainer.step, state)
        state = dataclasses.replace(state, stopped="", calibrated=False, attempt=request.attempt)
        log.info("resumed at step %d", trainer.step)
    elif start:
        started_from, data = start
        fitting = trainer.start_from(Weights.from_bytes(data, started_from))
        log.info("%d tensors start as in %s", fitting, started_from)
    references = validation_mixtures(request.store, validation, preset.stems)
    log.info(
        "training %s on %d tracks, validating on %d, %s in %s, from step %d to %d",
        preset.name, len(training), len(references), device, trainer.precision, trainer.step, preset.training.steps,
    )  # fmt: skip
    record = _record(request, origin, trainer, training, validation)
    write_json(folder.record, record)
    feed = Feed(request.store, training, preset, request.seed, workers=request.readers, device=str(trainer.device))
    run = _Run(trainer, references, folder, state, origin, record)
    run.loop(feed)
    run.calibrate()
    return _report(preset, folder, trainer.step, state)


class _Run:
    """One training from its present step to its end, with what it leaves in its folder."""

    def __init__(
        self, trainer: Trainer, references: list[Reference], folder: TrainingLayout, state: RunState, origin: dict,
        record: dict,
    ) -> None:  # fmt: skip
        self._trainer, self._references, self._folder = trainer, references, folder
        self._state, self._origin, self._record = state, origin, record
        self._saved = time.monotonic()
        self._reported = float("-inf")  # the first step is reported at once
        self._told = time.monotonic(), 0.0  # when the last report was, and what the network had waited by then

    def loop(self, feed: Feed) -> None:
        """Steps, reports, validations and checkpoints, until one of the reasons to stop."""
        trainer, state, settings = self._trainer, self._state, self._trainer.settings
        losses: list[float] = []
        last = time.monotonic()
        for batch in feed.batches(trainer.step, settings.steps):
            try:
                losses.append(trainer.train(batch))
            except DivergedError as error:
                state.stopped, state.diverged = f"{error}; the best weights from before it are kept", True
                break
            now = time.monotonic()
            state.seconds += now - last
            last = now
            if trainer.step % _REPORT_EVERY == 0 or now - self._reported > _REPORT_SECONDS:
                self._report_step(losses, feed, now)
                losses = []
            if settings.snapshot_every and trainer.step % settings.snapshot_every == 0:
                self._snapshot()
            if trainer.step % settings.validate_every == 0 or trainer.step == settings.steps:
                self._validate()
                if (trainer.step - state.best_step) // settings.validate_every >= settings.patience:
                    state.stopped = NO_IMPROVEMENT
                    break
                self._save()
            elif now - self._saved > _CHECKPOINT_SECONDS:
                self._save()
        state.stopped = state.stopped or ALL_STEPS
        if state.best_step < 0:
            self._validate()
        self._save()

    def calibrate(self) -> None:
        """Give the best weights what their scores are predicted with, where there are songs enough to fit it on."""
        trainer, best = self._trainer, self._folder.best
        if len(self._references) < LEAST_SONGS:
            log.info("%d validation tracks are too few to calibrate predicted scores on", len(self._references))
        else:
            weights = Weights.from_bytes(best.read_bytes(), str(best))
            separator = Separator.from_weights(weights, device=str(trainer.device), precision=trainer.precision)
            songs = ((str(index), stems, rate) for index, (stems, rate) in enumerate(self._references))
            weights = calibrated(weights, {trainer.preset.name: observations(separator, songs, remixes=3)})
            write_bytes(best, weights.to_bytes())
        self._state.calibrated = True
        self._save()

    def _report_step(self, losses: list[float], feed: Feed, now: float) -> None:
        """A line of the log: mean loss, learning rate, gradient norm, examples/s, share of the time spent waiting."""
        trainer, mean = self._trainer, float(np.mean(losses))
        seconds = max(1e-9, now - self._told[0])
        examples = len(losses) * trainer.settings.batch_size / seconds
        waiting = min(1.0, (feed.waited - self._told[1]) / seconds)
        self._reported, self._told = now, (now, feed.waited)
        line = {
            "step": trainer.step, "loss": mean, "seconds": self._state.seconds,
            "learning_rate": trainer.learning_rate(trainer.step - 1), "gradient_norm": trainer.gradient_norm,
            "examples_per_second": examples, "waiting": waiting,
        }  # fmt: skip
        _append(self._folder.log, line)
        log.info(
            "step %d of %d, loss %.4f, %.1f examples/s, waited %.0f %%",
            trainer.step, trainer.settings.steps, mean, examples, 100 * waiting,
        )  # fmt: skip

    def _validate(self) -> None:
        """Score the averaged weights on the validation tracks; keep them where they are the best so far."""
        trainer, state = self._trainer, self._state
        separator = trainer.separator()
        scores = [pair for stems, rate in self._references for pair in validation_scores(separator, stems, rate)]
        csdr, usdr = (mean_score([pair[i] for pair in scores]) for i in (0, 1))
        _append(self._folder.log, {"step": trainer.step, "csdr": csdr, "usdr": usdr})
        refresh_training_page(self._folder, separator, self._references, trainer.step)
        log.info("step %d: cSDR %.2f dB, uSDR %.2f dB over %d tracks", trainer.step, csdr, usdr, len(self._references))
        state.curve.append((trainer.step, round(csdr, 3)))
        if csdr > state.best_db or state.best_step < 0:
            state.best_db, state.best_step = csdr, trainer.step
            history: dict[str, Any] = {"best_step": trainer.step, "validation_csdr": csdr, "seconds": state.seconds}
            history["validation_curve"] = state.curve
            weights = Weights(trainer.preset, trainer.average, {**self._record, **history})
            write_bytes(self._folder.best, weights.to_bytes(torch.float16))

    def _snapshot(self) -> None:
        """Keep the averaged weights of this step in the run's folder, to average over steps and runs."""
        trainer = self._trainer
        record = {**self._record, "best_step": trainer.step, "seconds": self._state.seconds}
        weights = Weights(trainer.preset, trainer.average, record)
        target = self._folder.root / "snapshots" / f"{trainer.step:05d}.safetensors"
        write_bytes(target, weights.to_bytes(torch.float16))

    def _save(self) -> None:
        tensors, values = self._trainer.state()
        header = {"trainer": values, "run": asdict(self._state), "origin": self._origin}
        write_bytes(self._folder.checkpoint, pack(tensors, header))
        self._saved = time.monotonic()


def _calibrations(folder: TrainingLayout) -> dict:
    """What the best weights of a run are calibrated for, empty where they are not yet."""
    return read_header(folder.best.read_bytes(), str(folder.best)).get("calibrations", {})


def _report(preset: Preset, folder: TrainingLayout, step: int, state: RunState) -> TrainReport:
    best = folder.best.read_bytes()
    return TrainReport(
        model_id(preset.name, best), str(folder.best), step, state.best_step, state.best_db, state.seconds,
        state.stopped, state.diverged,
    )  # fmt: skip


def _append(path: Path, line: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def _digest(training: list[StoredTrack], validation: list[StoredTrack]) -> str:
    """What is learned from and judged by, as a hash of the audio's checksums."""
    parts = [[[track.track_id, track.checksums] for track in tracks] for tracks in (training, validation)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _record(
    request: TrainRequest, origin: dict, trainer: Trainer, training: list[StoredTrack], validation: list[StoredTrack]
) -> dict:
    datasets: dict[str, dict] = {}
    rate = Store.open(location(request.store)).format.sample_rate
    for track in training:
        entry = datasets.setdefault(track.dataset, {"tracks": 0, "hours": 0.0})
        entry["tracks"] += 1
        entry["hours"] = round(entry["hours"] + track.samples / rate / 3600, 4)
    return {
        "preset": trainer.preset.name,
        "settings": origin["preset"],
        "seed": request.seed,
        "started_from": origin["start"],
        "device": str(trainer.device),
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "datasets": datasets,
        "training_digest": origin["store"],
        "validation_tracks": [track.track_id for track in validation],
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "zarr")},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
