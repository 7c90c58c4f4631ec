"""Worker processes without a scheduler, on real ones."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from flows.running.processes import ProcessDied, Processes, spare_processes
from storage.errors import StorageError

pytestmark = pytest.mark.xdist_group("cluster")


def ended(processes, *calls, seconds=60):
    limit = time.monotonic() + seconds
    while not all(call.done() for call in calls):
        assert time.monotonic() < limit
        processes.step(0.1)
    return calls


@pytest.fixture
def processes():
    started = Processes(2, environment={"UNBRAID_TEST": "set"})
    yield started
    started.close()


def hold(megabytes):
    kept = b"x" * (megabytes << 20)
    time.sleep(60)
    return len(kept)


def refuse():
    raise StorageError("no such model")


def exits():
    os._exit(1)


def test_calls_run_in_separate_processes_with_their_environment(processes):
    calls = ended(processes, processes.submit(os.getenv, "UNBRAID_TEST"), processes.submit(os.getpid))
    assert calls[0].result() == "set"
    assert calls[1].result() != os.getpid()


def test_a_call_that_follows_gets_the_result_and_shares_its_failure(processes):
    good = processes.submit(pow, 2, 10)
    (double,) = ended(processes, processes.submit(pow, good, 2))
    assert double.result() == 2**20
    bad = processes.submit(pow, 1, 0, 0)
    (follows,) = ended(processes, processes.submit(pow, bad, 2))
    with pytest.raises(ValueError):
        follows.result()


def test_a_process_that_dies_loses_only_its_call_and_is_replaced(processes):
    dies, lives = processes.submit(os._exit, 3), processes.submit(time.sleep, 1)
    ended(processes, dies, lives)
    with pytest.raises(ProcessDied):
        dies.result()
    assert lives.result() is None
    (after,) = ended(processes, processes.submit(pow, 3, 3))
    assert after.result() == 27


def test_a_process_near_its_memory_limit_is_ended():
    processes = Processes(1, environment={}, memory=200 << 20)
    try:
        (call,) = ended(processes, processes.submit(hold, 300), seconds=50)
        with pytest.raises(ProcessDied):
            call.result()
    finally:
        processes.close()


def test_a_setup_error_is_raised_as_it_was():
    processes = Processes(1, environment={}, setup=refuse)
    try:
        with pytest.raises(StorageError, match="no such model"):
            ended(processes, processes.submit(pow, 1, 1))
    finally:
        processes.close()


def test_processes_that_die_as_they_start_end_the_run_with_a_sentence():
    processes = Processes(1, environment={}, setup=exits)
    try:
        with pytest.raises(StorageError, match="no worker process could be started"):
            ended(processes, processes.submit(pow, 1, 1))
    finally:
        processes.close()


def test_no_process_outlives_a_killed_flow():
    code = (
        "from flows.running.processes import Processes; import time; p = Processes(1, environment={}); "
        "p.submit(time.sleep, 600); print(p._processes[0]._process.pid, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    worker.wait(timeout=30)


def test_spare_processes_are_taken_before_others_are_started_and_end_where_nobody_took_them():
    earlier = {child.pid for child in psutil.Process().children()}  # of other tests
    with spare_processes(2, environment={"UNBRAID_TEST": "spare"}, modules=["this"], quiet=True):
        children = {child.pid for child in psutil.Process().children()} - earlier
        processes = Processes(1, environment={}, modules=["this"], setup=os.getpid)
        (call,) = ended(processes, processes.submit(os.getpid))
        assert call.result() in children
        (call,) = ended(processes, processes.submit(eval, "'this' in __import__('sys').modules"))
        assert call.result()
        other = Processes(1, environment={}, setup=os.getpid)  # the one that is left has imported something else
        (call,) = ended(other, other.submit(os.getpid))
        assert call.result() not in children
    processes.close()
    other.close()
    assert not children & {child.pid for child in psutil.Process().children()}


def test_processes_that_cannot_import_what_they_need_end_the_run_with_a_sentence():
    with spare_processes(1, environment={}, modules=["no_such_module"], quiet=True):
        processes = Processes(1, environment={}, modules=["no_such_module"], setup=os.getpid)
        with pytest.raises(StorageError, match="no worker process could be started"):
            ended(processes, processes.submit(os.getpid))
        processes.close()
