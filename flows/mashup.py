"""Mash-ups: of two songs, or the best pairs of a separated catalog."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from flows.running.cluster import MASHING, Cluster, cluster, one_process
from flows.running.commit import commit_rows
from flows.running.fanout import fan_out
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.running.progress import progress
from flows.running.record import swept
from flows.separate import separate
from flows.settings import FindMashupsOptions, MashupOptions, SeparateOptions
from model.errors import ModelError
from storage import runs
from storage.errors import CatalogError, MetricsError
from storage.files.layout import OutputLayout
from storage.files.location import absolute, location
from storage.results.mashup_rows import MISFIT, MashupRow, PairRow
from storage.results.metrics import FAILED
from storage.results.pairs import rank_pairs
from storage.results.rows import write_rows
from storage.results.separated import (
    VOCALS,
    SeparatedTrack,
    failure_of,
    separated_sources,
    separated_tracks,
    unanalysed_tracks,
)
from storage.sources.catalog import stream_catalog
from tasks.loading import model_stems
from tasks.mashup.batches import analyse_songs, failed_analysis, lost_mashup, mash_pairs
from tasks.settings import MashupSettings


@dataclass(frozen=True)
class MashupSummary:
    """What was made: the mash-ups' rows and, where a catalog was searched, the ranked pairs."""

    run_id: str
    out: str
    rows: tuple[MashupRow, ...]
    pairs: tuple[PairRow, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all made; 3 some failed; 4 a pair did not fit (and none failed)."""
        states = {row.status for row in self.rows}
        return 3 if FAILED in states else 4 if MISFIT in states else 0


def ready(options: MashupOptions) -> tuple[list[str], dict[str, SeparatedTrack]]:
    """Both songs' locations, and their stems that OUT holds already.

    Args:
        options: The mash-up's options.

    Returns:
        The absolute paths or URLs, that of the vocals' song first, and the separated track of each that OUT has.

    Raises:
        CatalogError: One of them does not exist, or is not a single song.
        RegistryError: There is no such model, or its file is damaged.
        ModelError: The model gives no vocals, or cannot be loaded.
        MetricsError: A song must be separated, and another run is writing to OUT.
    """
    sources = [absolute(song) for song in (options.vocals_of, options.accompaniment_of)]
    for source in sources:
        if len(list(itertools.islice(stream_catalog(source), 2))) > 1:
            raise CatalogError(f"{source} holds several songs; name one file")
    songs = _separated(options, sources)
    missing = tuple(source for source in sources if source not in songs)
    if missing:
        separate.check(options.part(SeparateOptions, source=missing))
    return sources, songs


@settings_flow(MashupOptions, name="mashup", check=ready)
def mashup(options: MashupOptions, checked: tuple[list[str], dict[str, SeparatedTrack]]) -> MashupSummary:
    """The vocals of one song over the accompaniment of another. A pair that does not fit is a row.

    Returns:
        The mash-up's row; its `error` says why two songs do not fit.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        CatalogError: A song does not exist, or cannot be separated.
        RegistryError: There is no such model, or its file is damaged.
        ModelError: The model gives no vocals, or cannot be loaded.
    """
    layout = OutputLayout(location(options.out))
    sources, songs = checked
    missing = [source for source in dict.fromkeys(sources) if source not in songs]
    with (
        swept(layout.mixes),
        one_process(MASHING) as where,
    ):  # which imports what it needs while the songs are separated
        for together in _by_different_names(missing):
            separate(**options.part(SeparateOptions, source=together).values())
        if missing:
            songs = _separated(options, sources)
        for source in sources:
            if source not in songs:
                raise CatalogError(
                    failure_of(layout, source)
                    or f"{source} could not be separated into vocals and accompaniment; "
                    f"see the metrics of {layout.root}"
                )
        pair = songs[sources[0]], songs[sources[1]]
        settings = options.part(MashupSettings, out=str(layout.root))
        run_id = runs.new_run_id("mashup")
        return MashupSummary(run_id, options.out, tuple(mash_phase(settings, [pair], layout, run_id, where)))


def _separated(options: MashupOptions, sources: list[str]) -> dict[str, SeparatedTrack]:
    """Of these files those whose stems are all in OUT, in whatever catalog they were separated. Raises ModelError."""
    model_id, stems = model_stems(options.model)
    if VOCALS not in stems:
        raise ModelError(f"{model_id} gives no vocals, which a mash-up needs; it gives {', '.join(stems)}")
    tracks = separated_sources(OutputLayout(location(options.out)), sources, model_id)
    complete = (set(stems), {VOCALS, "accompaniment"})
    return {source: track for source, track in tracks.items() if {stem for stem, _ in track.stems} in complete}


def _by_different_names(sources: list[str]) -> Iterator[tuple[str, ...]]:
    """The files in as few runs as possible: one run goes by the files' names, which must differ."""
    names = {source.rpartition("/")[2] for source in sources}
    if len(names) == len(sources):
        yield from [tuple(sources)] if sources else []
    else:
        yield from ((source,) for source in sources)


def refuse_without_songs(options: FindMashupsOptions) -> None:
    """Refuse a run folder in which there is nothing to pair.

    Args:
        options: The search's options.

    Raises:
        CatalogError: Nothing in the run folder has vocals and another stem.
    """
    try:
        first = next(separated_tracks(OutputLayout(location(options.out))), None)
    except MetricsError:
        first = None
    if first is None:
        raise CatalogError(f"{options.out} has no separated tracks with vocals; separate a catalog into it first")


@settings_flow(FindMashupsOptions, name="find-mashups", check=refuse_without_songs)
def find_mashups(options: FindMashupsOptions, _: None) -> MashupSummary:
    """Rank all pairs of the separated catalog OUT and make the first `render` of them.

    Returns:
        The ranked pairs, and the rows of the mash-ups that were made.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        CatalogError: Nothing in OUT has vocals and accompaniment.
    """
    layout = OutputLayout(location(absolute(options.out)))  # workers of a cluster have other working folders
    run_id = runs.new_run_id("mashup")
    settings = options.part(MashupSettings, out=str(layout.root))
    todo = sum(1 for _ in unanalysed_tracks(layout))
    with swept(layout.mixes), cluster(tracks=max(1, todo, options.render), **options.cluster) as where:
        where.must_see(str(layout.root))
        if todo:
            analyse_phase(unanalysed_tracks(layout), todo, layout, run_id, where)
        from tasks.mashup.keys import key_table
        from tasks.mashup.pairing import WEIGHTS

        pairs = rank_pairs(layout, key_table(), WEIGHTS, max(options.top, options.render))
        if pairs:
            write_rows(layout, run_id, pairs)
        chosen = _songs_of(layout, pairs[: options.render])
        rows = mash_phase(settings, chosen, layout, run_id, where) if chosen else []
    return MashupSummary(run_id, options.out, tuple(rows), tuple(pairs[: options.top]))


@phase("analyse")
def analyse_phase(songs: Iterator[SeparatedTrack], total: int, out: OutputLayout, run_id: str, where: Cluster) -> None:
    """Measure tempo, key and singing of every song that has not been analysed, and write one row per song as it ends.

    Args:
        songs: The songs, as a stream.
        total: How many there are.
        out: The run folder.
        run_id: The run.
        where: The connected cluster.
    """
    with progress("analyse", total) as line:
        outcomes = fan_out(where.client, analyse_songs, ([song] for song in songs), window=where.window)
        commit_rows(outcomes, failed_analysis, out, run_id, line)


@phase("mash")
def mash_phase(
    settings: MashupSettings,
    pairs: list[tuple[SeparatedTrack, SeparatedTrack]],
    out: OutputLayout,
    run_id: str,
    where: Cluster,
) -> list[MashupRow]:
    """Make every mash-up and write one row per pair as it ends.

    Args:
        settings: How to make them, with the run folder's path as `out`.
        pairs: For each mash-up the song whose vocals are taken and the one whose accompaniment is.
        out: The run folder.
        run_id: The run.
        where: The connected cluster.

    Returns:
        The rows; one per pair, also where it does not fit or has failed.
    """
    batches = ([pair] for pair in pairs)
    with progress("mash", len(pairs), "pair") as line:
        outcomes = fan_out(where.client, partial(mash_pairs, settings), batches, window=where.window)
        return commit_rows(outcomes, lambda pair, sentence: lost_mashup(pair[0], pair[1], sentence), out, run_id, line)


def _songs_of(out: OutputLayout, pairs: list[PairRow]) -> list[tuple[SeparatedTrack, SeparatedTrack]]:
    """The two songs of each pair, as they are on the disk now."""
    ids = {track_id for pair in pairs for track_id in (pair.vocals_id, pair.accompaniment_id)}
    songs = {song.track_id: song for song in separated_tracks(out, sorted(ids))}
    return [(songs[pair.vocals_id], songs[pair.accompaniment_id]) for pair in pairs]
