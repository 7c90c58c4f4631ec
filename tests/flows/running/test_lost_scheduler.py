"""A scheduler or all of its workers go away while batches are in flight."""

import subprocess
import sys
import threading
import time

import pytest
from distributed import Client, LocalCluster

from flows.running import fanout
from flows.running.fanout import SchedulerLost, WorkersLost, fan_out

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("cluster")]


@pytest.fixture
def scheduler(tmp_path):
    file = tmp_path / "scheduler.json"
    command = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with subprocess.Popen(
        [sys.executable, "-m", *command, "--scheduler-file", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with Client(scheduler_file=str(file), timeout="60s", set_as_default=False) as client:
                client._timeout = 2  # seconds for which it looks for a scheduler that is lost
                yield process, client
        finally:
            process.kill()


def test_a_scheduler_that_is_ended_while_batches_wait_for_workers_is_a_sentence(scheduler):
    process, client = scheduler
    address = client.scheduler.address
    threading.Timer(1.0, process.terminate).start()
    with pytest.raises(SchedulerLost, match=f"the Dask scheduler {address} was lost"):
        list(fan_out(client, len, [[1], [2, 3], [4]], window=2))


def slowly(items):
    time.sleep(0.3)
    return items


def test_a_connection_that_breaks_and_comes_back_costs_no_track():
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as local,
        Client(local.scheduler_address, set_as_default=False) as client,
    ):
        threading.Timer(0.5, client.loop.add_callback, (client.scheduler_comm.comm.abort,)).start()
        outcomes = list(fan_out(client, slowly, [[n, n + 100] for n in range(8)], window=2))
    assert not [outcome.items for outcome in outcomes if outcome.lost]
    assert sorted(n for outcome in outcomes for n in outcome.results) == [*range(8), *range(100, 108)]


def test_a_run_whose_last_worker_is_gone_says_so_and_ends_after_a_while(monkeypatch, capsys):
    monkeypatch.setattr(fanout, "_WITHOUT_WORKERS", 1.0)
    monkeypatch.setattr(fanout, "_LOOK_SECONDS", 0.2)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as local,
        Client(local.scheduler_address, set_as_default=False) as client,
    ):
        outcomes = fan_out(client, slowly, [[n] for n in range(100)], window=2)
        assert next(outcomes).results
        local.scale(0)
        with pytest.raises(WorkersLost, match=f"no worker has been ready at {client.scheduler.address} for 1 s"):
            list(outcomes)
    assert f"no worker is ready at {local.scheduler_address}; waiting 1 s for another one" in capsys.readouterr().err


def test_workers_that_are_never_ready_end_the_run_like_none(monkeypatch):
    """One that dies as it starts comes back for ever, and one that Dask has paused may never go on."""
    from distributed.core import Status

    monkeypatch.setattr(fanout, "_WITHOUT_WORKERS", 1.0)
    monkeypatch.setattr(fanout, "_LOOK_SECONDS", 0.2)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", memory_limit=0
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        local.workers[0].status = Status.paused
        threading.Timer(60.0, client.close).start()
        with pytest.raises(WorkersLost, match="no worker has been ready .* they die as they start"):
            list(fan_out(client, slowly, [[1], [2]], window=2))


def test_a_client_that_has_given_its_scheduler_up_while_results_were_written_is_the_same_sentence():
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as local,
        Client(local.scheduler_address, set_as_default=False) as client,
    ):
        outcomes = fan_out(client, slowly, [[n] for n in range(100)], window=2)
        assert next(outcomes).results
        client.close()  # as it does itself when it does not find its scheduler again
        with pytest.raises(SchedulerLost, match=f"the Dask scheduler {local.scheduler_address} was lost"):
            list(outcomes)
