"""Separated tracks: those of a run folder whose stems are on the disk now."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from storage.errors import MetricsError
from storage.files.fingerprint import fingerprint
from storage.files.layout import OutputLayout, source_name
from storage.files.location import location
from storage.results.query import opened
from storage.results.rows import present_tables

VOCALS = "vocals"
_ROWS_AT_ONCE = 10_000

# A track may have been separated in several formats or runs: of each stem the latest file counts, and of a track whose
# models were kept side by side the model that came last.
_STEMS = """
select track_id, path, source, model_id, source_fingerprint, stem, stem_path, predicted_sdr, activity
from metrics
where on_disk and {condition}
qualify finished_at = max(finished_at) over (partition by track_id, model_id, stem)
    and model_id = first_value(model_id) over (partition by track_id order by finished_at desc)
order by track_id, stem
"""

_UNANALYSED = """
not exists (
    from analyses
    where analyses.track_id = metrics.track_id and analyses.model_id = metrics.model_id
        and analyses.source_fingerprint is not distinct from metrics.source_fingerprint
)
"""


_FAILURE = """
select error from history
where source = $source and status = 'failed' and error is not null
order by finished_at desc limit 1
"""


@dataclass(frozen=True)
class SeparatedTrack:
    """A track with vocals and at least one other stem on the disk.

    Attributes:
        source: The file or URL it was separated from; None in rows of old versions.
        stems: (stem, path of its file) pairs, sorted by stem; their sum is the mixture.
        predicted_sdr: That of the vocals, in dB; None where the model predicts none.
        activity: The share of the track in which the vocals sing, 0 … 1; None where it was not measured.
    """

    track_id: str
    path: str
    model_id: str
    source_fingerprint: str | None
    stems: tuple[tuple[str, str], ...]
    predicted_sdr: float | None = None
    activity: float | None = None
    source: str | None = None

    @property
    def name(self) -> str:
        return Path(self.path).stem


def separated_tracks(out: OutputLayout, track_ids: Sequence[str] | None = None) -> Iterator[SeparatedTrack]:
    """The separated tracks of a run folder, sorted by their ids.

    Args:
        out: The run folder.
        track_ids: Only these tracks; None for all.

    Raises:
        MetricsError: The folder has no metrics, or they cannot be read.
    """
    if track_ids is None:
        return _matching(out, "true", {})
    return _matching(out, "track_id in (select unnest($ids))", {"ids": list(track_ids)})


def separated_sources(out: OutputLayout, sources: Iterable[str], model_id: str) -> dict[str, SeparatedTrack]:
    """The tracks that a model separated from some files, whatever name a catalog gave them.

    Args:
        out: The run folder.
        sources: Files, by absolute paths, and URLs.
        model_id: The model whose stems to find.

    Returns:
        The track of each source that has not changed since and whose stems are still on the disk.
    """
    by_name = {source_name(source): source for source in sources}
    try:
        tracks = list(_matching(out, "source in (select unnest($sources)) and model_id = $model",
                                {"sources": list(by_name), "model": model_id}))  # fmt: skip
    except MetricsError:  # nothing has been separated into the folder yet
        return {}
    return {
        by_name[track.source]: track
        for track in tracks
        if track.source is not None
        and track.source_fingerprint == fingerprint(by_name[track.source])
        and all(location(path).exists() for _, path in track.stems)
    }


def failure_of(out: OutputLayout, source: str) -> str | None:
    """Why the latest separation of a file failed, None where none did.

    Args:
        out: The run folder.
        source: A file or URL by its absolute path.

    Raises:
        MetricsError: The folder has no metrics, or they cannot be read.
    """
    with opened(out.root) as connection:
        rows = connection.execute(_FAILURE, {"source": source_name(source)}).fetchall()
    return rows[0][0] if rows else None


def unanalysed_tracks(out: OutputLayout) -> Iterator[SeparatedTrack]:
    """The separated tracks without a row in the table of analyses, of the stems that are on the disk now.

    Args:
        out: The output's layout.

    Yields:
        The tracks, sorted by their ids.

    Raises:
        MetricsError: The folder has no metrics, or they cannot be read.
    """
    return _matching(out, _UNANALYSED if "analyses" in present_tables(out) else "true", {})


def _matching(out: OutputLayout, condition: str, parameters: dict) -> Iterator[SeparatedTrack]:
    with opened(out.root) as connection:
        batches = connection.sql(_STEMS.format(condition=condition), params=parameters).to_arrow_reader(_ROWS_AT_ONCE)
        rows = (row for batch in batches for row in batch.to_pylist())
        for _, stems in groupby(rows, key=lambda row: row["track_id"]):
            by_stem = {row["stem"]: row for row in stems}
            if VOCALS in by_stem and len(by_stem) > 1:
                yield _track(out, by_stem)


def _track(out: OutputLayout, by_stem: dict[str, dict]) -> SeparatedTrack:
    vocals = by_stem[VOCALS]
    return SeparatedTrack(
        track_id=vocals["track_id"],
        path=vocals["path"],
        model_id=vocals["model_id"],
        source_fingerprint=vocals["source_fingerprint"],
        source=vocals["source"],
        stems=tuple((stem, str(out.root / row["stem_path"])) for stem, row in by_stem.items()),
        predicted_sdr=vocals["predicted_sdr"],
        activity=vocals["activity"],
    )
