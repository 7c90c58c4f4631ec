import shutil
import subprocess
import sys
import threading
import time

import pytest

from storage import runs
from storage.errors import MetricsError
from storage.files.layout import OutputLayout


@pytest.fixture
def out(tmp_path):
    return OutputLayout(tmp_path)


@pytest.fixture
def quick(monkeypatch):
    """Beats are watched for one second."""
    monkeypatch.setattr(runs, "_WATCHED_SECONDS", 1.0)


def begin_elsewhere(out, run_id, monkeypatch, namespace="another boot"):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(runs, "_namespace", lambda: namespace)
        runs.begin(out, run_id, {})


def age(out, run_id, seconds):
    """As if the clock had been set forward since the run last beat."""
    moment = runs.datetime.datetime.now(runs.datetime.UTC) - runs.datetime.timedelta(seconds=seconds)
    out.run_beat(run_id).write_text(moment.isoformat())


def test_a_killed_run_is_closed_and_a_living_one_refuses_a_second(out, monkeypatch):
    runs.begin(out, "separate-1", {})
    assert runs.close_abandoned(out) == ["separate-1"]  # this very process: a second call in it, not a rival
    assert runs.read(out, "separate-1")["state"] == "killed"
    with subprocess.Popen(["sleep", "30"]) as rival:
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: rival.pid)
            runs.begin(out, "separate-2", {})
        with pytest.raises(MetricsError, match=f"process {rival.pid}"):
            runs.close_abandoned(out)
        rival.kill()
        time.sleep(0.2)
        assert runs.close_abandoned(out) == ["separate-2"]  # a zombie, until its parent asks for it


def test_a_process_that_only_has_the_number_of_a_killed_run_does_not_block(out, monkeypatch):
    with subprocess.Popen(["sleep", "30"]) as other:
        with monkeypatch.context() as patch:
            process = {"pid": other.pid, "started": 1.0, "namespace": runs._namespace()}
            patch.setattr("storage.runs._process", lambda: process)
            runs.begin(out, "separate-1", {})
        assert runs.close_abandoned(out) == ["separate-1"]
        other.kill()


def test_a_clock_that_was_set_does_not_make_a_living_process_a_dead_one(out, monkeypatch):
    with subprocess.Popen(["sleep", "30"]) as rival:
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: rival.pid)
            runs.begin(out, "separate-1", {})
        # What psutil gives as a process's start is computed from the clock of today.
        started = runs.psutil.Process.create_time
        monkeypatch.setattr("psutil.Process.create_time", lambda self: started(self) + 3600)
        with pytest.raises(MetricsError, match="is being written to by separate-1"):
            runs.close_abandoned(out)
        rival.kill()


def test_a_run_of_another_namespace_with_our_host_name_is_judged_by_its_beat(out, monkeypatch, quick):
    begin_elsewhere(out, "separate-1", monkeypatch)
    runs.beat(out, "separate-1")
    with pytest.raises(MetricsError, match="separate-1 .process .* on "):
        runs.close_abandoned(out)
    age(out, "separate-1", 3600)
    told = []
    assert runs.close_abandoned(out, told.append) == ["separate-1"]
    assert "separate-1" in told[0]


def test_a_run_whose_beats_look_old_is_left_alone_when_it_beats_again(out, monkeypatch, quick):
    begin_elsewhere(out, "separate-1", monkeypatch)
    age(out, "separate-1", 3600)
    again = threading.Timer(0.3, age, (out, "separate-1", 3590))
    again.start()
    with pytest.raises(MetricsError, match="is being written to by separate-1"):
        runs.close_abandoned(out)
    again.join()


def test_a_killed_run_whose_last_beat_lies_in_the_future_does_not_block_until_then(out, monkeypatch, quick):
    """The clock was set back since."""
    begin_elsewhere(out, "separate-1", monkeypatch)
    age(out, "separate-1", -86400)
    assert runs.close_abandoned(out) == ["separate-1"]


def test_a_run_without_a_beat_is_fresh_while_its_record_is(out, monkeypatch, quick):
    begin_elsewhere(out, "separate-1", monkeypatch)
    with pytest.raises(MetricsError, match="is being written to by separate-1"):
        runs.close_abandoned(out)


def test_a_record_of_an_older_version_is_judged_by_its_beat(out, quick):
    runs.begin(out, "separate-1", {})
    record = runs.read(out, "separate-1")
    record["process"] = {"pid": 1, "started": 0.0}
    runs.write_json(out.run_record("separate-1"), record)
    age(out, "separate-1", 10)
    with pytest.raises(MetricsError):
        runs.close_abandoned(out)
    age(out, "separate-1", 1000)
    assert runs.close_abandoned(out) == ["separate-1"]


@pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare here")
def test_a_living_run_in_a_pid_namespace_of_its_own_is_never_swept(out):
    """As in two containers that share a host name and an output."""
    code = (
        "import sys, time; from pathlib import Path; from storage import runs; "
        "from storage.files.layout import OutputLayout; out = OutputLayout(Path(sys.argv[1])); "
        "runs.begin(out, 'separate-1', {}); runs.beat(out, 'separate-1'); print('on', flush=True); time.sleep(60)"
    )
    inside = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", code, out.root],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if inside.stdout.readline() != "on\n":
            pytest.skip("this machine lets nobody make namespaces")
        with pytest.raises(MetricsError, match="is being written to by separate-1"):
            runs.close_abandoned(out)
    finally:
        inside.kill()
        inside.wait()
