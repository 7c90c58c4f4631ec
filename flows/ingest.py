"""A dataset goes into the zarr store: list, check for leaks, fan out over tracks, consolidate, sum up."""

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.running.cluster import address_of, cluster
from flows.running.fanout import fan_out
from flows.running.parameters import settings_flow
from flows.running.phases import phase
from flows.running.plan import batches
from flows.running.progress import progress
from flows.settings import IngestOptions
from storage.errors import DatasetError, StoreError
from storage.files.atomic import write_bytes
from storage.files.location import absolute, is_url, location
from storage.sources.datasets import DatasetTrack, discover, leaks
from storage.store import Store, StoreFormat, group_path
from tasks.ingest import IngestRecord, disk_need, ingest_batch, source_fingerprint


@dataclass(frozen=True)
class IngestSummary:
    """How an ingest ended; `page` is its summary as text."""

    store: str
    done: int
    before: int
    failures: tuple[IngestRecord, ...]
    page: str

    @property
    def exit_code(self) -> int:
        return 3 if self.failures else 0


def ready(options: IngestOptions) -> tuple[Store, list[DatasetTrack]]:
    """The store, and the dataset's tracks that belong in it.

    Makes the store where there is none yet.

    Args:
        options: The ingest's options.

    Returns:
        The opened store, and the tracks, including those that it holds already.

    Raises:
        DatasetError: The dataset cannot be read, or a song would be in both a training and a test split.
        StoreError: The store was made with another format, or the folder is not a store.
    """
    # Workers of a cluster have other working folders.
    dataset = absolute(options.dataset) if address_of(options.dask) else options.dataset
    tracks = discover(
        Path(dataset), kind=options.kind, dataset=options.name, split=options.split, stem=options.stem,
        test_artists=options.test_artists,
    )  # fmt: skip
    form = StoreFormat() if options.spectrograms else StoreFormat(n_fft=0, hop=0)
    opened = Store.create(location(options.store), form)
    stored = opened.tracks()
    present = {(track.song, track.split) for track in stored}
    songs = [(t.song, f"{t.artist} - {t.title}", t.split) for t in stored]
    if options.drop_leaked:
        tested = present | {(t.song, t.split) for t in tracks}
        tracks = [t for t in tracks if t.split != "train" or (t.song, "test") not in tested]
    leaked = leaks([*songs, *((t.song, f"{t.artist} - {t.title}", t.split) for t in tracks)])
    if leaked:
        raise DatasetError(
            f"{len(leaked)} songs would be in both a training and a test split of {options.store}: "
            f"{'; '.join(leaked)}. Scores on them would mean nothing; leave their training copies out with "
            "--drop-leaked"
        )
    return opened, tracks


@settings_flow(IngestOptions, name="ingest", check=ready)
def ingest(options: IngestOptions, checked: tuple[Store, list[DatasetTrack]]) -> IngestSummary:
    """Write a dataset into a zarr store.

    Returns:
        How many tracks were written, were there before and failed, with their errors.

    Raises:
        SettingsError: A setting is unknown or has a value that it cannot have.
        DatasetError: The dataset cannot be read, or a song would be in both a training and a test split.
        StoreError: The store was made with another format, or its disk has no room for the tracks.
    """
    opened, tracks = checked
    todo = plan_phase(opened, tracks)
    records: list[IngestRecord] = []
    if todo:
        say_disk_need(opened, todo)
        with cluster(tracks=len(todo), **options.cluster) as where:
            where.must_see(absolute(options.store), absolute(options.dataset))
            records = ingest_phase(absolute(options.store), todo, where)
    return consolidate_phase(opened, len(tracks) - len(todo), records)


@phase("plan")
def plan_phase(opened: Store, tracks: list[DatasetTrack]) -> list[DatasetTrack]:
    """The tracks that the store does not hold completely yet, from the same source bytes.

    Args:
        opened: The store; the groups above the tracks are made in it.
        tracks: The dataset's tracks.

    Raises:
        StoreError: The store cannot be read.
    """
    opened.prepare({group_path(t.split, t.dataset) for t in tracks})
    return [t for t in tracks if not opened.finished(group_path(t.split, t.track_id), source_fingerprint(t))]


def say_disk_need(opened: Store, todo: list[DatasetTrack]) -> None:
    """Say on the screen how much disk the tracks will take.

    Args:
        opened: The store.
        todo: The tracks to write into it.

    Raises:
        StoreError: The store's disk has less room than they take at least; not checked in an object store.
    """
    need = disk_need(todo, opened.format)
    kept = "spectra and waveforms" if opened.format.n_fft else "waveforms only"
    free = None if is_url(opened.path) else shutil.disk_usage(opened.path).free
    room = "" if free is None else f"; {free / 1e9:.1f} GB are free"
    sentence = f"{len(todo)} tracks, {need.hours:.2f} hours, {kept}: at most {need.bytes / 1e9:.2f} GB of disk{room}"
    print(sentence, file=sys.stderr, flush=True)
    if free is not None and need.least > free:
        raise StoreError(f"{opened.path} would not fit on its disk: {sentence}; free some space, or use another disk")


@phase("ingest")
def ingest_phase(store: str, todo: list[DatasetTrack], where) -> list[IngestRecord]:
    """Write every track's group on the workers; one task takes a batch of tracks.

    Args:
        store: The store's absolute path or URL.
        todo: The tracks to write.
        where: The connected cluster.

    Returns:
        One record per track; its status is "failed" where the track could not be read or its worker was lost.
    """
    records: list[IngestRecord] = []
    cut = batches(todo, where.slots, lambda track: 0)
    with progress("ingest", len(todo)) as line:
        for outcome in fan_out(where.client, partial(ingest_batch, store), cut, window=where.window):
            ended = outcome.results
            if outcome.lost:
                ended = [IngestRecord(outcome.items[0].track_id, "failed", outcome.lost)]
            records += ended
            for record in ended:
                line.advance(failed=record.status == "failed", audio_seconds=record.duration)
    return records


@phase("consolidate")
def consolidate_phase(opened: Store, before: int, records: list[IngestRecord]) -> IngestSummary:
    """Gather the metadata, as the last step of one writer, and write the one-page summary beside the store.

    Args:
        opened: The store.
        before: How many of the dataset's tracks the store held already.
        records: What became of the others.

    Returns:
        The run's summary.
    """
    opened.consolidate()
    failures = tuple(record for record in records if record.status == "failed")
    page = _page(opened, failures)
    write_bytes(opened.path.with_name(opened.path.name + ".summary.txt"), page.encode("utf-8", "replace"))
    return IngestSummary(str(opened.path), len(records) - len(failures), before, failures, page)


def _page(opened: Store, failures: tuple[IngestRecord, ...]) -> str:
    form = opened.format
    kept = f"spectra {form.n_fft}/{form.hop} and waveforms" if form.n_fft else "waveforms only"
    lines = [f"{opened.path}: {form.sample_rate} Hz, {kept}", ""]
    lines.append(f"{'split':6} {'dataset':24} {'tracks':>7} {'hours':>7}  stems")
    groups: dict[tuple[str, str], list] = {}
    for track in opened.tracks():
        groups.setdefault((track.split, track.dataset), []).append(track)
    for (split, dataset), tracks in sorted(groups.items()):
        hours = sum(track.samples for track in tracks) / form.sample_rate / 3600
        stems = sorted({stem for track in tracks for stem in track.stems})
        lines.append(f"{split:6} {dataset:24} {len(tracks):7} {hours:7.2f}  {', '.join(stems)}")
    if failures:
        lines += ["", f"{len(failures)} tracks failed:"]
        lines += [f"  {failure.track_id}: {failure.error}" for failure in failures]
    return "\n".join(lines) + "\n"
