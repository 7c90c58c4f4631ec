"""Presets: shipped ones by name, a user's own by path, and networks that others bring."""

import pytest
import torch

from model.checkpoint import build
from model.errors import CheckpointError, PresetError
from model.preset import load_preset
from tests import plugins

SMALL = """
name = "{name}"
network = "{network}"
sample_rate = 8192
n_fft = 1024
hop = 768
bins = 512
channels = 1
stems = ["vocals", "accompaniment"]
[network_options]
[inference]
core_frames = 96
context_frames = 16
batch = 1
[training]
loss = "masks"
frames = 128
batch_size = 2
learning_rate = 1e-4
steps = 10
warmup = 1
weight_decay = 0.0
ema = 0.9
validate_every = 5
patience = 3
schedule = "constant"
[mixing]
"""


def written(folder, name="mine", network="jansson", text=SMALL):
    path = folder / "preset.toml"
    path.write_text(text.replace("{name}", name).replace("{network}", network))
    return str(path)


def test_a_toml_path_is_a_preset(tmp_path):
    preset = load_preset(written(tmp_path), steps=3)
    assert (preset.name, preset.training.steps, preset.stems) == ("mine", 3, ("vocals", "accompaniment"))
    assert sum(p.numel() for p in build(preset).parameters()) > 1e6


def test_errors_name_what_is_wrong_with_a_preset_file(tmp_path):
    with pytest.raises(PresetError, match="cannot be read"):
        load_preset(str(tmp_path / "absent.toml"))
    with pytest.raises(PresetError, match="is not TOML"):
        load_preset(written(tmp_path, text="name = "))
    with pytest.raises(PresetError, match="needs a name"):
        load_preset(written(tmp_path, name="../mine"))
    with pytest.raises(PresetError, match="give it another name"):
        load_preset(written(tmp_path, name="stereo"))
    with pytest.raises(PresetError, match="does not fit this version"):
        load_preset(written(tmp_path, text=SMALL.replace("[training]", "[trainings]")))
    with pytest.raises(PresetError, match=r"choose one of .*stereo"):
        load_preset("absent")


def test_an_installed_package_adds_a_network(tmp_path, monkeypatch):
    source = """
from torch import nn

class THING(nn.Module):
    def __init__(self, bins, slope=1.0):
        super().__init__()
        self.line = nn.Linear(bins, bins)
        self.slope = slope

    def forward(self, x):
        return self.line(x.transpose(-1, -2)).transpose(-1, -2).sigmoid()[:, None]
"""
    plugins.install(tmp_path, monkeypatch, "unbraid.networks", "lines", source)
    path = written(tmp_path, network="lines", text=SMALL.replace("[network_options]", "[network_options]\nslope = 2.0"))
    network = build(load_preset(path))
    assert network.slope == 2.0
    assert network(torch.ones(1, 1, 512, 16)).shape == (1, 1, 1, 512, 16)
    with pytest.raises(CheckpointError, match="cannot be built"):
        build(load_preset(path, **{"network_options.absent": 1}))


def test_a_network_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no network nothing; there are .*jansson"):
        build(load_preset(written(tmp_path, network="nothing")))


@pytest.mark.parametrize("name", ["stereo", "four-stem", "crnn", "cnn"])
def test_a_training_that_begins_with_weights_takes_smaller_and_fewer_steps(name):
    fresh, continued = load_preset(name).training, load_preset(name, continued=True).training
    assert continued.learning_rate < fresh.learning_rate
    assert continued.steps < fresh.steps
    assert (continued.loss, continued.frames, continued.favour) == (fresh.loss, fresh.frames, fresh.favour)
    assert load_preset(name, continued=True, learning_rate=1e-5).training.learning_rate == 1e-5


def test_an_unknown_setting_of_a_continued_training_is_named(tmp_path):
    path = written(tmp_path, text=SMALL + "[continue]\nlerning_rate = 1e-5\n")
    assert load_preset(path).training.learning_rate == 1e-4
    with pytest.raises(PresetError, match="lerning_rate"):
        load_preset(path, continued=True)
