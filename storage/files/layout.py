"""Every path the project writes, in one place.

OUT/.unbraid                   says that this is an output
OUT/stems/<place of the track>/<stem>.<ext>      or <place>_<stem>.<ext>; see storage/files/naming.py
OUT/models/<model id>/<place of the track>/<stem>.<ext>     where models are kept side by side
OUT/metrics/run_id=<run>/metrics.parquet     the rows of a run that has ended, in one step
OUT/runs/<run>/metrics/<part>.parquet        the rows of an unfinished run, which readers of tables do not search
OUT/windows/run_id=<run>/<part>.parquet     scores of every window, where they are kept
OUT/runs/<run>.json            what shaped a run (and <run>.beat while it goes on)
OUT/reports/<run>.html         what came out of it
OUT/reports/<run>.errors/      the tracebacks of internal errors
OUT/reports/<run>.players/     excerpts of an evaluation's tracks, which keeps no stems
OUT/mixes/<A over B>/mix.flac, vocals.flac, accompaniment.flac, beats.png
OUT/<table>/run_id=<run>/<part>.parquet     decisions, trials, mash-ups and their kin (storage/results/rows.py)
RUNS/<name>/checkpoint.safetensors, record.json, log.jsonl, players.json     a training run
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from storage.files.atomic import write_bytes
from storage.files.location import is_url, location
from storage.files.naming import safe_parts

_LIKE_A_BYTE = re.compile(r"\\(?=x[0-9a-f]{2})")
MARKER = ".unbraid"  # says that a folder is an output
OUTPUT_FOLDERS = ("stems", "models", "mixes", "metrics", "windows", "runs", "reports")


@dataclass(frozen=True)
class OutputLayout:
    """The folder a run writes to."""

    root: Path

    @property
    def stems(self) -> Path:
        return self.root / "stems"

    @property
    def mixes(self) -> Path:
        return self.root / "mixes"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics"

    @property
    def windows(self) -> Path:
        return self.root / "windows"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def marker(self) -> Path:
        """The file that says that this folder is an output, so that no catalog takes it for music."""
        return self.root / MARKER

    def mark(self) -> None:
        """Make the folder, and mark it as an output."""
        if not self.marker.exists():
            write_bytes(self.marker, b"An output of unbraid: stems, metrics and reports, and no catalog of songs.\n")

    def stems_of(self, model_id: str | None) -> Path:
        """The folder below which a model's stems lie.

        Args:
            model_id: The model where models are kept side by side; None for the folder that all models share.
        """
        return self.root / "models" / model_id if model_id else self.stems

    def run_metrics(self, run_id: str) -> Path:
        """The folder of a finished run's rows.

        Args:
            run_id: The run.
        """
        return self.metrics / f"run_id={run_id}"

    def run_windows(self, run_id: str) -> Path:
        """The folder of a run's window scores, one part per batch.

        Args:
            run_id: The run.
        """
        return self.windows / f"run_id={run_id}"

    def live_metrics(self, run_id: str) -> Path:
        """The folder of an unfinished run's rows: one part per batch, outside the folder that other programs read.

        Args:
            run_id: The run.
        """
        return self.runs / run_id / "metrics"

    @property
    def staging(self) -> Path:
        """Where tables are made before they appear in their folders."""
        return self.runs

    def run_record(self, run_id: str) -> Path:
        """The JSON file that says what shaped a run and how it ended.

        Args:
            run_id: The run.
        """
        return self.runs / f"{run_id}.json"

    def run_beat(self, run_id: str) -> Path:
        """The file that a live run renews; see `storage.runs`.

        Args:
            run_id: The run.
        """
        return self.runs / f"{run_id}.beat"

    def mashup(self, name: str) -> Path:
        """The folder of a mash-up.

        Args:
            name: The mash-up's name, e.g. "A over B 1a2b3c4d"; parts that would leave the output are replaced.
        """
        return self.mixes.joinpath(*safe_parts(name))

    def report(self, run_id: str) -> Path:
        """The HTML file of a run's results.

        Args:
            run_id: The run.
        """
        return self.reports / f"{run_id}.html"

    def tracebacks(self, run_id: str) -> Path:
        """The folder of a run's internal errors.

        Args:
            run_id: The run.
        """
        return self.reports / f"{run_id}.errors"

    def traceback(self, run_id: str, track_id: str) -> Path:
        """The text file of a track's internal error.

        Args:
            run_id: The run.
            track_id: The track that met the error; its hash names the file, since an id may hold any character.
        """
        return self.tracebacks(run_id) / f"{_short_hash(track_id)}.txt"

    def players(self, run_id: str) -> Path:
        """The folder of what a run's report lets people hear of tracks whose stems are not kept.

        Args:
            run_id: The run.
        """
        return self.reports / f"{run_id}.players"

    def player(self, run_id: str, track_id: str) -> Path:
        """The JSON file of a track in `players`.

        Args:
            run_id: The run.
            track_id: The track; its hash names the file, since an id may hold any character.
        """
        return self.players(run_id) / f"{_short_hash(track_id)}.json"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trainings(store: str) -> str:
    """The folder of a store's training runs.

    It lies beside a local store; for a store at a URL it lies in the current folder, since checkpoints are written on
    the machine that trains.

    Args:
        store: Path or URL of the zarr store.

    Returns:
        The path of the folder, which need not exist.
    """
    return f"{location(store).name if is_url(store) else store.rstrip('/')}.runs"


@dataclass(frozen=True)
class TrainingLayout:
    """The folder of one training run, on the machine that trains."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint.safetensors"

    @property
    def best(self) -> Path:
        return self.root / "best.safetensors"

    @property
    def record(self) -> Path:
        return self.root / "record.json"

    @property
    def log(self) -> Path:
        return self.root / "log.jsonl"

    @property
    def players(self) -> Path:
        """Excerpts of validation tracks, as the network separated them at the first and the last validations."""
        return self.root / "players.json"


def shown(name: str | os.PathLike) -> str:
    """A path as any table and screen can hold it: bytes that are not UTF-8 become \\xNN.

    A backslash that would read as such a byte becomes \\x5c, so two names are never shown as one.

    Args:
        name: A path or URL, with Python's surrogates for bytes that are not UTF-8.
    """
    text = os.fspath(name)
    if text.isascii() and "\\" not in text:
        return text
    text = _LIKE_A_BYTE.sub(r"\\x5c", text)
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def source_name(source: str) -> str:
    """A track's source as its rows name it: the same in every working folder.

    Args:
        source: A file, by a relative or absolute path, or a URL, which is kept as it is.
    """
    if is_url(source):
        return source
    plain = source.startswith("/") and "//" not in source and "/." not in source and not source.endswith("/")
    return shown(source if plain else os.path.abspath(source))  # which takes four times as long


def writable_text(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of a file name that is not UTF-8 become \\xNN, other surrogates \\uNNNN.

    Args:
        text: Any string, e.g. a value of a table's row.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
