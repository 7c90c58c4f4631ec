"""What goes away in the middle of a run: the server, the scheduler, the flow itself, the disk."""

import datetime
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import soundfile as sf
from distributed import Client

from flows.running.orphans import end_orphans
from storage import runs
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tests.flows.test_cluster_run import running
from tests.flows.test_deployments import free_port, server_process
from tests.signals import noise

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("cluster")]
TRACKS = 12


@pytest.fixture
def songs(tmp_path):
    (tmp_path / "songs").mkdir()
    for number in range(TRACKS):
        sf.write(tmp_path / "songs" / f"{number:02}.wav", noise(2, 44100 * 8).T, 44100)
    return tmp_path / "songs"


def start(songs, model, *more, **environment):
    command = [sys.executable, "-m", "flows.cli", "separate", songs, "--out", songs.parent / "out", "--model", model]
    return subprocess.Popen(
        [*map(str, command), *more], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_rows(run, out):
    limit = time.monotonic() + 90
    while not list(out.rglob("part-*.parquet")):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.mark.proof
def test_a_server_that_is_lost_does_not_cost_the_work(songs, untrained, tmp_path):
    with server_process(tmp_path) as (environment, server):
        environment = {**environment, "PREFECT_CLIENT_MAX_RETRIES": "1", "PREFECT_HOME": str(tmp_path / "prefect")}
        run = start(songs, untrained, **environment)
        wait_for_rows(run, tmp_path / "out")
        server.kill()
        _, said = run.communicate(timeout=200)
    assert run.returncode == 0, said
    assert "was lost and does not know that this run ended" in said
    assert "Traceback" not in said
    assert len(read_all(OutputLayout(tmp_path / "out"))) == 2 * TRACKS


@pytest.mark.proof
def test_a_scheduler_that_is_lost_ends_the_run_and_the_next_goes_on(songs, untrained, tmp_path):
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with running("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard",
                 log=tmp_path / "scheduler.log") as scheduler:  # fmt: skip
        with running("flows.cli", "worker", address, "--processes", "2", log=tmp_path / "worker.log"):
            with Client(address, timeout="60s", set_as_default=False) as client:
                client.wait_for_workers(2, timeout=90)
            run = start(songs, untrained, "--dask", address)
            wait_for_rows(run, tmp_path / "out")
            os.killpg(scheduler.pid, signal.SIGKILL)
            _, said = run.communicate(timeout=120)
    assert run.returncode == 1, said
    assert f"the Dask scheduler {address} was lost" in said
    assert "Traceback" not in said
    again = start(songs, untrained)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    rows = read_all(OutputLayout(tmp_path / "out")).to_pylist()
    assert sorted((row["path"], row["stem"]) for row in rows) == sorted(
        (f"{number:02}.wav", stem) for number in range(TRACKS) for stem in ("vocals", "accompaniment")
    )


@pytest.mark.proof
def test_the_server_of_a_run_that_was_killed_is_ended_by_the_next(songs, untrained, tmp_path):
    run = start(songs, untrained, "--prefect")
    wait_for_rows(run, tmp_path / "out")
    servers = [p for p in psutil.Process(run.pid).children() if "prefect.server.api.server:create_app" in p.cmdline()]
    assert len(servers) == 1
    run.kill()
    run.wait()  # not communicate: its server holds the other end of the pipe
    assert servers[0].is_running()
    assert end_orphans() >= 1
    assert psutil.wait_procs(servers, timeout=20)[1] == []


@pytest.mark.proof
def test_a_run_whose_own_server_was_lost_exits_as_soon_as_its_work_is_done(songs, untrained, tmp_path):
    run = start(songs, untrained, "--prefect", PREFECT_HOME=str(tmp_path / "prefect"))
    wait_for_rows(run, tmp_path / "out")
    (server,) = [p for p in psutil.Process(run.pid).children() if "prefect.server.api.server:create_app" in p.cmdline()]
    server.kill()
    _, said = run.communicate(timeout=300)
    exited = datetime.datetime.now(datetime.UTC)
    assert run.returncode == 0, said
    (last,) = [line for line in said.splitlines() if "separate:" not in line]
    assert last == "unbraid: the Prefect server of this run was lost and does not know that this run ended"
    out = OutputLayout(tmp_path / "out")
    (record,) = [runs.read(out, path.stem) for path in out.runs.glob("*.json")]
    assert record["state"] == runs.COMPLETED
    # Prefect would ask twice, with pauses, for ten seconds.
    assert (exited - datetime.datetime.fromisoformat(record["ended_at"])).total_seconds() < 8.0
    assert len(read_all(out)) == 2 * TRACKS


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_ends_the_run_and_fails_no_song(songs, untrained, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", out], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        run = start(songs, untrained, "--format", "wav")
        _, said = run.communicate(timeout=120)
        assert "Traceback" not in said
        assert run.returncode == 1, said
        assert "cannot be written" in said
        assert "another --out" in said
        rows = read_all(OutputLayout(out)).to_pylist()
        assert {row["status"] for row in rows} <= {"ok"}
        assert not list(out.rglob("*.tmp"))
        assert all((out / row["stem_path"]).exists() for row in rows if row["status"] == "ok")
    finally:
        subprocess.run(["umount", "-l", out], check=True)


@pytest.mark.proof
def test_a_record_that_a_kill_left_running_is_closed_by_the_next_run(songs, untrained, tmp_path):
    run = start(songs, untrained)
    wait_for_rows(run, tmp_path / "out")
    run.kill()
    run.wait()  # not communicate: its server holds the other end of the pipe
    out = OutputLayout(tmp_path / "out")
    (killed,) = [path.stem for path in out.runs.glob("*.json")]
    assert runs.read(out, killed)["state"] == runs.RUNNING
    again = start(songs, untrained)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert runs.read(out, killed)["state"] == runs.KILLED
    assert len(read_all(out)) == 2 * TRACKS
