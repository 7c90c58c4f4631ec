import hashlib
import json
import pickle

import pytest
import torch

from model.checkpoint import Weights, build, model_id, pack
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
def test_bytes_that_are_not_a_complete_checkpoint_are_refused_in_a_sentence(data, damage):
    bad = {"cut": data[: len(data) // 2], "empty": b"", "text": b"x" * 500, "pickle": pickle.dumps({"a": 1})}[damage]
    with pytest.raises(CheckpointError, match=r"^song\.safetensors is not a complete unbraid checkpoint"):
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
    with pytest.raises(PresetError, match="no training setting stepps"):
        load_preset("stereo", stepps=4)


def hostile(**changes):
    """The bytes of a weights file whose preset says what `changes` says, `part__name` for a part of it."""
    preset = load_preset("stereo").to_dict()
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            preset[part][name] = value
        else:
            preset[key] = value
    return pack({"x": torch.zeros(1)}, {"preset": preset, "record": {}})


@pytest.mark.parametrize(
    "stems",
    [["../../escaped", "accompaniment"], ["vocals", "/etc/x"], ["vocals", ""], ["vocals", "a.b"], ["vocals", 3],
     ["vocals", "Vocals"], ["vocals"], "vocals", ["v"] * 99, ["vocals", "a\nb"]],
)  # fmt: skip
def test_stem_names_that_could_be_paths_are_refused(stems):
    with pytest.raises(PresetError):
        Weights.from_bytes(hostile(stems=stems), "x")


def test_preset_names_that_could_be_paths_are_refused():
    with pytest.raises(PresetError, match="letters, digits"):
        Weights.from_bytes(hostile(name="../../models"), "x")


@pytest.mark.parametrize(
    "change",
    [{"bins": 10**9}, {"n_fft": 0}, {"n_fft": -4}, {"n_fft": 2**32}, {"hop": 0}, {"hop": 1 << 15}, {"sample_rate": 0},
     {"channels": 10**6}, {"bins": 2.5}, {"bins": True}, {"bins": "many"}, {"inference__core_frames": 10**12},
     {"inference__batch": 0}, {"inference__views": [1e-9]}, {"inference__views": [1.0] * 1000},
     {"network_options__rows": 10**8}, {"network_options__widths": [10**6] * 6},
     {"training__learning_rate": float("inf")}, {"mixing": 4}, {"network_options__anything": [[[1]]]}],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused_before_anything_is_allocated(change):
    with pytest.raises(PresetError):
        Weights.from_bytes(hostile(**change), "x")


def test_options_that_the_network_does_not_have_are_a_sentence():
    with pytest.raises(CheckpointError, match="cannot be built"):
        Weights.from_bytes(hostile(network_options__unheard_of=3), "x").network()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_not_finite_are_refused_on_load(dtype, value):
    preset = load_preset("jansson")
    state = build(preset).state_dict()
    next(iter(state.values())).view(-1)[0] = float(value)
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        Weights.from_bytes(Weights(preset, state, {}).to_bytes(dtype), "x")


def test_the_largest_weights_of_half_precision_are_loaded():
    preset = load_preset("jansson")
    state = build(preset).state_dict()
    next(iter(state.values())).view(-1)[:2] = torch.tensor([65504.0, -65504.0])
    data = Weights(preset, state, {}).to_bytes(torch.float16)
    assert Weights.from_bytes(data, "x").tensors[next(iter(state))].max() == 65504


def test_headers_that_are_too_deep_or_too_long_are_refused():
    deep = "[" * 100_000 + "]" * 100_000
    header = json.dumps({"__metadata__": {"unbraid": deep}}).encode()
    for data in (
        len(header).to_bytes(8, "little") + header,
        (2**62).to_bytes(8, "little") + b"{}",
        (20_000_000).to_bytes(8, "little") + b" " * 20_000_000,
    ):
        with pytest.raises(CheckpointError, match="not a complete unbraid checkpoint"):
            Weights.from_bytes(data, "x")
