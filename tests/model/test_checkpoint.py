import hashlib
import pickle

import pytest
import torch

from model.checkpoint import Weights, build, model_id
from model.errors import CheckpointError, PresetError
from model.preset import Preset, load_preset


@pytest.fixture(scope="module")
def data():
    preset = load_preset("stereo")
    return Weights(preset, build(preset).state_dict(), {"seed": 3}).to_bytes(torch.float16)


def test_weights_come_back_with_their_preset_and_record(data):
    weights = Weights.from_bytes(data, "here")
    assert weights.preset == load_preset("stereo")
    assert weights.record == {"seed": 3}
    assert not weights.network().training


def test_a_model_is_named_by_the_hash_of_its_bytes(data):
    assert model_id("stereo", data) == f"stereo-{hashlib.sha256(data).hexdigest()[:8]}"


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle"])
def test_bytes_that_are_no_whole_checkpoint_are_refused_in_a_sentence(data, damage):
    bad = {"cut": data[: len(data) // 2], "empty": b"", "text": b"x" * 500, "pickle": pickle.dumps({"a": 1})}[damage]
    with pytest.raises(CheckpointError, match=r"^song\.safetensors is not a whole unbraid checkpoint"):
        Weights.from_bytes(bad, "song.safetensors")


def test_weights_of_another_network_are_refused(data):
    weights = Weights.from_bytes(data, "here")
    with pytest.raises(CheckpointError, match="do not fit"):
        Weights(load_preset("jansson"), weights.tensors, {}).network()


def test_a_preset_survives_json():
    preset = load_preset("stereo")
    assert Preset.from_dict(preset.to_dict()) == preset


def test_unknown_presets_and_settings_are_named():
    with pytest.raises(PresetError, match="choose one of cnn, .*stereo"):
        load_preset("sterio")
    with pytest.raises(PresetError, match="no such training setting"):
        load_preset("stereo", stepps=4)
