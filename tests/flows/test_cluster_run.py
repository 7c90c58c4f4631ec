"""A real Dask scheduler and `unbraid worker` as processes on loopback."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import soundfile as sf

from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tests.flows.test_deployments import free_port
from tests.signals import noise

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("cluster")]


@contextmanager
def running(*command, log, folder=None):
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", *command], env=environment, stdout=file, stderr=file, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def unbraid(*arguments):
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def folder_of_own_files(folder):
    """A folder like a user's, whose modules have our rooms' names."""
    folder.mkdir()
    for name in ("tasks", "model", "storage", "flows", "unbraid"):
        (folder / f"{name}.py").write_text("raise SystemExit('the file of the user is taken for a room')\n")
    return folder


def test_a_catalog_on_a_cluster_of_workers_started_among_a_users_own_files_and_the_scheduler_lost(untrained, tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / "songs").mkdir(exist_ok=True)
        sf.write(tmp_path / "songs" / f"{name}.wav", noise(2, 44100 * 2).T, 44100)
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    common = ["--model", untrained, "--dask", address]
    with running("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard",
                 log=tmp_path / "scheduler.log") as scheduler:  # fmt: skip
        with running("flows.cli", "worker", address, "--processes", "2", log=tmp_path / "worker.log",
                     folder=folder_of_own_files(tmp_path / "own")):  # fmt: skip
            limit = time.monotonic() + 60
            while unbraid("separate", tmp_path / "songs", "--out", tmp_path / "out", *common).returncode:
                assert time.monotonic() < limit, (tmp_path / "worker.log").read_text()
                time.sleep(1)
            rows = read_all(OutputLayout(tmp_path / "out")).to_pylist()
            assert len(rows) == 6
            assert {row["status"] for row in rows} == {"ok"}
            os.killpg(scheduler.pid, signal.SIGKILL)
            gone = unbraid("separate", tmp_path / "songs", "--out", tmp_path / "other", *common)
    assert gone.returncode == 1
    assert f"no Dask scheduler answers at {address}" in gone.stderr


def test_without_workers_the_run_says_how_to_start_some(untrained, tmp_path):
    sf.write(tmp_path / "song.wav", noise(1, 8000).T, 8000)
    port = free_port()
    with running("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard",
                 log=tmp_path / "scheduler.log"):  # fmt: skip
        limit = time.monotonic() + 60
        while True:
            done = unbraid("separate", tmp_path / "song.wav", "--out", tmp_path / "out", "--model", untrained,
                           "--dask", f"tcp://127.0.0.1:{port}")  # fmt: skip
            if "has no workers" in done.stderr or time.monotonic() > limit:
                break
    assert done.returncode == 1
    assert "unbraid worker tcp://" in done.stderr
