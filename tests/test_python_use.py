"""What a notebook does."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
import torch

import unbraid
from storage.files.layout import OutputLayout
from storage.results.metrics import OK, StemRow, compact, write_part
from tests.signals import noise


@pytest.fixture(scope="module")
def model(untrained):
    return unbraid.load(str(untrained), device="cpu")


def test_three_lines_give_stems_of_a_file_and_of_an_array(model, tmp_path):
    mixture = noise(2, 30000)
    sf.write(tmp_path / "song.wav", mixture.T, 44100)
    stems = model(tmp_path / "song.wav")
    assert tuple(stems) == model.stems == ("vocals", "accompaniment")
    assert (stems.rate, stems.model_id) == (44100, model.model_id)
    np.testing.assert_array_equal(stems["vocals"] + stems["accompaniment"], mixture)
    again = model(mixture, rate=44100)
    np.testing.assert_array_equal(again["vocals"], stems["vocals"])
    assert model(mixture[0], rate=44100)["vocals"].shape == (30000,)


def test_a_tensor_is_taken_as_its_array_is(model):
    mixture = noise(2, 20000)
    given = torch.from_numpy(mixture).requires_grad_()
    np.testing.assert_array_equal(model(given, rate=44100)["vocals"], model(mixture, rate=44100)["vocals"])


@pytest.mark.parametrize(("format", "depth", "step"), [("flac", "int16", 2**-15), ("wav", "float", 0.0)])
def test_saved_stems_add_up_to_the_mixture(model, tmp_path, format, depth, step):
    mixture = noise(2, 20000)
    paths = model(mixture, rate=48000).save(tmp_path / "new" / "out", format=format, depth=depth)
    assert {path.relative_to(tmp_path).as_posix() for path in paths.values()} == {
        f"new/out/vocals.{format}", f"new/out/accompaniment.{format}",
    }  # fmt: skip
    signals = [sf.read(path) for path in paths.values()]
    assert {rate for _, rate in signals} == {48000}
    np.testing.assert_allclose(sum(signal for signal, _ in signals), mixture.T, rtol=0, atol=1e-12)
    assert all((np.round(signal / step) * step == signal).all() for signal, _ in signals if step)


def test_an_array_with_samples_first_is_recognised_by_its_shape(model, tmp_path):
    mixture = noise(2, 20000)
    stems = model(mixture.T, rate=44100)
    np.testing.assert_array_equal(stems["vocals"].T, model(mixture, rate=44100)["vocals"])
    assert sf.info(stems.save(tmp_path)["vocals"]).channels == 2
    with pytest.raises(unbraid.InputError, match="NaN"):
        model(np.full((2, 10), np.nan, np.float32), rate=44100)


def test_one_channel_without_a_channel_axis_is_saved_as_mono(model, tmp_path):
    paths = model(noise(1, 5000)[0], rate=8000).save(str(tmp_path))
    assert sf.info(paths["vocals"]).channels == 1


def test_stems_say_why_they_cannot_be_saved(tmp_path):
    stems = unbraid.Stems({"vocals": noise(2, 10), "accompaniment": noise(2, 10)}, 44100, "none")
    with pytest.raises(unbraid.AudioError, match="choose one of flac"):
        stems.save(tmp_path, format="aiff")
    with pytest.raises(unbraid.AudioError, match="flac has no depth float"):
        stems.save(tmp_path, depth="float")


def test_what_cannot_be_done_is_a_sentence(model, tmp_path):
    with pytest.raises(TypeError, match="sample rate"):
        model(noise(1, 100))
    with pytest.raises(TypeError, match="its own sample rate"):
        model("song.wav", rate=44100)
    with pytest.raises(unbraid.AudioError, match="is not there"):
        model(tmp_path / "absent.wav")
    with pytest.raises(unbraid.RegistryError, match="not a registered model"):
        unbraid.load("nothing")


def test_scores_are_those_of_the_formula(model):
    true = {"vocals": noise(2, 44100, 1), "accompaniment": noise(2, 44100, 2)}
    estimates = {stem: signal + noise(2, 44100, 3, 0.01) for stem, signal in true.items()}
    scores = unbraid.bss_eval(true, estimates, 44100, engine="sdr")
    error = estimates["vocals"].astype(float) - true["vocals"]
    expected = 10 * np.log10(np.square(true["vocals"].astype(float)).sum() / np.square(error).sum())
    assert scores.stems["vocals"].sdr == pytest.approx(expected)
    flat = {stem: torch.from_numpy(signal[0]) for stem, signal in true.items()}
    assert unbraid.bss_eval(flat, flat, 44100, engine="sdr").windows["vocals"].shape == (4, 1)
    with pytest.raises(ValueError, match="not an engine"):
        unbraid.bss_eval(true, estimates, 44100, engine="foo")


def test_importing_is_quick_because_it_imports_little():
    program = (
        "import unbraid, sys; print(*{'torch', 'numpy', 'duckdb', 'prefect', 'pyarrow', 'librosa'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert unbraid.__version__ == version("unbraid")


def test_the_shipped_default_loads_by_its_presets_name():
    shipped = [model for model in unbraid.models() if model.shipped]
    assert any(model.preset == "stereo" and model.champion for model in shipped)
    files = {path.name: path.stat().st_size for path in (model.path for model in shipped)}
    assert sum(files.values()) <= 90e6
    for model in shipped:
        assert unbraid.load(model.model_id).model_id == model.model_id
        assert model.card
        assert "Trained" in model.card


def test_results_are_queried_in_sql_and_given_to_any_library(tmp_path):
    out = OutputLayout(tmp_path)
    for run, level in (("separate-1", -20.0), ("separate-2", -10.0)):
        stems = ("vocals", "other")
        write_part(out, run, [StemRow("m-0", "a", "a.wav", stem, OK, loudness_lufs=level) for stem in stems])
        compact(out, run)
    with unbraid.open_results(tmp_path) as results:
        assert {"metrics", "history"} <= set(results.tables)
        relation = results.sql("select stem, loudness_lufs from metrics order by stem")
        assert relation.fetchall() == [("other", -10.0), ("vocals", -10.0)]
        assert results.sql("select * from history").to_arrow_table().num_rows == 4
        with pytest.raises(unbraid.MetricsError, match="does not work"):
            results.sql("select nothing from nowhere")
        with pytest.raises(unbraid.MetricsError):
            results.sql("select * from read_text('/etc/passwd')").fetchall()
    with pytest.raises(unbraid.MetricsError, match="no metrics"):
        unbraid.open_results(tmp_path / "absent")


def test_separating_imports_nothing_that_only_mash_ups_pictures_museval_or_stored_rows_need():
    program = "import sys, flows.separate, tasks.separate; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unneeded = {"librosa", "numba", "python_stretch", "matplotlib", "museval", "musdb", "pandas", "pyarrow.dataset"}
    assert not unneeded & set(shown.stdout.split())


def test_a_worker_imports_neither_scipy_nor_what_rows_are_written_with():
    """Each of them would take as long as a short song takes to separate."""
    program = "import sys, tasks.process, tasks.separate; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"scipy", "pyarrow", "duckdb", "pandas", "PIL"} & set(shown.stdout.split())


def test_the_command_line_plans_and_queries_without_what_only_workers_and_notebooks_need(tmp_path):
    out = OutputLayout(tmp_path / "out")
    write_part(out, "separate-1", [StemRow("m-0", "a", "a.wav", "vocals", OK)])
    compact(out, "separate-1")
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli", "query", str(tmp_path / "out"), "select 1"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "pyarrow.dataset" in modules
    assert not {"pandas.core", "torch", "dask", "prefect", "scipy", "matplotlib"} & modules
