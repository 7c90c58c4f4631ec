"""An option is written once: command line, flow, Prefect's form and workers follow from its field."""

import pickle
from pathlib import Path
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner

from flows import settings as flow_settings
from flows.cli import main
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.mashup import find_mashups, mashup
from flows.retrain import retrain
from flows.separate import separate
from flows.train import train
from flows.tune import tune
from tasks import settings as shared
from tasks.evaluate import EvaluateSettings
from tasks.separate import SeparateSettings
from tasks.settings import ModelRequest, SettingsError
from tasks.training.train import TrainRequest
from tasks.training.tune import TuneSettings

FLOWS = [separate, evaluate, ingest, train, retrain, tune, mashup, find_mashups]
WRONG = [
    (separate, {"source": "a", "out": "b"}, "engine", "foo", "engine must be bsseval, sdr or museval, not foo"),
    (separate, {"source": "a", "out": "b"}, "precision", "fp16", "precision must be auto, float32, bfloat16 or int8"),
    (separate, {"source": "a", "out": "b"}, "format", "wma", "format must be flac, wav, ogg, opus or mp3, not wma"),
    (separate, {"source": "a", "out": "b"}, "device", "gpu", "device must be auto, cpu, cuda or mps, not gpu"),
    (separate, {"source": "a", "out": "b"}, "memory", "1KB", "too little"),
    (separate, {"source": "a", "out": "b"}, "memory", "-1GB", "is not a size"),
    (separate, {"source": "a", "out": "b"}, "seconds_per_track", float("nan"), "seconds_per_track cannot be nan"),
    (separate, {"source": "a", "out": "b"}, "memory", "1e400GB", "is not a size"),
    (separate, {"source": "a", "out": "b"}, "seconds_per_track", 1e300, "seconds_per_track cannot be 1e+300"),
    (separate, {"source": "a", "out": "b"}, "seconds_per_track", 1e-9, "seconds_per_track cannot be 1e-09"),
    (separate, {"source": "a", "out": "b"}, "workers", 10**8, "workers cannot be 100000000"),
    (separate, {"source": "a", "out": "b"}, "limit", 0, "limit cannot be 0"),
    (evaluate, {"dataset": "a", "out": "b"}, "split", "valid", "split must be test, train or all, not valid"),
    (ingest, {"dataset": "a", "store": "b"}, "split", "all", "split must be train or test, not all"),
    (train, {"store": "a"}, "steps", 0, "steps cannot be 0"),
    (tune, {"store": "a", "out": "b", "space": ["frames=2,4"]}, "search", "bayes", "search must be random or grid"),
    (tune, {"store": "a", "out": "b"}, "space", [], "space cannot be"),
    (retrain, {"store": "a", "test": "b", "out": "c"}, "split", "dev", "split must be test, train or all"),
    (mashup, {"vocals_of": "a", "accompaniment_of": "b", "out": "c"}, "bars", 65, "bars cannot be 65"),
    (find_mashups, {"out": "a"}, "top", 0, "top cannot be 0"),
]


@pytest.mark.parametrize(("flow", "needed", "name", "value", "words"), WRONG)
def test_a_wrong_value_is_one_sentence_before_anything_starts(flow, needed, name, value, words, nothing_starts):
    with pytest.raises(SettingsError) as raised:
        flow(**{**needed, name: value})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("flow", "needed", "name", "value", "words"), WRONG)
def test_a_deployments_run_refuses_the_same_before_its_body(flow, needed, name, value, words, nothing_starts):
    with pytest.raises(SettingsError, match=name):
        flow.fn(**{**needed, name: value})


@pytest.mark.parametrize(
    "arguments",
    [
        ["separate", "a", "--out", "b", "--engine", "foo"],
        ["separate", "a", "--out", "b", "--precision", "fp16"],
        ["separate", "a", "--out", "b", "--memory", "1KB"],
        ["separate", "a", "--out", "b", "--deadline", "nan"],
        ["evaluate", "a", "--out", "b", "--split", "valid"],
        ["tune", "a", "--out", "b", "--space", "x=1,2", "--search", "bayes"],
        ["mashup", "a", "b", "--out", "c", "--morph", "65"],
    ],
)
def test_the_command_line_refuses_the_same_as_wrong_usage(arguments, nothing_starts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.output
    assert not any(tmp_path.iterdir())


def test_an_unknown_setting_is_named_with_the_nearest_known_one():
    with pytest.raises(SettingsError, match=r"no setting modle \(did you mean model\?\); there are .*stems"):
        separate("a", "b", modle="hq")


def test_a_missing_setting_is_named():
    with pytest.raises(SettingsError, match="source is missing"):
        separate()


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_prefects_form_has_choices_bounds_and_help_for_every_field(flow):
    from flows.running.prefect_flow import PrefectFlow

    schema = PrefectFlow(flow.function, flow.settings, flow.name, flow.check).parameters.properties
    assert set(schema) == set(flow.settings.model_fields)
    for name, entry in schema.items():
        assert entry["description"] == flow.settings.model_fields[name].description
    for name, choices in {"engine": shared.Engine, "device": shared.Device, "precision": shared.Precision}.items():
        if name in schema:
            assert schema[name]["enum"] == list(get_args(choices))
    if "workers" in schema:
        assert {"type": "integer", "maximum": 1024, "minimum": 1} in schema["workers"]["anyOf"]


def test_every_deployments_parameters_are_settings_of_its_flow():
    deployments = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())["deployments"]
    flows = {flow.name: flow for flow in FLOWS}
    assert {deployment["name"] for deployment in deployments} == set(flows)
    for deployment in deployments:
        given_at_start = {"vocals_of": "a.flac", "accompaniment_of": "b.flac"} if deployment["name"] == "mashup" else {}
        assert flows[deployment["name"]].settings(**deployment["parameters"], **given_at_start)


def test_what_a_worker_gets_is_the_flows_own_values():
    options = flow_settings.SeparateOptions(source="a", out="b", format="WAV", windows=True, model="hq", workers=2)
    settings = options.part(SeparateSettings, model_id="hq-1", stems=("vocals",))
    assert (settings.out, settings.format, settings.windows, settings.stems) == ("b", "wav", True, ("vocals",))
    assert settings.request == ModelRequest(model="hq")
    assert hash(settings.request) == hash(options.request)


@pytest.mark.parametrize(
    "settings",
    [
        SeparateSettings(out="o", model_id="m", stems=("vocals",)),
        EvaluateSettings(model_id="m", stems=("vocals",)),
        TrainRequest(store="s", folder="f", overrides=(("steps", 2), ("mixing.vocal_db", [-1, 1]))),
        TuneSettings(store="s", folder="f", steps=2),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_what_a_worker_gets_survives_pickling(settings):
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_choices_are_those_of_the_modules_that_act_on_them():
    from model.scoring.scores import ENGINES
    from storage.audio.writer import FORMATS
    from storage.sources.datasets import kinds

    assert get_args(shared.Engine) == ENGINES
    assert get_args(shared.StemFormatName) == FORMATS
    description = flow_settings.IngestOptions.model_fields["kind"].description
    assert all(kind in description for kind in kinds())


def test_settings_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        ModelRequest().model = "hq"


def test_files_are_named_so_that_a_worker_in_another_folder_finds_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = flow_settings.SeparateOptions(source="songs", out="out", model="weights/a.safetensors")
    assert options.part(ModelRequest).model == str(tmp_path / "weights" / "a.safetensors")
    options = flow_settings.TrainOptions(store="s.zarr", preset="mine.toml", start="~/b.safetensors")
    assert (options.preset, options.start) == (str(tmp_path / "mine.toml"), str(Path.home() / "b.safetensors"))
    for name in ("stereo", "stereo-66f0566d", "demucs:htdemucs", "s3://models/a.safetensors"):
        assert ModelRequest(model=name).model == name
