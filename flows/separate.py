"""A catalog comes apart: plan what is left, separate it in a bounded window, compact, report."""

import contextlib
import dataclasses
import importlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from flows.prune import prune_unwatched
from flows.running.artifacts import publish
from flows.running.cluster import GPU_TO_SEPARATE, Cluster, address_of, cluster, processes_ahead
from flows.running.commit import clear_abandoned, commit
from flows.running.fanout import fan_out
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.running.plan import Counts, Planner, batches, one_batch, source_bytes
from flows.running.processes import Processes
from flows.running.progress import progress
from flows.running.record import OpenRun, recorded
from flows.settings import PruneOptions, SeparateOptions
from model.errors import ModelError
from storage import runs
from storage.errors import CatalogError
from storage.files import naming
from storage.files.layout import OutputLayout
from storage.files.location import absolute, absolute_sources, location
from storage.results import metrics
from storage.results.done import done_tracks
from storage.results.hash_set import HashSet
from storage.results.predictions import run_drift
from storage.results.selection import check_condition, select_tracks
from storage.sources.catalog import CatalogTrack, stream_catalog
from tasks.batches import interrupted_row, lost_row, score_batch, separate_batch
from tasks.loading import lasting_name, model_stems, resolved_arithmetic
from tasks.separation import SeparateSettings
from tasks.settings import SettingsError


@dataclass(frozen=True)
class RunSummary:
    """How a run ended. `done` and `failed` are of this run; `before` and `failed_before` of earlier ones.

    A dry run has done nothing and says in `todo` what it would do. Where a condition chose the tracks (`--where`),
    `passed` were not chosen, and `todo_seconds` is the audio of those to do, as far as its duration is known.
    `drift` is a sentence on how predicted SDR moved from the runs before, None where there is none.
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
    told_apart: int = 0
    passed: int = 0
    todo_seconds: float | None = None
    pruned: int = 0
    drift: str | None = None

    @property
    def exit_code(self) -> int:
        """0 all fine, 3 finished with newly failed tracks. Those that failed before and were not tried again are only
        counted in `failed_before`.
        """
        return 3 if self.failed else 0


def catalog_of(options: SeparateOptions) -> Iterator[CatalogTrack]:
    """The tracks of a run's sources as a stream, by absolute paths: workers have other working folders.

    Args:
        options: The separation's options, of which the sources count.

    Returns:
        The tracks, one by one; taking the first raises CatalogError where there is none.
    """
    sources = absolute_sources(options.source)
    return stream_catalog(sources if len(sources) > 1 else sources[0], allow_http=options.allow_http)


def ready(options: SeparateOptions) -> tuple[SeparateSettings, Iterator[CatalogTrack]]:
    """The settings for the workers, and the catalog, whose first track has been found already.

    Closes the records of killed runs over the same output, except in a dry run.

    Args:
        options: The separation's options.

    Returns:
        The settings, and the catalog as a stream that begins with its first track.

    Raises:
        SettingsError: Both `stems` and `two_stems` are given.
        RegistryError: There is no such model, or its file is damaged.
        ModelError: The model has no such stem, or cannot be loaded.
        CatalogError: There is nothing to separate at the source.
        MetricsError: Another run is writing to the same output, or the condition `where` does not work on its rows.
    """
    settings = _settings(options)
    catalog = catalog_of(options)
    first = next(catalog)
    if options.where is not None:
        check_condition(location(options.out), options.where)
    if not options.dry_run:
        clear_abandoned(OutputLayout(location(options.out)))
    return settings, chain([first], catalog)


@settings_flow(SeparateOptions, name="separate", check=ready)
def separate(options: SeparateOptions, checked: tuple[SeparateSettings, Iterator[CatalogTrack]]) -> RunSummary:
    """Separate every track of a catalog that is not yet done. A bad track is a row, not an error.

    Returns:
        How many tracks were separated, failed, and were done before, and the report.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        StorageError: The run cannot start, for the catalog, the model's file, the output or the cluster.
        ModelError: The model has no such stem, or cannot be loaded.
    """
    settings, catalog = checked
    layout = OutputLayout(location(options.out))
    few = None
    if not options.dry_run and not metrics.row_files(layout):  # all of the catalog is to do
        catalog, few = one_batch(catalog)
        few = few if few is None or options.limit is None else min(few, options.limit)
    with processes_ahead(model=settings.request, tracks=few, **options.cluster) as ahead:
        planner, counts = plan_phase(options, catalog, layout, settings)
        if options.dry_run:
            return RunSummary(
                "", options.out, 0, 0, counts.done, counts.failed, 0.0, None, counts.todo, counts.told_apart,
                counts.passed, counts.seconds,
            )  # fmt: skip
        return _run(options, settings, layout, planner, counts, ahead)


def _run(
    options: SeparateOptions, settings: SeparateSettings, layout: OutputLayout, planner: Planner, counts: Counts,
    ahead: Processes | None,
) -> RunSummary:  # fmt: skip
    """Do what is planned, on the workers that have been started ahead where there are some, and close the run."""
    run_id = runs.new_run_id("separate")
    parameters = {"source": options.source, "tracks": counts.all, **settings.model_dump(mode="json")}
    done = failed = 0
    audio_seconds = 0.0
    with recorded(layout, run_id, parameters) as run:
        if counts.todo:
            with cluster(
                model=settings.request, tracks=counts.todo, small=counts.small, ahead=ahead, **options.cluster
            ) as where:
                where.must_see(settings.out, counts.first)
                todo = planner.todo(catalog_of(options))
                settings = settings.replaced(known_stems=planner.done.stems, run_id=run_id, marked=True)
                done, failed, audio_seconds = separate_phase(todo, counts.todo, run, settings, where)
        audio_seconds = round(audio_seconds, 3)
        pruned = prune_phase(options, planner) if options.prune else 0
        summary = RunSummary(
            run_id, options.out, done, failed, counts.done, counts.failed, audio_seconds, None,
            told_apart=counts.told_apart, passed=counts.passed, pruned=pruned,
        )  # fmt: skip
        return close_phase(layout, summary)


@phase("plan")
def plan_phase(
    options: SeparateOptions, catalog: Iterator[CatalogTrack], out: OutputLayout, settings: SeparateSettings
) -> tuple[Planner, Counts]:
    """Work out what is done and what is left.

    The catalog is listed twice, here to count and later to do, and never kept in memory.

    Args:
        options: The separation's options.
        catalog: The catalog's tracks, read to their end.
        out: The output.
        settings: The workers' settings, which tell what counts as done.

    Returns:
        The planner, whose `todo` takes the catalog listed anew, and how many tracks are in which state.

    Raises:
        CatalogError: The catalog cannot be listed completely.
        MetricsError: The output's rows cannot be read, or the condition `where` does not work on them.
    """
    done = done_tracks(out, settings.target)
    chosen = None if options.where is None else select_tracks(out.root, options.where)
    planner = Planner(
        done, options.retry_failed, options.since, options.limit, options.force, options.names, chosen,
        adding=_adding(options, settings) if done.lacking else None, listed=HashSet() if options.prune else None,
    )  # fmt: skip
    return planner, planner.count(catalog)


def _adding(options: SeparateOptions, settings: SeparateSettings) -> str | None:
    """The hash of the settings that this run makes stems with, None where workers elsewhere decide on it."""
    if address_of(options.dask) is None:
        return settings.made_on(*resolved_arithmetic(options.model, options.device, options.precision))
    return None if "auto" in (options.device, options.precision) else settings.hash


@phase("separate")
def separate_phase(
    todo: Iterator[CatalogTrack], total: int, run: OpenRun, settings: SeparateSettings, where: Cluster
) -> tuple[int, int, float]:
    """Keep a window of batches on the workers and write each one's rows as it ends.

    Where workers offer a GPU the separations go there, and scoring wherever there is room.

    Args:
        todo: The planned tracks, as a stream.
        total: How many there are.
        run: The run, which is told the folders that workers write to.
        settings: The workers' settings.
        where: The connected cluster.

    Returns:
        How many tracks were separated, how many failed, and the seconds of audio in them.

    Raises:
        SchedulerLost: The scheduler went away in the middle of the run.
        WorkersLost: The last worker went away, and no other came.
        OutputError: The output cannot be written.
    """
    with_gpu = where.offering("GPU")
    resources = GPU_TO_SEPARATE if with_gpu.slots and settings.device != "cpu" else None
    where = with_gpu if resources else where
    cut = _announced(batches(todo, where.slots, source_bytes), run, settings)
    with progress("separate", total) as line:
        # What the report needs takes a second to import: now, while this process waits for the workers.
        threading.Thread(target=_prepare_report, daemon=True).start()
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
            commit(run.out, run.run_id, results, line)
            for track in outcome.items:
                run.at_work.pop(track.track_id, None)
        return line.done, line.failed, line.audio_seconds


def _prepare_report() -> None:
    with contextlib.suppress(Exception):  # the report, when it is written, says what is wrong
        importlib.import_module("duckdb")
        importlib.import_module("tasks.pages.report").prepare_report()


def _announced(
    cut: Iterator[list[CatalogTrack]], run: OpenRun, settings: SeparateSettings
) -> Iterator[list[CatalogTrack]]:
    """The batches as they come, their folders noted. Before a batch replaces stems, that is written down as rows, which
    the batch's own rows will replace: where the run is killed in between, nobody takes the new stems for the earlier
    ones.
    """
    for batch in cut:
        run.at_work |= {track.track_id: _folder(settings, track) for track in batch}
        if any(track.replaces for track in batch):
            metrics.write_part(run.out, run.run_id, [interrupted_row(settings, track) for track in batch])
        yield batch


def _folder(settings: SeparateSettings, track: CatalogTrack) -> Path:
    """The folder that a track's stems are written to."""
    name = naming.stem_name(settings.place(track.place, track.path), settings.stems[0], "flac", settings.names)
    return (settings.folder() / name).parent


@phase("prune")
def prune_phase(options: SeparateOptions, planner: Planner) -> int:
    """Remove what the catalog no longer lists: a renamed song has its new stems by now.

    Args:
        options: The separation's options, of which the output and the sources count.
        planner: The run's, which has listed the catalog.

    Returns:
        How many tracks went; 0 where the catalog does not allow it, which is said on the screen.

    Raises:
        OutputError: A file cannot be deleted.
    """
    try:
        assert planner.listed is not None  # `plan_phase` sees to it where options say --prune
        return prune_unwatched(options.part(PruneOptions), planner.listed, planner.unseen)
    except CatalogError as error:  # what was separated stays done
        print(f"unbraid: nothing was pruned: {error}", file=sys.stderr, flush=True)
        return 0


@phase("report")
def close_phase(out: OutputLayout, summary: RunSummary) -> RunSummary:
    """Compact the run's rows, write its report, and end its record.

    Args:
        out: The output.
        summary: The run's summary without report and drift.

    Returns:
        The summary with the report's path, None where the run has no rows, and its drift.
    """
    if metrics.compact(out, summary.run_id):
        from tasks.pages.report import write_report

        drift = run_drift(out, summary.run_id)
        report = write_report(out, summary.run_id, drift=drift or "")
        summary = dataclasses.replace(summary, report=str(report), drift=drift)
    publish(out, summary.run_id, summary.report, summary.drift)
    runs.end(out, summary.run_id, runs.COMPLETED, dataclasses.asdict(summary))
    return summary


def _settings(options: SeparateOptions) -> SeparateSettings:
    """The settings for the workers. Raises RegistryError or ModelError for a model or a stem that does not exist."""
    model_id, available = model_stems(options.model)
    options = options.replaced(model=lasting_name(options.model, model_id))
    if options.two_stems:
        stems = _two(options, model_id, available)
        return options.part(SeparateSettings, out=absolute(options.out), model_id=model_id, stems=stems)
    unknown = set(options.stems or ()) - set(available)
    if unknown:
        raise ModelError(f"{model_id} has no stem {', '.join(sorted(unknown))}; it has {', '.join(available)}")
    chosen = tuple(stem for stem in available if not options.stems or stem in options.stems)
    return options.part(SeparateSettings, out=absolute(options.out), model_id=model_id, stems=chosen)


def _two(options: SeparateOptions, model_id: str, available: tuple[str, ...]) -> tuple[str, ...]:
    """A stem, and the name of all the others together. Raises ModelError."""
    stem = options.two_stems or ""
    if options.stems:
        raise SettingsError("stems and two_stems cannot both be chosen; give one of them")
    if stem not in available:
        raise ModelError(f"{model_id} has no stem {stem}; it has {', '.join(available)}")
    if len(available) == 2:
        return available
    return stem, "accompaniment" if stem == "vocals" else f"no_{stem}"
