"""A run that is asked to stop: by Ctrl-C in the terminal, by a signal to the process alone, by a logout."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import soundfile as sf

from storage import runs
from storage.files.layout import OutputLayout
from tests.signals import noise

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("cluster")]
SENTENCE = "unbraid: stopped; what is finished is kept"


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    sf.write(path, noise(2, 44100 * 120).T, 44100)
    return path


def start(song, out, model, *more):
    command = [sys.executable, "-P", "-m", "flows.cli", "separate", song, "--out", out, "--model", model, *more]
    return subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(condition, run, seconds=200):
    limit = time.monotonic() + seconds
    while not condition():
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "group"),
    [(signal.SIGINT, 130, True), (signal.SIGINT, 130, False), (signal.SIGTERM, 143, False), (signal.SIGHUP, 129, True)],
    ids=["ctrl-c", "int alone", "term", "hup"],
)
def test_a_run_in_mid_track_stops_with_one_sentence_and_leaves_nothing(song, untrained, tmp_path, number, code, group):
    out = tmp_path / "out"
    run = start(song, out, untrained)
    wait_until(lambda: list(out.glob("stems/*/.unbraid-*.tmp")), run)
    workers = psutil.Process(run.pid).children(recursive=True)
    assert workers
    (os.killpg if group else os.kill)(run.pid, number)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == code, said
    assert said.strip().splitlines()[-1].startswith(f"{SENTENCE}. To go on: unbraid separate ")
    assert "Traceback" not in said
    assert not list(out.rglob("*.tmp"))
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    (record,) = [runs.read(OutputLayout(out), path.stem) for path in (out / "runs").glob("*.json")]
    assert record["state"] == "stopped"
    assert not list((out / "runs").glob("*.beat"))


@pytest.mark.parametrize(
    ("number", "seconds"),
    [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.3), (signal.SIGHUP, 0.6), (signal.SIGINT, 1.0)],
)
def test_a_stop_at_the_start_is_the_same_sentence_and_leaves_nothing(song, untrained, tmp_path, number, seconds):
    out = tmp_path / "out"
    run = start(song, out, untrained)
    wait_until(lambda: caught(run.pid, signal.SIGHUP), run)
    time.sleep(seconds)
    os.kill(run.pid, number)
    *before, last = run.communicate(timeout=60)[1].splitlines()
    assert run.returncode == 128 + number
    assert last.startswith(SENTENCE)
    # How far the run has come by then depends on the machine: on a fast one it may have begun.
    assert before in ([], ["separate: 0 of 1 track"])
    assert not [*out.rglob("*.tmp"), *out.rglob("*.beat")]
    records = [runs.read(OutputLayout(out), path.stem) for path in (out / "runs").glob("*.json")]
    assert {record["state"] for record in records} <= {"stopped"}


def test_a_second_ctrl_c_hurries_the_stop_and_leaves_nothing_either(song, untrained, tmp_path):
    out = tmp_path / "out"
    run = start(song, out, untrained)
    wait_until(lambda: list(out.glob("stems/*/.unbraid-*.tmp")), run)
    workers = psutil.Process(run.pid).children(recursive=True)
    for _ in range(2):
        os.kill(run.pid, signal.SIGINT)
        time.sleep(0.02)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130, said
    assert said.strip().splitlines()[-1].startswith(f"{SENTENCE}. To go on: unbraid separate ")
    assert not [*out.rglob("*.tmp"), *out.rglob("*.beat")]
    (record,) = [runs.read(OutputLayout(out), path.stem) for path in (out / "runs").glob("*.json")]
    assert record["state"] == "stopped"
    assert psutil.wait_procs(workers, timeout=5)[1] == []


def caught(pid, number):
    """Does the process handle this signal by now? Python itself catches SIGINT from its start, SIGHUP it does not."""
    with open(f"/proc/{pid}/status") as status:
        (mask,) = [int(line.split()[1], 16) for line in status if line.startswith("SigCgt:")]
    return bool(mask >> (number - 1) & 1)
