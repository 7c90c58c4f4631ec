import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from flows.cli import main

VERBS = ["ingest", "train", "separate", "evaluate", "query", "models", "demo"]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_help_does_not_wait_for_prefect_or_torch():
    code = "import sys; from flows import cli; sys.exit(any(m in sys.modules for m in ('prefect', 'torch', 'dask')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_python_use_does_not_import_prefect():
    code = "import sys, unbraid; unbraid.load; import tasks.models; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["separate", "/nowhere", "--out", "out"], "/nowhere is not there"),
        (["separate", "empty", "--out", "out"], "holds no audio files"),
        (["separate", "empty", "--out", "out", "--model", "nothing"], "nothing is not a registered model"),
        (["evaluate", "/nowhere", "--out", "out"], "/nowhere is not a folder"),
        (["ingest", "empty", "--store", "s.zarr"], "is no dataset"),
        (["ingest", "empty", "--store", "s.zarr", "--kind", "loose"], "--stem vocals"),
        (["train", "/nowhere.zarr", "--preset", "stereoo"], "choose one of cnn"),
        (["query", "empty", "select 1"], "has no metrics"),
        (["models", "show", "nothing"], "nothing is not a registered model"),
    ],
)
def test_what_cannot_start_is_one_sentence_and_exit_1(tmp_path, monkeypatch, untrained, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if arguments[0] in ("separate", "evaluate") and "--model" not in arguments:
        arguments = [*arguments, "--model", str(untrained)]
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("unbraid: ")]
    assert words in line
    assert "Traceback" not in result.output


def test_wrong_usage_is_exit_2():
    assert run("separate").exit_code == 2
    assert run("separate", "x", "--out", "y", "--format", "wma").exit_code == 2
    assert run("train", "x", "--set", "no-equals-sign").exit_code == 2


def test_models_lists_what_is_registered_and_shows_a_card():
    from tasks.loading import registry

    model_id = registry().add("stereo", b"not really weights " + str(time.time()).encode(), "# the card")
    assert model_id in run("models").output
    assert "# the card" in run("models", "show", model_id).output
