"""Which tracks are done: the anti-join of planning, in some eighty bytes a track."""

from collections.abc import Iterable

from storage.files.layout import OutputLayout
from storage.results import metrics, parquet
from storage.results.metrics import OK

# Of several rows of a track the latest counts.
_LATEST = """
select track_id, arg_max(source_fingerprint, finished_at), arg_max(status, finished_at) = $ok
from parts where model_id = $model and settings_hash = $settings group by track_id
"""


class DoneTracks:
    """Tracks that ended, well or not, and their sources' fingerprints then.

    Of each only a hash is kept, 64 bits of track and fingerprint: that one of a million tracks to do is taken for
    one of a million that are done has a chance of 1 in 20 million.
    """

    def __init__(self, tracks: Iterable[tuple[str, str, bool]] = ()) -> None:
        self._well: set[int] = set()
        self._failed: set[int] = set()
        for track_id, fingerprint, well in tracks:
            self.add(track_id, fingerprint, well)

    def add(self, track_id: str, fingerprint: str, well: bool) -> None:
        (self._well if well else self._failed).add(hash((track_id, fingerprint)))

    def __len__(self) -> int:
        return len(self._well) + len(self._failed)

    def ended(self, track_id: str, fingerprint: str) -> bool | None:
        """True where the track with this fingerprint ended well, False where it failed, None where neither."""
        key = hash((track_id, fingerprint))
        return True if key in self._well else False if key in self._failed else None


def done_tracks(out: OutputLayout, model_id: str, settings_hash: str) -> DoneTracks:
    """Every track with rows of this model and these settings. Raises MetricsError."""
    rows = metrics.dataset(out)
    if not rows.files:
        return DoneTracks()
    latest = parquet.select(rows, _LATEST, ok=OK, model=model_id, settings=settings_hash)
    return DoneTracks(
        track for batch in latest for track in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
