"""Separated songs: what a mash-up is made of."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.audio import reader as audio
from storage.files.layout import OutputLayout
from storage.results.metrics import OK, read_all

VOCALS = "vocals"


@dataclass(frozen=True)
class SeparatedSong:
    """A track's stems on disk, as (stem, path) pairs; its mixture is their sum."""

    track_id: str
    path: str
    model_id: str
    source_fingerprint: str | None
    stems: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return Path(self.path).stem


def separated_songs(out: OutputLayout) -> list[SeparatedSong]:
    """Every track of a run folder that has vocals and something else, by its latest separation."""
    columns = ["run_id", "track_id", "path", "model_id", "stem", "status", "stem_path", "source_fingerprint",
               "finished_at"]  # fmt: skip
    latest: dict[str, tuple] = {}
    stems: dict[tuple, dict[str, dict]] = {}
    for row in read_all(out, columns=columns).to_pylist():
        if row["status"] != OK or not row["stem_path"]:
            continue
        run = (row["track_id"], row["run_id"], row["model_id"])
        stems.setdefault(run, {})[row["stem"]] = row
        if row["track_id"] not in latest or row["finished_at"] >= latest[row["track_id"]][0]:
            latest[row["track_id"]] = (row["finished_at"], run)
    found = []
    for track_id, (_, run) in sorted(latest.items()):
        rows = stems[run]
        if VOCALS in rows and len(rows) > 1:
            row = rows[VOCALS]
            paths = tuple((stem, str(out.root / own["stem_path"])) for stem, own in sorted(rows.items()))
            found.append(SeparatedSong(track_id, row["path"], row["model_id"], row["source_fingerprint"], paths))
    return found


def read_song(song: SeparatedSong) -> tuple[np.ndarray, np.ndarray, int]:
    """(vocals, accompaniment, rate), both float32 (channels, samples). Raises AudioError."""
    signals, rate = {}, 0
    for stem, path in song.stems:
        signals[stem], rate = audio.read(path)
    vocals = signals.pop(VOCALS)
    return vocals, np.add.reduce(list(signals.values()), axis=0, dtype=np.float32), rate
