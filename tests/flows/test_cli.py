import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from flows.cli import main
from storage.errors import CatalogError

models = main.commands["models"]
assert isinstance(models, click.Group)
VERBS = [*sorted(main.commands), *(["models", name] for name in models.commands)]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_every_verb_explains_itself(verb):
    result = run(*([verb] if isinstance(verb, str) else verb), "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


@pytest.mark.parametrize("verb", sorted(main.commands), ids=str)
def test_every_verb_refuses_an_unknown_option(verb):
    assert run(verb, "--no-such-option").exit_code == 2


def test_help_does_not_wait_for_prefect_or_torch():
    code = "import sys; from flows import cli; sys.exit(any(m in sys.modules for m in ('prefect', 'torch', 'dask')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_python_use_does_not_import_prefect():
    code = "import sys, unbraid; unbraid.load; import tasks.loading; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["separate", "/nowhere", "--out", "out"], "/nowhere is not there"),
        (["separate", "empty", "--out", "out"], "holds no audio files"),
        (["separate", "empty", "--out", "out", "--model", "nothing"], "nothing is not a registered model"),
        (["separate", "empty", "--model", "stero"], "stero is not a registered model (did you mean stereo?)"),
        (["evaluate", "/nowhere", "--out", "out"], "/nowhere is not a folder"),
        (["ingest", "empty", "--store", "s.zarr"], "is not a dataset"),
        (["ingest", "empty", "--store", "s.zarr", "--kind", "loose"], "--stem vocals"),
        (["train", "/nowhere.zarr", "--preset", "stereoo"], "(did you mean stereo?); choose one of cnn"),
        (["retrain", "/nowhere.zarr", "--test", "/nowhere", "--out", "out"], "/nowhere is not a folder"),
        (["tune", "/nowhere.zarr", "--out", "out", "--space", "frames"], "frames is not a dimension"),
        (["mashup", "/nowhere.wav", "/nowhere.flac", "--out", "out"], "/nowhere.wav is not there"),
        (["mashup", "--find", "empty"], "empty"),
        (["export", "empty", "json", "--model", "stereo"], "keeps no windows of stereo"),
        (["import", "empty", "--out", "out", "--name", "theirs"], "empty"),
        (["report", "empty"], "empty"),
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


def test_several_files_of_one_name_are_refused(tmp_path, monkeypatch):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "song.wav").touch()
    result = run("separate", tmp_path / "a" / "song.wav", tmp_path / "b" / "song.wav", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "song.wav more than once" in result.output


def test_a_dry_run_counts_what_several_sources_hold_in_the_singular_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").touch()
    one, two = (run("separate", *names, "--dry-run") for names in (["a.wav"], ["a.wav", "b.wav"]))
    assert one.output.splitlines()[-1].startswith("1 track would be separated")
    assert two.output.splitlines()[-1].startswith("2 tracks would be separated")
    assert not (tmp_path / "separated").exists()


def test_formats_are_taken_in_capitals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").touch()
    assert run("separate", "a.wav", "--format", "WAV", "--dry-run").exit_code == 0


def test_quiet_and_verbose_reach_the_processes_that_are_started(monkeypatch, tmp_path):
    import os

    for name in ("UNBRAID_QUIET", "UNBRAID_LOG", "PREFECT_LOGGING_LEVEL", "DASK_LOGGING__DISTRIBUTED"):
        monkeypatch.setenv(name, "")
    assert run("separate", tmp_path / "nowhere", "--quiet", "--verbose").exit_code == 1
    assert os.environ["UNBRAID_QUIET"] == os.environ["UNBRAID_LOG"] == "1"
    assert os.environ["PREFECT_LOGGING_LEVEL"] == "INFO"


def test_verbose_raises_the_error_instead_of_its_sentence(monkeypatch, tmp_path):
    """The interpreter then prints the traceback."""
    for name in ("UNBRAID_LOG", "PREFECT_LOGGING_LEVEL", "DASK_LOGGING__DISTRIBUTED"):
        monkeypatch.setenv(name, "")
    short = run("separate", tmp_path / "nowhere")
    assert isinstance(short.exception, SystemExit)
    assert "is not there" in short.output
    assert isinstance(run("separate", tmp_path / "nowhere", "--verbose").exception, CatalogError)


def test_wrong_usage_is_exit_2():
    assert run("separate").exit_code == 2
    assert run("separate", "x", "--out", "y", "--format", "wma").exit_code == 2
    assert run("worker", "tcp://127.0.0.1:1", "--memory", "1KB").exit_code == 2
    assert run("train", "x", "--set", "no-equals-sign").exit_code == 2


def test_models_lists_what_is_registered_and_shows_a_card():
    from tasks.loading import registry

    model_id = registry().add("stereo", b"not really weights " + str(time.time()).encode(), "# the card")
    said = run("models").output
    assert model_id in said
    assert said.index("\n  stereo ") < said.index("stereo-")  # presets by name before hashes
    assert "# the card" in run("models", "show", model_id).output
