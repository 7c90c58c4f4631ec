"""A network is trained: one long task on a worker with a GPU, or on a CPU worker where there is none."""

import dataclasses
import json
import sys
import time
import uuid
from pathlib import Path

from flows.running.cluster import GPU_TO_TRAIN, Cluster, cluster
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.running.progress import Progress, progress
from flows.running.record import swept
from flows.settings import TrainOptions
from model.preset import Preset
from model.separation.arithmetic import resolved_device
from storage.errors import StorageError
from storage.files.layout import TrainingLayout, trainings
from storage.files.location import absolute
from tasks.loading import registry
from tasks.settings import is_weights_file
from tasks.training.card import model_card
from tasks.training.ready import check_folder, check_store, trainable
from tasks.training.train import TrainReport, TrainRequest
from tasks.training.train import train as train_on_worker

_POLL_SECONDS = 1.0
_LAST_LINES = 50  # of the log that are read


class TrainingLost(StorageError):
    """The worker or the scheduler of a training went away."""


def ready(options: TrainOptions) -> tuple[TrainRequest, Preset]:
    """The request for the worker, and the preset with its settings replaced.

    Args:
        options: The training's options.

    Returns:
        The request, with absolute paths and a new `attempt`, and the preset.

    Raises:
        PresetError: There is no such preset or setting.
        RegistryError: There is no such model to start from.
        StoreError: The store cannot be trained on, or the run's folder is in use.
    """
    overrides = {**options.settings, **({"steps": options.steps} if options.steps else {})}
    preset = trainable(options.preset, overrides, continued=options.start is not None)
    folder = absolute(options.run or f"{trainings(options.store)}/{preset.name}-seed{options.seed}")
    check_store(options.store, preset)
    check_folder(folder, resume=options.resume)
    if options.start:
        registry().read(options.start)
    request = options.part(
        TrainRequest, store=absolute(options.store), folder=folder, overrides=tuple(sorted(overrides.items())),
        attempt=uuid.uuid4().hex,
    )  # fmt: skip
    return request, preset


@settings_flow(TrainOptions, name="train", check=ready)
def train(options: TrainOptions, checked: tuple[TrainRequest, Preset]) -> TrainReport:
    """Train a preset on a store and register the weights.

    Returns:
        How the training ended, its best step and score, and where its weights are.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        PresetError: There is no such preset or setting.
        RegistryError: There is no such model to start from.
        StoreError: The store cannot be trained on, or the run's folder is in use.
        ClusterError: A worker does not see the store, the run's folder or the weights to start from.
        TrainingLost: The worker died, or the scheduler went away.
    """
    request, preset = checked
    here_cuda = not options.dask and options.device != "cpu" and resolved_device("auto") == "cuda"
    with (
        swept(Path(request.folder)),
        cluster(options.dask, tracks=1, resources=GPU_TO_TRAIN if here_cuda else None) as where,
    ):
        if where.address is not None:
            Path(request.folder).mkdir(parents=True, exist_ok=True)
            where.must_see(request.store, request.folder)
            if request.start and is_weights_file(request.start):
                where.must_see(request.start)
        report = train_phase(request, preset.training.steps, where)
    return register_phase(report, preset.name, options.promote) if options.publish else report


@phase("train")
def train_phase(request: TrainRequest, total: int, where: Cluster) -> TrainReport:
    """Run the training as one future, and read its progress from the run's log.

    Where a scheduler tries lost work again, the next worker goes on from the last checkpoint.

    Args:
        request: What to train, with absolute paths.
        total: How many steps the training has at most.
        where: The connected cluster.

    Returns:
        The worker's report; its weights are not registered yet.

    Raises:
        TrainingLost: The worker died, or the scheduler went away.
    """
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    resources = GPU_TO_TRAIN if where.offering("GPU").slots and request.device != "cpu" else None
    if resources is None:
        print("no worker offers a GPU: training on the CPU", file=sys.stderr, flush=True)
        request = request.replaced(device="cpu" if request.device == "auto" else request.device)
    log = TrainingLayout(Path(request.folder)).log
    future = where.client.submit(train_on_worker, request, resources=resources, pure=False)
    with progress("train", total, "step") as line:
        while not future.done():
            if where.client.status == "closed":
                raise TrainingLost(f"the Dask scheduler was lost in the middle of the training; {_goes_on(request)}")
            time.sleep(_POLL_SECONDS)
            _follow(log, line)
        _follow(log, line)
    try:
        return future.result()
    except (KilledWorker, FutureCancelledError) as error:
        raise TrainingLost(f"the worker that trained died (crash or out of memory); {_goes_on(request)}") from error


def _goes_on(request: TrainRequest) -> str:
    return f"its last checkpoint is in {request.folder}, and the same command with --resume goes on from there"


@phase("register")
def register_phase(report: TrainReport, preset: str, promote: bool) -> TrainReport:
    """Put the best weights into the user's registry under their hash, with a card.

    Args:
        report: The training's report, which says where the weights are.
        preset: The preset's name.
        promote: Whether the model becomes its preset's champion; the first of a preset always does.

    Returns:
        The report with the model id.
    """
    data = Path(report.weights).read_bytes()
    model_id = registry().add(preset, data, model_card(data), champion=promote)
    return dataclasses.replace(report, model_id=model_id)


def _follow(log: Path, line: Progress) -> None:
    """Move a training's line to where its log is, and note loss and speed."""
    try:
        entries = [json.loads(text) for text in log.read_text().splitlines()[-_LAST_LINES:]]
    except (OSError, ValueError):  # not begun, or in the middle of a line
        return
    reports = [entry for entry in entries if "loss" in entry]
    scores = [entry for entry in entries if entry.get("csdr") is not None]
    notes = [f"loss {reports[-1]['loss']:.4f}"] if reports else []
    if reports and reports[-1].get("examples_per_second"):
        notes.append(f"{reports[-1]['examples_per_second']:.3g} examples/s")
    if reports and reports[-1].get("waiting", 0.0) > 0.05:
        notes.append(f"waiting {reports[-1]['waiting']:.0%}")
    if scores:
        notes.append(f"{scores[-1]['csdr']:.2f} dB on validation")
    line.note = ", ".join(notes)
    if entries:
        line.advance(by=entries[-1]["step"] - line.done)
