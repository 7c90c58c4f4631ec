"""Weights files from strangers: whatever is in them, they work, or are refused in a sentence."""

import copy
import json
import random
import struct

import numpy as np
import pytest
import torch

from model.bounds import excerpt
from model.checkpoint import Weights, build, pack
from model.errors import CheckpointError, ModelError, PresetError
from model.preset import Preset, load_preset
from model.separation.prediction import FEATURES, PRESENCE_FEATURES, WINDOW_FEATURES
from model.separation.stream import Separator

RATE = 8000
SMALL = {
    "name": "small", "network": "cnn", "sample_rate": RATE, "n_fft": 64, "hop": 16, "bins": 33, "channels": 1,
    "stems": ["vocals", "accompaniment"],
    "network_options": {"context": 1, "width": 2, "dense": 4, "mask": "soft"},
    "inference": {"core_frames": 64, "context_frames": 8, "batch": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def header():
    """The header of a small network's weights, with a calibration."""
    preset = load_preset("cnn").to_dict() | SMALL
    line = {"weights": [0.1] * (1 + len(FEATURES)), "window_weights": [0.1] * (1 + len(WINDOW_FEATURES))}
    stem = line | {"low": -1.0, "high": 1.0, "error": 0.5, "songs": 12}
    presence = [0.1] * (1 + len(PRESENCE_FEATURES))
    calibration = {"version": 1, "stems": {"vocals": stem}, "presence": presence, "window_presence": presence}
    return {"preset": preset, "record": {"seed": 3}, "calibrations": {"small": calibration}}


@pytest.fixture(scope="module")
def tensors(header):
    torch.manual_seed(0)
    return build(Preset.from_dict(header["preset"])).state_dict()


@pytest.fixture(scope="module")
def song():
    return np.random.default_rng(0).standard_normal((1, RATE // 2)).astype(np.float32) / 8


def separated(data: bytes, song: np.ndarray) -> np.ndarray:
    """The vocals that a weights file's bytes make of a song."""
    separator = Separator.from_weights(Weights.from_bytes(data, "weights.safetensors"))
    return separator.separate(song, RATE)["vocals"]


def refused(data: bytes, song: np.ndarray, words: str, kind: type[ModelError] = CheckpointError) -> None:
    with pytest.raises(kind) as raised:
        separated(data, song)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def attempted(data: bytes, song: np.ndarray) -> str:
    """The sentence by which a weights file is refused, empty where it makes finite samples."""
    try:
        assert np.isfinite(separated(data, song)).all()
    except ModelError as error:
        return str(error)
    return ""


def test_the_file_that_is_made_hostile_below_is_itself_fine(header, tensors, song):
    assert np.isfinite(separated(pack(tensors, header), song)).all()


def changed(tree: dict, path: tuple[str, ...], value: object) -> dict:
    """A copy of nested tables with the value at a path replaced, or with a new one."""
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return tree


HOSTILE = [
    None, True, -1, 0, 1, 3.5, 2**31, 2**70, 1e308, -1e308, float("nan"), float("inf"), "", "x" * 100_000, "a\nb",
    [], [[]], json.loads('{"a":' * 200 + "1" + "}" * 200), [1] * 100, ["x"],
    {}, {"a": {"b": {}}}, [None] * 7, [1e308] * 7, [2**2000] * 5,
]  # fmt: skip


def paths(tree: dict, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where every value of nested tables is, tables included."""
    here = [(*above, key) for key in tree]
    return here + [path for key in tree if isinstance(tree[key], dict) for path in paths(tree[key], (*above, key))]


def test_any_value_anywhere_in_the_header_works_or_is_a_sentence(header, tensors, song):
    drawn = random.Random(11)
    for path in [*paths(header), ("preset", "new"), ("preset", "network_options", "rows"), ("preset", "weights")]:
        for value in drawn.sample(HOSTILE, 6):
            data = pack(tensors, changed(header, path, value))
            outcome = attempted(data, song)
            assert "\n" not in outcome, (path, excerpt(value))
            assert len(outcome) < 1000, (path, excerpt(value))


def test_any_damaged_bytes_work_or_are_a_sentence(header, tensors, song):
    drawn, intact = random.Random(5), pack(tensors, header)
    for _ in range(200):
        data = bytearray(intact)
        for _ in range(drawn.randint(1, 4)):
            at = drawn.randrange(len(data) if drawn.random() < 0.3 else min(len(data), 400))
            data[at : at + drawn.choice([0, 1, 1, 8])] = drawn.randbytes(drawn.choice([0, 1, 1, 8]))
        assert "\n" not in attempted(bytes(data), song)


def raw(entries: str, body: bytes, ours: dict) -> bytes:
    """A safetensors file whose tensors are listed by hand."""
    metadata = json.dumps({"unbraid": json.dumps(ours)})
    listed = f'{{"__metadata__":{metadata}{"," if entries else ""}{entries}}}'.encode()
    return struct.pack("<Q", len(listed)) + listed + body


@pytest.mark.parametrize(
    ("entries", "body"),
    [
        (
            '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}',
            8,
        ),
        (
            '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
            4,
        ),
        ('"a":{"dtype":"F32","shape":[1099511627776,4],"data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,4]}', 4),
        ('"a":{"dtype":"NONE","shape":[1],"data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":"long","data_offsets":[0,4]}', 4),
        ('"a":{"dtype":"F32","shape":[1],"data_offsets":"x"}', 4),
        ('"a":[]', 0),
        ("", 0),
    ],
)
def test_tensors_that_are_listed_wrongly_or_twice_are_a_sentence(header, song, entries, body):
    with pytest.raises(CheckpointError, match=r"not a complete unbraid checkpoint|do not fit the network"):
        separated(raw(entries, bytes(body), header), song)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.int32]
)
def test_tensors_of_types_that_no_network_has_are_refused(header, tensors, song, dtype):
    name = "classes.weight"
    data = pack({**tensors, name: torch.zeros(tensors[name].shape, dtype=dtype)}, header)
    refused(data, song, "which no network has")


def test_a_number_that_float32_cannot_hold_is_refused(header, tensors, song):
    name = "classes.weight"
    huge = tensors[name].double()
    huge.view(-1)[0] = 1e300
    refused(pack({**tensors, name: huge}, header), song, "holds NaN or infinity")


def test_tensors_of_another_shape_missing_or_too_many_are_named(header, tensors, song):
    name = "classes.weight"
    refused(pack({**tensors, name: torch.zeros(3)}, header), song, f"{name} is (3,)")
    refused(pack({n: t for n, t in tensors.items() if n != name}, header), song, f"{name} is missing")
    refused(pack({**tensors, "more": torch.zeros(1)}, header), song, "more is (1,), and the network has none")


def test_finite_weights_whose_masks_are_no_numbers_are_a_sentence(header, tensors, song):
    hostile = {name: torch.full_like(tensor, 3e38) if "classes" in name else tensor for name, tensor in tensors.items()}
    refused(pack(hostile, header), song, "no numbers", ModelError)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "jansson", "network_options": {"width": 1024, "levels": 8}},
        {"network": "stereo", "channels": 2, "network_options": {"rows": 32, "widths": [2048] * 8}},
        {"network": "cnn", "network_options": {"dense": 4096, "context": 64, "width": 1024}},
        {"network": "crnn", "channels": 2, "network_options": {"rows": 33, "hidden": 2048, "layers": 8}},
    ],
)
def test_a_network_that_no_memory_holds_is_refused_before_it_is_built(header, changes):
    weights = Weights(Preset.from_dict(header["preset"] | changes), {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="do not fit"):
        weights.network()


@pytest.mark.parametrize(
    "changes",
    [
        {"inference": {"core_frames": 16384, "context_frames": 4096, "batch": 1}, "n_fft": 65536, "hop": 16384},
        {"network": "stereo", "n_fft": 65536, "hop": 16384, "bins": 32769, "network_options": {"rows": 4096}},
        {"network_options": {"estimated": 16}},
        {"sample_rate": [RATE]},
        {"network_options": {"rows": [4, 4]}},
        {"network_options": {"widths": {}, "width": {}}},
        {"inference": {"core_frames": 64, "context_frames": 8, "batch": 1, "views": 1.0}},
        {"inference": {"core_frames": 64, "context_frames": 8, "batch": 1, "views": ["1.0"]}},
        {"training": None},
        {"network": ["cnn"]},
    ],
)
def test_presets_whose_fields_are_of_another_kind_or_too_large_together_are_refused(header, changes):
    with pytest.raises(PresetError) as raised:
        Preset.from_dict(header["preset"] | changes)
    assert len(str(raised.value)) < 1000


def test_channels_that_the_network_does_not_have_are_refused(header, tensors, song):
    data = pack(tensors, changed(header, ("preset", "channels"), 2))
    refused(data, song, "has 2 channels, and its network 1")
