import numpy as np
import pytest

from model.learning import augment, mixing
from model.preset import MixingSettings
from tests.signals import noise

RATE = 16000


def distort(audio, rate, random):
    return augment.distort(audio, random, most_db=12.0)


AUGMENTATIONS = [distort, augment.equalise, augment.reverberate, augment.double, augment.widen, augment.compress]


@pytest.mark.parametrize("change", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 2])
def test_an_augmentation_keeps_length_and_leaves_its_argument_alone(change, channels):
    audio = noise(channels, RATE)
    before = audio.copy()
    changed = change(audio, RATE, np.random.default_rng(1))
    assert changed.shape[1] == RATE
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert not np.array_equal(changed, audio)
    np.testing.assert_array_equal(audio, before)


def test_levels_are_set_against_each_other():
    settings = MixingSettings(vocal_db=(-6.0, -6.0), without_vocals=0, without_backing=0)
    vocals, rest = mixing.balance([noise(2, RATE), 0.3 * noise(2, RATE, 1)], RATE, settings, np.random.default_rng(0))
    level = lambda audio: np.sqrt(np.square(audio).mean())  # noqa: E731
    assert 20 * np.log10(level(vocals) / level(rest)) == pytest.approx(-6, abs=0.3)
    assert np.abs(vocals + rest).max() <= 1.0 + 1e-6


def test_maximising_changes_both_stems_by_one_gain():
    settings = MixingSettings(maximise=1.0, without_vocals=0, without_backing=0)
    vocals, rest = noise(2, RATE, 1), noise(2, RATE, 2)
    loud_vocals, loud_rest = mixing.balance([vocals, rest], RATE, settings, np.random.default_rng(3))
    gains = (loud_vocals / np.where(vocals == 0, np.nan, vocals), loud_rest / np.where(rest == 0, np.nan, rest))
    ratio = gains[0] / gains[1]
    assert np.nanstd(ratio) / np.nanmean(ratio) < 1e-3


def test_the_parts_of_a_backing_are_set_against_each_other_from_one_level():
    settings = MixingSettings(part_db=(0.0, 0.0), without_vocals=0, without_backing=0)
    parts = [noise(2, RATE), 0.1 * noise(2, RATE, 1), 0.8 * noise(2, RATE, 2), 0.4 * noise(2, RATE, 3)]
    levels = [np.sqrt(np.square(x).mean()) for x in mixing.balance(parts, RATE, settings, np.random.default_rng(0))]
    np.testing.assert_allclose(levels[1:], levels[1], rtol=0.02)


def test_an_example_may_be_the_same_on_both_sides():
    settings = MixingSettings(mono=1.0)
    for stem in mixing.balance([noise(2, RATE), noise(2, RATE, 1)], RATE, settings, np.random.default_rng(0)):
        np.testing.assert_array_equal(stem[0], stem[1])


def test_some_examples_have_no_vocals():
    settings = MixingSettings(without_vocals=1.0)
    vocals, rest = mixing.balance([noise(2, RATE), noise(2, RATE, 1)], RATE, settings, np.random.default_rng(0))
    assert not vocals.any()
    assert rest.any()


def test_silence_is_mixed_without_nan():
    zero = np.zeros((2, RATE), np.float32)
    for pair in ((zero, noise(2, RATE)), (noise(2, RATE), zero), (zero, zero)):
        mixed = mixing.balance(list(pair), RATE, MixingSettings(), np.random.default_rng(0))
        assert all(np.isfinite(part).all() for part in mixed)
