"""Every verb in a folder whose modules have the names of ours: what a user keeps there is not imported."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.running.processes import Processes

# Per verb a call that ends at once, and its exit code. Those of 1 have gone through their imports to their checks.
CALLS = {
    "browse": (["nowhere"], 1),
    "demo": (["--help"], 0),
    "evaluate": (["nowhere", "--out", "out"], 1),
    "explore": (["nowhere"], 1),
    "export": (["nowhere", "json", "--model", "stereo"], 1),
    "import": (["empty", "--out", "out", "--name", "theirs"], 1),
    "ingest": (["nowhere", "--store", "s.zarr"], 1),
    "mashup": (["nowhere.wav", "nowhere.flac", "--out", "out"], 1),
    "models": ([], 0),
    "prune": (["nowhere", "empty"], 1),
    "query": (["nowhere", "select 1"], 1),
    "report": (["nowhere"], 1),
    "retrain": (["nowhere.zarr", "--test", "nowhere", "--out", "out"], 1),
    "separate": (["song.wav", "--out", "out", "--dry-run"], 0),
    "spectrogram": (["nowhere.wav"], 1),
    "train": (["nowhere.zarr"], 1),
    "tune": (["nowhere.zarr", "--out", "out", "--space", "frames=64,128"], 1),
    "worker": (["tcp://127.0.0.1:1", "--memory", "1KB"], 2),
}
# The installed program, once per verb; the last line says how each call ended.
DRIVER = """
import json, runpy, sys
program, calls = sys.argv[1], json.loads(sys.argv[2])
codes = {}
for verb, arguments in calls.items():
    sys.argv = [program, verb, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        codes[verb] = end.code or 0
print(json.dumps(codes))
"""
PROGRAM = Path(sys.executable).with_name("unbraid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of modules and packages that end whoever imports them."""
    root = tmp_path_factory.mktemp("users")
    names = ("tasks.py", "model.py", "flows.py", "storage.py", "unbraid.py")
    names += tuple(f"{room}/__init__.py" for room in ("tasks", "model", "flows", "storage"))
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(f"import os, sys; sys.stderr.write('imported {name}'); os._exit(99)\n")
    (root / "song.wav").touch()
    (root / "empty").mkdir()
    return root


def run(folder, *command):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_every_verb_is_tried():
    assert set(CALLS) == set(main.commands)


def test_no_verb_imports_what_lies_in_the_users_folder(folder, tmp_path):
    driver = tmp_path / "driver.py"  # one process for all, which has its own folder on its path as a program has
    driver.write_text(DRIVER)
    calls = {verb: arguments for verb, (arguments, _) in CALLS.items()}
    done = run(folder, sys.executable, driver, PROGRAM, json.dumps(calls))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {verb: code for verb, (_, code) in CALLS.items()}, done.stderr


def test_the_program_does_not_have_the_current_folder_on_its_path(folder):
    done = run(folder, PROGRAM, "models", "show", "nothing")
    assert (done.returncode, done.stderr.count("nothing is not a registered model")) == (1, 1), done.stderr


def test_the_folder_ends_a_program_that_imports_from_it(folder):
    assert run(folder, sys.executable, "-c", "import tasks").returncode == 99


def test_the_processes_of_a_run_do_not_import_from_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    processes = Processes(1, environment={}, setup=os.getcwd)
    try:
        call = processes.submit(os.getcwd)
        limit = time.monotonic() + 60
        while not call.done() and time.monotonic() < limit:
            processes.step(0.1)
        assert call.result() == str(folder)
    finally:
        processes.close()


def test_a_clusters_worker_starts_without_the_current_folder_on_its_path(folder, monkeypatch):
    commands = []
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append([program, *command]))
    for name in ("OMP_NUM_THREADS", "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, "")
    assert CliRunner().invoke(main, ["worker", "tcp://127.0.0.1:1"]).exit_code == 0
    ((program, *command),) = commands
    assert (program, command[1:4]) == (sys.executable, ["-P", "-m", "distributed.cli.dask_worker"])
