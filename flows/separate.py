"""A catalog comes apart: plan what is left, separate it in a bounded window, compact, report."""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.running.cluster import cluster
from flows.running.commit import clear_abandoned, commit
from flows.running.fanout import fan_out
from flows.running.plan import Counts, Planner, batches, source_bytes
from flows.running.progress import progress
from flows.running.record import recorded
from model.errors import ModelError
from storage import runs
from storage.audio.writer import FORMATS
from storage.errors import CatalogError
from storage.files.atomic import remove_leftovers
from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results import metrics
from storage.results.done import done_tracks
from storage.sources.catalog import CatalogTrack, stream_catalog
from tasks.loading import model_stems
from tasks.report import write_report
from tasks.separate import SeparateSettings, lost_row, score_batch, separate_batch
from tasks.worker import ModelRequest


@dataclass(frozen=True)
class RunSummary:
    """How a run ended. `done` and `failed` are of this run; `before` and `failed_before` of earlier ones.

    A dry run has done nothing and says in `todo` what it would do.
    """

    run_id: str
    out: str
    done: int
    failed: int
    before: int
    failed_before: int
    audio_seconds: float
    report: str | None
    todo: int = 0

    @property
    def exit_code(self) -> int:
        """0 all fine, 3 finished with failed tracks, of this run or standing from an earlier one."""
        return 3 if self.failed or self.failed_before else 0


@flow(name="separate", retries=0)
def separate(
    source: str,
    out: str,
    model: str = "stereo",
    stems: list[str] | None = None,
    format: str = "flac",
    dask: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    memory: str = "auto",
    tags: bool = True,
    retry_failed: bool = False,
    since: datetime.datetime | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    seconds_per_track: float = 3600.0,
    engine: str = "bsseval",
    windows: bool = False,
) -> RunSummary:
    """Separate every track of a catalog that is not yet done; see `unbraid separate --help`.

    Raises StorageError or ModelError when the run cannot start; a bad track is a row, not an error.
    """
    settings = _settings(out, model, stems, format, device, precision)
    settings = dataclasses.replace(
        settings, tags=tags, seconds_per_track=seconds_per_track, engine=engine, windows=windows
    )
    layout = OutputLayout(location(out))
    if not dry_run:
        clear_abandoned(layout)
    planner, counts = plan_phase(source, layout, settings, retry_failed, since, limit)
    if dry_run:
        return RunSummary("", out, 0, 0, counts.done, counts.failed, 0.0, None, counts.todo)
    run_id = runs.new_run_id("separate")
    runs.begin(layout, run_id, {"source": source, "tracks": counts.all, **dataclasses.asdict(settings)})
    done = failed = 0
    audio_seconds = 0.0
    with recorded(layout, run_id):
        if counts.todo:
            with (
                _tidied(layout, run_id),
                cluster(dask, model=settings.model, workers=workers, tracks=counts.todo, memory=memory) as where,
            ):
                todo = planner.todo(stream_catalog(source))
                done, failed, audio_seconds = separate_phase(todo, counts.todo, layout, settings, run_id, where)
        summary = RunSummary(run_id, out, done, failed, counts.done, counts.failed, round(audio_seconds, 3), None)
        return close_phase(layout, summary)


@task(name="plan", cache_policy=NO_CACHE)
def plan_phase(
    source: str,
    out: OutputLayout,
    settings: SeparateSettings,
    retry_failed: bool,
    since: datetime.datetime | None,
    limit: int | None,
) -> tuple[Planner, Counts]:
    """How the catalog stands. It is read twice, here to count and later to do, and never held."""
    done = done_tracks(out, settings.model_id, settings.hash)
    planner = Planner(done, retry_failed, since, limit)
    return planner, planner.count(stream_catalog(source))


@task(name="separate", cache_policy=NO_CACHE)
def separate_phase(
    todo: Iterator[CatalogTrack], total: int, out: OutputLayout, settings: SeparateSettings, run_id: str, where
) -> tuple[int, int, float]:
    """Keep a window of batches on the workers and write each one's rows as it ends.

    Where workers offer a GPU the separations go there, and scoring wherever there is room.
    """
    with_gpu = where.offering("GPU")
    resources = {"GPU": 1.0} if with_gpu.slots and settings.model.device != "cpu" else None
    where = with_gpu if resources else where
    cut = batches(todo, where.slots, source_bytes)
    with progress("separate", total) as line:
        outcomes = fan_out(
            where.client,
            partial(separate_batch, settings),
            cut,
            window=where.window,
            resources=resources,
            then=partial(score_batch, settings),
            follows=lambda batch: any(track.references for track in batch),
        )
        for outcome in outcomes:
            results = outcome.results
            if outcome.lost:
                results = [lost_row(settings, outcome.items[0], outcome.lost)]
            commit(out, run_id, results, line)
        return line.done, line.failed, line.audio_seconds


@task(name="report", cache_policy=NO_CACHE)
def close_phase(out: OutputLayout, summary: RunSummary) -> RunSummary:
    """Compact the run's rows, write its report, and end its record."""
    if metrics.compact(out, summary.run_id):
        summary = dataclasses.replace(summary, report=str(write_report(out, summary.run_id)))
    runs.end(out, summary.run_id, runs.COMPLETED, dataclasses.asdict(summary))
    return summary


@contextlib.contextmanager
def _tidied(out: OutputLayout, run_id: str) -> Iterator[None]:
    """A run that is stopped keeps its rows and leaves nothing half-written. Around the cluster, whose workers
    are gone when this goes on.
    """
    try:
        yield
    except BaseException:
        metrics.compact(out, run_id)
        remove_leftovers(out.root)
        raise


def _settings(out, model, stems, format, device, precision) -> SeparateSettings:
    model_id, available = model_stems(model)
    unknown = set(stems or ()) - set(available)
    if unknown:
        raise ModelError(f"{model_id} has no stem {', '.join(sorted(unknown))}; it has {', '.join(available)}")
    if format not in FORMATS:
        raise CatalogError(f"{format} is not a stem format; choose one of {', '.join(FORMATS)}")
    chosen = tuple(stem for stem in available if not stems or stem in stems)
    request = ModelRequest(model, device, precision)
    return SeparateSettings(out, request, model_id, chosen, format)
