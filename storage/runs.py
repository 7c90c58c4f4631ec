"""Run records: one JSON file a run that says what was asked, with what, and how it ended.

While a run goes on it also touches a file beside its record now and then, so that another machine that writes to the
same place can tell a run that goes on from one that was killed.
"""

import contextlib
import datetime
import json
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from storage.beat import beating
from storage.errors import MetricsError
from storage.files.atomic import write_bytes, write_json
from storage.files.layout import OutputLayout

RUNNING, COMPLETED, FAILED, KILLED = "running", "completed", "failed", "killed"
_BEAT_SECONDS = 30.0
_DEAD_AFTER = 300.0  # seconds without a beat; clocks of machines differ
_PACKAGES = ("unbraid", "prefect", "dask", "distributed", "torch", "zarr", "pyarrow", "soundfile", "av", "numpy")


def new_run_id(kind: str) -> str:
    """A name that sorts by time: separate-20260131T235959-1a2b3c."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    return f"{kind}-{now}-{uuid.uuid4().hex[:6]}"


def begin(out: OutputLayout, run_id: str, parameters: dict) -> None:
    """Write the record of a run that starts."""
    write_json(
        out.run_record(run_id),
        {
            "run_id": run_id,
            "state": RUNNING,
            "started_at": _now(),
            "host": platform.node(),
            "process": _process(os.getpid()),
            "parameters": parameters,
            "versions": {name: _version(name) for name in _PACKAGES},
            "git_revision": _revision(),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    )


def end(out: OutputLayout, run_id: str, state: str, summary: dict) -> None:
    """Complete the record of a run that ends."""
    record = read(out, run_id)
    write_json(out.run_record(run_id), {**record, "state": state, "ended_at": _now(), "summary": summary})


@contextlib.contextmanager
def recorded(out: OutputLayout, run_id: str) -> Iterator[None]:
    """Around a run's work: it beats, and a body that leaves by an exception ends its record as failed.

    Raises MetricsError where another run has begun over the same output since that was last looked at.
    """
    try:
        with _beating(out, run_id):
            _alone(out, run_id)
            yield
    except BaseException as error:
        end(out, run_id, FAILED, {"error": f"{type(error).__name__}: {error}"})
        raise


def read(out: OutputLayout, run_id: str) -> dict:
    """A run's record. Raises MetricsError when there is none."""
    try:
        return json.loads(out.run_record(run_id).read_text())
    except (OSError, ValueError) as error:
        raise MetricsError(f"{out.run_record(run_id)} is not a run record that can be read") from error


def completed_here(out: OutputLayout) -> dict | None:
    """The record of the latest run that this process brought to its end, None where it did not."""
    here = {"host": platform.node(), "process": _process(os.getpid()), "state": COMPLETED}
    for path in sorted(out.runs.glob("*.json"), reverse=True):
        record = read(out, path.stem)
        if all(record.get(name) == value for name, value in here.items()):
            return record
    return None


def close_abandoned(out: OutputLayout) -> list[str]:
    """Mark runs that were killed as such; returns their ids. Raises MetricsError when one still runs here."""
    closed = []
    for path in sorted(out.runs.glob("*.json")):
        record = read(out, path.stem)
        if record.get("state") != RUNNING:
            continue
        _refuse_beside(out, path.stem, record)
        end(out, path.stem, KILLED, {})
        out.run_beat(path.stem).unlink(missing_ok=True)
        closed.append(path.stem)
    return closed


def _alone(out: OutputLayout, run_id: str) -> None:
    """Raise MetricsError where a run beside this one goes on: of two that start together both may give way."""
    for path in out.runs.glob("*.json"):
        record = read(out, path.stem) if path.stem != run_id else {}
        if record.get("state") == RUNNING:
            _refuse_beside(out, path.stem, record)


def _refuse_beside(out: OutputLayout, run_id: str, record: dict) -> None:
    """Raise MetricsError where a run that says it is running really is."""
    writer = record.get("process") or {}
    here = record.get("host") == platform.node()
    if _alive(writer) if here else _beats(out, run_id):
        where = f"process {writer.get('pid')}" + ("" if here else f" on {record.get('host')}")
        raise MetricsError(f"{out.root} is being written by {run_id} ({where}); wait for it, or stop it")


@contextlib.contextmanager
def _beating(out: OutputLayout, run_id: str) -> Iterator[None]:
    beat = out.run_beat(run_id)

    def touch() -> None:
        with contextlib.suppress(OSError):  # a disk that is full must not end the run by this
            write_bytes(beat, _now().encode(), durable=False)

    try:
        with beating(_BEAT_SECONDS, touch):
            yield
    finally:
        with contextlib.suppress(OSError):
            beat.unlink(missing_ok=True)


def _beats(out: OutputLayout, run_id: str) -> bool:
    try:
        last = datetime.datetime.fromisoformat(out.run_beat(run_id).read_text())
    except (OSError, ValueError):
        return False
    return (datetime.datetime.now(datetime.UTC) - last).total_seconds() < _DEAD_AFTER


def _process(pid: int) -> dict:
    """A process by number and start: after a reboot another one may have the number."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def _alive(process: dict) -> bool:
    """Is it still there, and another than this one?"""
    pid = process.get("pid")
    if not pid or pid == os.getpid():
        return False
    try:
        return abs(psutil.Process(pid).create_time() - process["started"]) < 1.0
    except psutil.Error:
        return False


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The git revision of this code where it runs from a checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        found = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
