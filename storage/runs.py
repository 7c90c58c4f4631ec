"""Run records: one JSON file per run that says what was requested, with which versions, and how it ended.

While a run goes on, its flow regularly renews a file beside the record: its beat. By the beat another run over the
same output tells a live run from a killed one. A process table can tell only within one PID namespace of one boot:
containers share host names but not process numbers, and machines share neither.
"""

import contextlib
import datetime
import json
import os
import platform
import subprocess
import time
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import psutil

from storage.errors import MetricsError, OutputInUse
from storage.files.atomic import write_bytes, write_json
from storage.files.layout import OutputLayout

RUNNING, COMPLETED, FAILED, STOPPED, KILLED = "running", "completed", "failed", "stopped", "killed"
BEAT_SECONDS = 10.0
# A beat younger than this is a living run's. An older one is watched before it counts as a killed run's, because a
# clock that was set forward makes every beat old.
_FRESH_SECONDS = 120.0
_WATCHED_SECONDS = 4 * BEAT_SECONDS
_PACKAGES = ("unbraid", "prefect", "dask", "distributed", "torch", "zarr", "pyarrow", "soundfile", "av", "numpy")


def new_run_id(kind: str) -> str:
    """Make a name for a run, which sorts by time within its kind: separate-20260131T235959-1a2b3c.

    Args:
        kind: The first part of the name: what the run does, e.g. "separate" or "import".
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    return f"{kind}-{now}-{uuid.uuid4().hex[:6]}"


def begin(out: OutputLayout, run_id: str, parameters: dict) -> None:
    """Write the record of a run that starts, and mark its folder as an output.

    Args:
        out: The output the run writes to.
        run_id: The run.
        parameters: What shaped the run, as JSON values by name.
    """
    out.mark()
    write_json(
        out.run_record(run_id),
        {
            "run_id": run_id,
            "state": RUNNING,
            "started_at": _now(),
            "host": platform.node(),
            "process": _process(),
            "parameters": parameters,
            "versions": {name: _version(name) for name in _PACKAGES},
            "git_revision": _revision(),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    )


def end(out: OutputLayout, run_id: str, state: str, summary: dict) -> None:
    """Complete the record of a run that ends.

    Args:
        out: The output the run wrote to.
        run_id: The run.
        state: How it ended: COMPLETED, FAILED, STOPPED or KILLED.
        summary: What came of it, as JSON values by name.

    Raises:
        MetricsError: The run has no record that can be read.
    """
    record = read(out, run_id)
    write_json(out.run_record(run_id), {**record, "state": state, "ended_at": _now(), "summary": summary})


def read(out: OutputLayout, run_id: str) -> dict:
    """Read a run's record.

    Args:
        out: The output the run writes to.
        run_id: The run.

    Returns:
        What `begin` wrote and, once the run has ended, "ended_at" and "summary".

    Raises:
        MetricsError: There is no record, or it cannot be read.
    """
    try:
        return json.loads(out.run_record(run_id).read_text())
    except (OSError, ValueError) as error:
        raise MetricsError(f"{out.run_record(run_id)} is not a readable run record") from error


def beat(out: OutputLayout, run_id: str) -> None:
    """Renew the beat of a run that goes on. A full disk does not end the run here.

    Args:
        out: The output the run writes to.
        run_id: The run.
    """
    with contextlib.suppress(OSError):
        write_bytes(out.run_beat(run_id), _now().encode(), durable=False)


def fall_silent(out: OutputLayout, run_id: str) -> None:
    """Remove a run's beat, as the last thing the run does.

    Args:
        out: The output the run wrote to.
        run_id: The run.
    """
    with contextlib.suppress(OSError):
        out.run_beat(run_id).unlink(missing_ok=True)


def close_abandoned(out: OutputLayout, watching: Callable[[str], None] = lambda sentence: None) -> list[str]:
    """Mark killed runs as killed.

    Args:
        out: The output whose runs are checked.
        watching: Is given a sentence for the user when a beat has to be watched, which takes a while.

    Returns:
        The ids of the runs that were killed.

    Raises:
        OutputInUse: A run still writes to this output.
        MetricsError: A run's record cannot be read.
    """
    killed = []
    for run_id, record in _running(out):
        _refuse_beside(out, run_id, record, watching)
        end(out, run_id, KILLED, {})
        fall_silent(out, run_id)
        killed.append(run_id)
    return killed


def refuse_company(out: OutputLayout, run_id: str) -> None:
    """Refuse to share an output with another live run; of two that start together, both may give way.

    Args:
        out: The output whose runs are checked.
        run_id: The run that checks, which does not count.

    Raises:
        OutputInUse: Another run goes on.
        MetricsError: A run's record cannot be read.
    """
    for other, record in _running(out):
        if other != run_id:
            _refuse_beside(out, other, record)


def _running(out: OutputLayout) -> list[tuple[str, dict]]:
    """The runs whose record says that they go on, with the record."""
    records = ((path.stem, read(out, path.stem)) for path in sorted(out.runs.glob("*.json")))
    return [(run_id, record) for run_id, record in records if record.get("state") == RUNNING]


def _refuse_beside(
    out: OutputLayout, run_id: str, record: dict, watching: Callable[[str], None] = lambda sentence: None
) -> None:
    """Raise OutputInUse where a run whose record says it goes on is really alive."""
    writer = record.get("process") or {}
    namespace = _namespace()
    if namespace is not None and writer.get("namespace") == namespace:
        alive, place = _in_process_table(writer), ""
        if writer.get("pid") == os.getpid():  # another thread's, which beats until it ends
            alive = alive and out.run_beat(run_id).exists()
    else:
        alive, place = _beats(out, run_id, record, watching), f" on {record.get('host')}"
    if alive:
        raise OutputInUse(
            f"{out.root} is being written to by {run_id} (process {writer.get('pid')}{place}); wait for it, or stop it"
        )


def _beats(out: OutputLayout, run_id: str, record: dict, watching: Callable[[str], None]) -> bool:
    """Does a run of another namespace or machine go on?"""
    seen = _last_beat(out, run_id)
    # A run that has not beaten yet has only just written its record.
    if abs(_age(seen or record.get("started_at"))) < _FRESH_SECONDS:
        return True
    watching(f"looking for {_WATCHED_SECONDS:.0f} s whether {run_id} on {record.get('host')} still goes on")
    limit = time.monotonic() + _WATCHED_SECONDS
    while time.monotonic() < limit:
        time.sleep(min(1.0, _WATCHED_SECONDS / 10))
        if _last_beat(out, run_id) != seen:
            return True
    return False


def _last_beat(out: OutputLayout, run_id: str) -> str | None:
    try:
        return out.run_beat(run_id).read_text()
    except (OSError, ValueError):
        return None


def _age(moment: str | None) -> float:
    """Seconds since a moment by this machine's clock; infinite where it is none."""
    try:
        then = datetime.datetime.fromisoformat(moment or "")
        return (datetime.datetime.now(datetime.UTC) - then).total_seconds()
    except (TypeError, ValueError):
        return float("inf")


def _process() -> dict:
    """This process: its number, its start (another process may get the number later) and where the number counts."""
    return {"pid": os.getpid(), "started": _started(os.getpid()), "namespace": _namespace()}


def _namespace() -> str | None:
    """The boot and the PID namespace that process numbers belong to, None where it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Elsewhere than on Linux a machine has one namespace, and a container runs in a Linux of its own.
        return None if platform.system() == "Linux" else platform.node()


def _started(pid: int) -> float:
    """When a process started, in clock ticks since boot: a time of day would move when the clock is set.

    Raises OSError or psutil.Error where there is no such process; a zombie is none.
    """
    if platform.system() != "Linux":
        return psutil.Process(pid).create_time()
    # proc(5): the second field, the command in parentheses, may hold anything; 3rd: state, 22nd: start.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return float(fields[19])


def _in_process_table(process: dict) -> bool:
    """Is a process of this namespace still there?"""
    pid = process.get("pid")
    if not pid:
        return False
    try:
        return _started(pid) == process["started"]
    except (OSError, psutil.Error):
        return False


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


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
        head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() or None
