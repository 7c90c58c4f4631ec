"""The bounded window, on real worker processes that really die."""

import os
import signal
import time
import urllib.error
import urllib.request

import psutil
import pytest

from flows.running.cluster import ClusterError, cluster
from flows.running.fanout import fan_out
from flows.running.processes import Processes
from storage.errors import ModelLost
from tasks.worker import deadline

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module", params=["processes", "dask"])
def where(request):
    with cluster(workers=2, small=request.param == "processes") as workers:
        yield workers


def work(items):
    """Doubles numbers; strings say how to go wrong."""
    for item in items:
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "raise":
            raise ValueError("no")
        if item == "no model":
            raise ModelLost("gone")
        if item == "hang":
            with deadline(1.0):
                time.sleep(600)
    return [item * 2 for item in items]


def run(where, batches, window=4):
    outcomes = list(fan_out(where.client, work, batches, window=window))
    results = [value for outcome in outcomes for value in outcome.results]
    lost = {outcome.items[0]: outcome.lost for outcome in outcomes if outcome.lost}
    return results, lost


def test_the_cluster_listens_on_loopback_only_and_serves_no_pages(where):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    if isinstance(where.client, Processes):
        processes = processes[1:]  # of this one Dask's test may have left something
    listening = [c.laddr.ip for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    if isinstance(where.client, Processes):
        assert not listening
        return
    assert listening
    assert set(listening) == {"127.0.0.1"}
    port = where.client.scheduler_info()["services"].get("dashboard")
    if port:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/info/main/workers.html", timeout=10)


def paused_at():
    import dask

    return dask.config.get("distributed.worker.memory.pause")


def test_no_worker_is_paused_before_its_limit_ends_it(where):
    """A paused worker takes no work until its memory falls, which what a library keeps never does."""
    if isinstance(where.client, Processes):
        pytest.skip("they have no such state")
    assert set(where.client.run(paused_at).values()) == {False}


def test_workers_are_killed_at_the_end_in_the_middle_of_what_they_do():
    before = psutil.Process().children(recursive=True)
    with cluster(workers=1) as workers:
        (pid,) = workers.client.run(os.getpid).values()
        workers.client.submit(time.sleep, 600, pure=False)
        time.sleep(0.5)
        worker = psutil.Process(pid)
    assert psutil.wait_procs([worker], timeout=1)[1] == []
    left = [process for process in psutil.Process().children(recursive=True) if process not in before]
    assert not [process for process in left if "spawn_main" in " ".join(process.cmdline())]


@pytest.mark.proof
def test_a_worker_that_takes_long_to_come_back_is_started_once(tmp_path, monkeypatch):
    """On a busy machine every start is slow; a second one beside it would only make both slower."""
    log = tmp_path / "starts"
    slow = f"import os, time; open({str(log)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(8)"
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", repr([slow]))
    import dask

    dask.config.refresh()
    try:
        with cluster(workers=1) as workers:
            results, lost = run(workers, [["die"], [1]])
    finally:
        monkeypatch.undo()
        dask.config.refresh()
    assert (results, list(lost)) == ([2], ["die"])
    # "die" takes its worker along when it comes first, and twice alone.
    assert len(set(log.read_text().split())) <= 5


def test_every_item_comes_back_once(where):
    results, lost = run(where, [[i, i + 1, i + 2] for i in range(0, 300, 3)])
    assert sorted(results) == [i * 2 for i in range(300)]
    assert not lost


def test_no_more_than_the_window_is_in_flight(where):
    taken = []

    def batches():
        for number in range(40):
            taken.append(number)
            yield [number]

    most = 0
    for done, _ in enumerate(fan_out(where.client, work, batches(), window=5), start=1):
        most = max(most, len(taken) - done + 1)
    assert most <= 5


def test_an_item_that_kills_its_worker_is_named_and_the_rest_is_done(where):
    results, lost = run(where, [[1, 2, "die", 3], [4, 5], [6], [7, 8]])
    assert sorted(results) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert list(lost) == ["die"]
    assert "worker process died while working on it" in lost["die"]


@pytest.mark.proof
def test_items_that_kill_their_worker_cost_no_other_item(where):
    results, lost = run(where, [[n, "die" if n % 10 == 0 else n + 100] for n in range(1, 31)], window=6)
    expected = [2 * n for n in range(1, 31)] + [2 * (n + 100) for n in range(1, 31) if n % 10]
    assert sorted(results) == sorted(expected)
    assert set(lost) == {"die"}


def test_an_item_that_hangs_in_a_call_is_ended_by_its_deadline(where):
    results, lost = run(where, [[1, "hang"], [2]])
    assert sorted(results) == [2, 4]
    assert list(lost) == ["hang"]


def test_an_item_that_raises_is_lost_with_its_reason(where):
    results, lost = run(where, [[1, "raise", 2]])
    assert sorted(results) == [2, 4]
    assert lost == {"raise": "ValueError: no"}


def test_work_that_needs_a_gpu_goes_to_the_workers_that_offer_one():
    with cluster(workers=1) as without:
        assert without.offering("GPU").slots == 0
    with cluster(workers=1, resources={"GPU": 1}) as gpu:
        part = gpu.offering("GPU")
        assert part.slots == 1
        outcomes = list(fan_out(part.client, work, [[1], [2]], window=part.window, resources={"GPU": 1}))
    assert sorted(value for outcome in outcomes for value in outcome.results) == [2, 4]


def test_a_memory_limit_that_is_not_a_size_is_a_sentence():
    with pytest.raises(ClusterError, match="lots is not a size of memory"), cluster(workers=1, memory="lots"):
        pytest.fail("it started")


def test_a_model_that_is_lost_ends_the_run_and_is_no_items_fault(where):
    with pytest.raises(ModelLost, match="gone"):
        run(where, [["a", "b"], ["no model"]])
