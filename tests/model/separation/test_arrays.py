"""What people hand over from Python."""

import numpy as np
import pytest

from model.errors import InputError
from model.preset import load_preset
from model.separation.foreign import ForeignModel, ForeignSeparator
from model.separation.stream import Separator
from tests.signals import noise


def halving():
    return ForeignSeparator(ForeignModel("fake:x-00000000", ("vocals",), lambda audio, _: {"vocals": audio * 0.5}))


def test_soundfiles_order_of_axes_is_recognised_by_the_shape():
    audio = noise(2, 4000)
    stems = halving().separate(audio.T, 8000)
    assert stems["vocals"].shape == (4000, 2)
    np.testing.assert_array_equal(stems["vocals"], halving().separate(audio, 8000)["vocals"].T)


@pytest.mark.parametrize(
    ("audio", "rate", "sentence"),
    [
        (np.zeros((100, 100), np.float32), 44100, r"\(100, 100\) is not \(channels, samples\)"),
        (np.zeros((2, 3, 4), np.float32), 44100, "one axis"),
        (np.zeros((0, 400), np.float32), 44100, "channels"),
        (np.zeros(400, np.int16), 44100, "full scale must be 1.0"),
        (np.zeros(400, complex), 44100, "floating-point"),
        (np.array(["a"] * 400), 44100, "floating-point"),
        (np.array([0.0, np.nan]), 44100, "sample 1 .* is not a number"),
        (np.array([[0.0, 0.0], [-np.inf, 0.0]]), 44100, "sample 0 .* is not a number"),
        (np.zeros(400), 0, "not a sample rate"),
        (np.zeros(400), float("nan"), "not a sample rate"),
        (np.zeros(400), 2**31 - 1, "not a sample rate"),
        (np.zeros(400), "44100", "not a sample rate"),
    ],
)
def test_what_is_not_audio_is_refused_in_a_sentence(audio, rate, sentence):
    with pytest.raises(InputError, match=sentence):
        halving().separate(audio, rate)


def test_our_separator_refuses_the_same_arrays():
    preset = load_preset("jansson")
    from model.checkpoint import build

    with pytest.raises(InputError, match="is not a number"):
        Separator(preset, build(preset)).separate(np.full(400, np.inf), 44100)
