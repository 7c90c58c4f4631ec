"""prefect.yaml on a real server with a real worker, all on loopback."""

import os
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

import pytest
import soundfile as sf

from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tests.signals import noise

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("cluster")]
ROOT = Path(__file__).resolve().parents[2]
PREFECT = Path(sys.executable).with_name("prefect")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


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
    """A Postgres of its own on loopback, as SQLAlchemy names it; it refuses to run as root."""
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


def test_all_deploy_and_a_run_of_the_nightly_separation_completes(server, untrained, tmp_path):
    deploy_and_run(server, untrained, tmp_path)


def test_the_same_on_postgres(server_on_postgres, untrained, tmp_path):
    deploy_and_run(server_on_postgres, untrained, tmp_path)
    assert "database system is ready" in (tmp_path / "postgres.log").read_text()


def deploy_and_run(server, untrained, tmp_path):
    sf.write(tmp_path / "song.wav", noise(2, 44100).T, 44100)
    prefect(server, "work-pool", "create", "unbraid", "--type", "process")
    deployed = prefect(server, "--no-prompt", "deploy", "--all")
    listed = prefect(server, "deployment", "ls")
    assert all(f"{name}/{name}" in listed for name in ("ingest", "train", "separate", "evaluate")), deployed
    assert "0 2 * * *" in prefect(server, "deployment", "inspect", "separate/separate")
    prefect(
        server, "deployment", "run", "separate/separate", "-p", f"source={tmp_path / 'song.wav'}",
        "-p", f"out={tmp_path / 'out'}", "-p", f"model={untrained}", "-p", "workers=1",
    )  # fmt: skip
    prefect(server, "worker", "start", "--pool", "unbraid", "--run-once", "--type", "process")
    assert "COMPLETED" in prefect(server, "flow-run", "ls").upper()
    assert read_all(OutputLayout(tmp_path / "out")).column("status").to_pylist() == ["ok", "ok"]
