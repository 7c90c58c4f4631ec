"""prefect.yaml on a real server with a real worker, all on loopback."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile as sf

from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tests.signals import noise

pytestmark = [pytest.mark.proof, pytest.mark.whole, pytest.mark.xdist_group("cluster")]
ROOT = Path(__file__).resolve().parents[2]
PREFECT = Path(sys.executable).with_name("prefect")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def server_process(folder, database=None):
    """A real Prefect server on loopback: (the environment that leads to it, its process)."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PATH": f"{PREFECT.parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PWD": str(ROOT),
        "COLUMNS": "240",
        **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}),
    }
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            limit = time.monotonic() + 90
            while time.monotonic() < limit:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2)
                    break
                except OSError:
                    time.sleep(0.5)
            yield environment, process
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def postgres(folder):
    """A separate Postgres on loopback, as SQLAlchemy names it; it refuses to run as root."""
    owner = {"user": "postgres"} if os.getuid() == 0 else {}
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        os.chmod(data, 0o777)
        cluster = f"{data}/cluster"
        subprocess.run(
            ["initdb", "-D", cluster, "-U", "prefect", "-A", "trust"], check=True, capture_output=True, **owner
        )
        with open(folder / "postgres.log", "w") as log:
            command = ["postgres", "-D", cluster, "-p", str(port), "-h", "127.0.0.1", "-k", data]
            process = subprocess.Popen(command, stdout=log, stderr=log, **owner)
        try:
            while subprocess.run(["pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True).returncode:
                assert process.poll() is None, (folder / "postgres.log").read_text()
                time.sleep(0.2)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@pytest.fixture
def server(tmp_path):
    with server_process(tmp_path) as (environment, _):
        yield environment


@pytest.fixture
def server_on_postgres(tmp_path):
    if not shutil.which("initdb"):
        pytest.skip("Postgres is not installed here")
    with postgres(tmp_path) as database, server_process(tmp_path, database) as (environment, _):
        yield environment


def prefect(environment, *arguments, timeout=240):
    done = subprocess.run(
        [PREFECT, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_as_deployed_it_runs_nightly_once_per_output_and_is_cancelled_without_a_trace(server, untrained, tmp_path):
    deploy_and_run(server, untrained, tmp_path)
    song = tmp_path / "long.flac"
    sf.write(song, np.zeros((44100 * 1200, 2), np.int16), 44100)
    out = tmp_path / "busy"
    with prefect_worker(server, tmp_path):
        long = started(server, source=song, out=out, model=untrained, workers=1)
        wait_until(lambda: list(out.glob("stems/*/.unbraid-*.tmp")))
        processes = separating()
        second = started(server, source=song, out=out, model=untrained, workers=1)
        elsewhere = started(server, source=tmp_path / "song.wav", out=tmp_path / "free", model=untrained, workers=1)
        assert ended(server, second)["type"] == "CANCELLED"
        assert f"{out} is being written to by separate-" in ended(server, second)["message"]
        assert ended(server, elsewhere)["type"] == "COMPLETED"
        prefect(server, "flow-run", "cancel", long)
        assert ended(server, long)["type"] == "CANCELLED"
        assert psutil.wait_procs(processes, timeout=30)[1] == []
    assert not [*out.rglob("*.tmp"), *out.rglob("*.beat")]
    (record,) = [json.loads(path.read_text()) for path in (out / "runs").glob("*.json")]
    assert record["state"] == "stopped"


def test_the_same_on_postgres(server_on_postgres, untrained, tmp_path):
    deploy_and_run(server_on_postgres, untrained, tmp_path)
    assert "database system is ready" in (tmp_path / "postgres.log").read_text()


def deploy_and_run(server, untrained, tmp_path):
    sf.write(tmp_path / "song.wav", noise(2, 44100).T, 44100)
    folders = {"UNBRAID_CATALOG": str(tmp_path / "song.wav"), "UNBRAID_OUT": str(tmp_path / "out")}
    prefect(server, "work-pool", "create", "unbraid", "--type", "process")
    deployed = prefect({**server, **folders}, "--no-prompt", "deploy", "--all")
    listed = prefect(server, "deployment", "ls")
    assert all(f"{name}/{name}" in listed for name in ("ingest", "train", "separate", "evaluate")), deployed
    assert "0 2 * * *" in prefect(server, "deployment", "inspect", "separate/separate")
    run = started(server, model=untrained, workers=1)
    prefect(server, "worker", "start", "--pool", "unbraid", "--run-once", "--type", "process")
    assert ended(server, run)["type"] == "COMPLETED"
    assert read_all(OutputLayout(tmp_path / "out")).column("status").to_pylist() == ["ok", "ok"]


@contextmanager
def prefect_worker(environment, folder):
    with open(folder / "worker.log", "w") as log:
        process = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", "unbraid", "--type", "process"],
            env=environment, cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def started(environment, **parameters):
    """Start a run of the nightly separation; returns its id."""
    pairs = [part for name, value in parameters.items() for part in ("-p", f"{name}={value}")]
    said = prefect(environment, "deployment", "run", "separate/separate", *pairs)
    return re.search(r"UUID: ([0-9a-f-]{36})", said)[1]


def ended(environment, run):
    """The state in which a run has ended."""

    def state():
        with urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/flow_runs/{run}", timeout=20) as answer:
            return json.load(answer)["state"]

    return wait_until(lambda: (now := state())["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and now)


def wait_until(condition, seconds=240):
    limit = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < limit
        time.sleep(0.3)
    return met


def separating():
    """The worker processes of all runs on this machine."""
    processes = psutil.process_iter(["cmdline"])
    return [process for process in processes if "tasks.process" in (process.info["cmdline"] or ())]
