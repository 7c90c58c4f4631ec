"""A model is scored on a dataset, between its floor and its ceiling, other systems beside it."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.running.artifacts import publish
from flows.running.cluster import GPU_TO_SEPARATE, Cluster, cluster
from flows.running.commit import clear_abandoned, commit
from flows.running.fanout import fan_out
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.running.plan import batches
from flows.running.progress import progress
from flows.running.record import recorded
from flows.settings import EvaluateOptions
from storage import runs
from storage.errors import DatasetError
from storage.files.layout import OutputLayout
from storage.files.location import absolute, location
from storage.results import metrics
from storage.results.agreement import agreements
from storage.results.predictions import run_drift
from storage.sources.datasets import DatasetTrack, discover
from tasks.evaluate import EvaluateSettings, evaluate_batch, failed_row
from tasks.loading import lasting_name, model_stems
from tasks.pages.report import drop_unheard_players, write_report


@dataclass(frozen=True)
class EvaluateSummary:
    """How an evaluation ended; the scores are in the metrics of its run."""

    run_id: str
    out: str
    model_id: str
    done: int
    failed: int
    report: str
    device: str = "auto"  # where the model ran: a model that is compared with this one runs there too
    predictions: tuple[str, ...] = ()  # one line per stem on how well predicted scores agree with the true ones

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0


def ready(options: EvaluateOptions) -> tuple[list[DatasetTrack], EvaluateSettings]:
    """The tracks to score, and the settings for the workers.

    Closes the records of killed runs over the same output.

    Args:
        options: The evaluation's options.

    Returns:
        The dataset's tracks in the split, and the settings with the model's id and stems.

    Raises:
        DatasetError: The dataset cannot be read, or has no track in the split.
        RegistryError: There is no such model, or its file is damaged.
        CheckpointError: The model's file is not a weights file.
        ModelError: A foreign model cannot be loaded.
        MetricsError: Another run is writing to the same output.
    """
    tracks = _tracks(options)
    model_id, stems = model_stems(options.model)
    clear_abandoned(OutputLayout(location(options.out)))
    model = lasting_name(options.model, model_id)
    return tracks, options.part(
        EvaluateSettings, model=model, out=absolute(options.out), model_id=model_id, stems=stems
    )


@settings_flow(EvaluateOptions, name="evaluate", check=ready)
def evaluate(options: EvaluateOptions, checked: tuple[list[DatasetTrack], EvaluateSettings]) -> EvaluateSummary:
    """Score a model on a dataset's split ("all" for both).

    Returns:
        How many tracks were scored and failed, the report, and how good the predicted scores were.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        DatasetError: The dataset cannot be read, or has no track in the split.
        RegistryError: There is no such model, or its file is damaged.
        CheckpointError: The model's file is not a weights file.
        ModelError: A foreign model cannot be loaded.
        MetricsError: Another run is writing to the same output.
    """
    tracks, settings = checked
    layout = OutputLayout(location(options.out))
    run_id = runs.new_run_id("evaluate")
    parameters = {"dataset": options.dataset, "split": options.split, **settings.model_dump(mode="json")}
    with recorded(layout, run_id, parameters):
        with cluster(model=settings.request, tracks=len(tracks), **options.cluster) as where:
            # One device for all tracks, whichever worker takes them: scores are compared with each other.
            where.must_see(absolute(options.dataset), settings.out)
            device = where.device(options.device)
            settings = settings.replaced(device=device, run_id=run_id)
            done, failed = evaluate_phase(tracks, layout, settings, run_id, where)
        return close_phase(layout, EvaluateSummary(run_id, options.out, settings.model_id, done, failed, "", device))


def _tracks(options: EvaluateOptions) -> list[DatasetTrack]:
    """The tracks of the split. Raises DatasetError where there are none."""
    # A layout without splits counts as the split that is chosen.
    split = "test" if options.split == "all" else options.split
    tracks = discover(Path(absolute(options.dataset)), kind=options.kind, split=split)
    tracks = [track for track in tracks if options.split == "all" or track.split == options.split]
    if not tracks:
        raise DatasetError(f"{options.dataset} has no tracks in its {options.split} split; choose another with --split")
    return tracks


@phase("evaluate")
def evaluate_phase(
    tracks: list[DatasetTrack], out: OutputLayout, settings: EvaluateSettings, run_id: str, where: Cluster
) -> tuple[int, int]:
    """Score tracks on the workers and write each batch's rows as it ends.

    Args:
        tracks: The dataset's tracks.
        out: The output that the run writes to.
        settings: The workers' settings; their device is "cuda" or "mps" only where workers with a GPU are to be used.
        run_id: The run.
        where: The connected cluster.

    Returns:
        How many tracks were scored, and how many failed.

    Raises:
        OutputError: The output cannot be written.
    """
    on_gpu = settings.device in ("cuda", "mps") and where.offering("GPU").slots
    resources = GPU_TO_SEPARATE if on_gpu else None
    where = where.offering("GPU") if resources else where
    with progress("evaluate", len(tracks)) as line:
        cut = batches(tracks, where.slots, lambda track: 0)
        run = partial(evaluate_batch, settings)
        for outcome in fan_out(where.client, run, cut, window=where.window, resources=resources):
            results = outcome.results
            if outcome.lost:
                results = [failed_row(settings, outcome.items[0], outcome.lost, "LostTrack")]
            commit(out, run_id, results, line)
        return line.done, line.failed


@phase("report")
def close_phase(out: OutputLayout, summary: EvaluateSummary) -> EvaluateSummary:
    """Compact the rows, write the report, end the run's record.

    Args:
        out: The output that the run writes to.
        summary: The run's summary without report and predictions.

    Returns:
        The complete summary.
    """
    metrics.compact(out, summary.run_id)
    lines = tuple(str(stem) for stem in agreements(out, summary.run_id, summary.model_id))
    drift = run_drift(out, summary.run_id)
    report = write_report(out, summary.run_id, drift=drift or "")
    summary = dataclasses.replace(summary, report=str(report), predictions=lines)
    drop_unheard_players(out, summary.run_id)
    publish(out, summary.run_id, summary.report, drift)
    runs.end(out, summary.run_id, runs.COMPLETED, dataclasses.asdict(summary))
    return summary
