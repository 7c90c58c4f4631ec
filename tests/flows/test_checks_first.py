"""What can be refused is refused before a server, a cluster or a worker is up, and before a file is written."""

import pytest
from click.testing import CliRunner

from flows.cli import main, stopped
from flows.ingest import ingest
from flows.mashup import find_mashups, mashup
from flows.retrain import retrain
from flows.separate import separate
from flows.train import train
from flows.tune import tune
from model.errors import ModelError, PresetError
from storage.errors import CatalogError, DatasetError, RegistryError, StorageError, StoreError
from storage.files.layout import TrainingLayout
from storage.files.location import location
from storage.sources.catalog import CatalogTrack
from storage.store import Store, StoreFormat


def refused(error, words, flow, *arguments, **options):
    with pytest.raises(error) as raised:
        flow(*arguments, **options)
    assert words in str(raised.value), raised.value
    assert "\n" not in str(raised.value)


def test_separate_refuses_what_is_not_there(nothing_starts, tmp_path):
    out = tmp_path / "out"
    refused(CatalogError, "is not there", separate, str(tmp_path / "nothing.wav"), str(out))
    refused(RegistryError, "nothing is not a registered model", separate, str(tmp_path), str(out), model="nothing")
    refused(ModelError, "has no stem piano", separate, str(tmp_path), str(out), stems=["piano"])
    assert not out.exists()


def test_ingest_refuses_a_store_of_another_format(nothing_starts, waveform_store, dsd100):
    refused(StoreError, "was made with", ingest, str(dsd100), waveform_store, spectrograms=True)


def test_ingest_refuses_what_is_not_a_dataset_without_making_a_store(nothing_starts, tmp_path):
    refused(DatasetError, "is not a dataset", ingest, str(tmp_path), str(tmp_path / "s.zarr"))
    assert not (tmp_path / "s.zarr").exists()


def test_train_refuses_a_folder_in_use(nothing_starts, waveform_store, tmp_path):
    TrainingLayout(tmp_path / "run").root.mkdir()
    TrainingLayout(tmp_path / "run").checkpoint.touch()
    refused(StoreError, "holds a training run already; add --resume", train, waveform_store, run=str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learningrate": 1}, "no training setting learningrate (did you mean learning_rate?); there are loss, frames"),
        ({"mixing.sped": 1}, "no mixing setting sped (did you mean speed?); there are speed"),
        ({"inference.size": 1}, "no inference setting size; there are core_frames"),
        ({"network_options.rws": 1}, "has no option rws; it has"),
        ({"colour.red": 1}, "settings belong to training, mixing, inference or network_options, not to colour"),
    ],
)
def test_train_names_an_unknown_setting_and_those_there_are(nothing_starts, waveform_store, tmp_path, settings, words):
    refused(PresetError, words, train, waveform_store, run=str(tmp_path), settings=settings)


def test_train_refuses_a_store_that_cannot_be_trained_on(nothing_starts, waveform_store, tmp_path):
    run = str(tmp_path / "run")
    refused(StoreError, "is not a finished store", train, str(tmp_path / "nothing.zarr"), run=run)
    refused(StoreError, "spect", train, waveform_store, run=run, settings={"source": "spectrogram"})
    Store.create(location(str(tmp_path / "e.zarr")), StoreFormat(n_fft=0, hop=0)).consolidate()
    refused(StoreError, "has no tracks in its train split", train, str(tmp_path / "e.zarr"), run=run)


def test_train_refuses_a_start_that_is_not_there(nothing_starts, waveform_store, tmp_path):
    refused(
        RegistryError,
        "nothing is not a registered model",
        train,
        waveform_store,
        run=str(tmp_path / "r"),
        start="nothing",
    )


def test_tune_refuses_a_misspelt_name_in_its_space(nothing_starts, waveform_store, tmp_path):
    words = "no training setting learing_rate (did you mean learning_rate?)"
    refused(PresetError, words, tune, waveform_store, str(tmp_path / "o"), ["frames=64,128", "learing_rate=0.1..0.2"])
    refused(PresetError, "is not a dimension", tune, waveform_store, str(tmp_path / "o"), ["frames"])


def test_retrain_refuses_what_its_parts_would(nothing_starts, waveform_store, dsd100, tmp_path):
    out = str(tmp_path / "out")
    refused(DatasetError, "is not a folder", retrain, waveform_store, str(tmp_path / "nothing"), out)
    refused(DatasetError, "is not a folder", retrain, waveform_store, str(dsd100), out, new=[str(tmp_path / "nothing")])
    refused(PresetError, "no training setting x", retrain, waveform_store, str(dsd100), out, settings={"x": 1})


def test_retrain_by_predictions_refuses_what_separate_would(nothing_starts, waveform_store, tmp_path):
    absent = str(tmp_path / "nothing")
    refused(CatalogError, "is not there", retrain, waveform_store, absent, str(tmp_path / "o"), score="predicted")


def test_mashup_refuses_a_second_song_that_is_not_there(nothing_starts, tmp_path):
    (tmp_path / "a.wav").touch()
    absent = str(tmp_path / "b.wav")
    refused(CatalogError, f"{absent} is not there", mashup, str(tmp_path / "a.wav"), absent, str(tmp_path / "o"))
    (tmp_path / "c.wav").touch()
    refused(CatalogError, "holds several songs", mashup, str(tmp_path / "a.wav"), str(tmp_path), str(tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_a_search_for_mashups_refuses_an_empty_folder(nothing_starts, tmp_path):
    refused(StorageError, "", find_mashups, str(tmp_path))


def test_after_a_stop_the_sentence_names_the_command_that_goes_on():
    assert stopped(["train", "my store.zarr", "--seed", "1"]).endswith(
        "To go on: unbraid train 'my store.zarr' --seed 1 --resume"
    )
    assert stopped(["train", "s.zarr", "--resume"]).endswith("To go on: unbraid train s.zarr --resume")
    assert stopped(["separate", "a", "--out", "b"]).endswith("To go on: unbraid separate a --out b")
    assert stopped(["tune", "s.zarr"]) == "stopped; what is finished is kept"


def test_export_takes_a_presets_name(tmp_path):
    from storage.files.layout import OutputLayout
    from storage.results.windows import WindowScores, write_windows
    from tasks.loading import registry

    model_id = registry().find("stereo").model_id
    scores = (1.0, 2.0)
    write_windows(OutputLayout(tmp_path), "evaluate-1", [WindowScores(model_id, "a", "vocals", *4 * [scores])])
    result = CliRunner().invoke(main, ["export", str(tmp_path), str(tmp_path / "json"), "--model", "stereo"])
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "json").rglob("*.json"))
    result = CliRunner().invoke(main, ["export", str(tmp_path), str(tmp_path / "json"), "--model", "cnn-0"])
    assert result.exit_code == 1
    assert f"it keeps those of {model_id}" in result.output


def test_the_catalog_is_listed_once_to_check_and_count_and_once_to_do(tmp_path, monkeypatch):
    listings = []

    def tracks():
        listings.append(1)
        yield from (CatalogTrack(name, name, str(tmp_path / name)) for name in ("a.wav", "b.wav"))

    monkeypatch.setattr("flows.separate.stream_catalog", lambda *_, **__: tracks())
    summary = separate(str(tmp_path), str(tmp_path / "out"), dry_run=True)
    assert (summary.todo, len(listings)) == (2, 1)
    separate(str(tmp_path), str(tmp_path / "out"), workers=1)  # neither file is there: two rows that say so
    assert len(listings) == 3
