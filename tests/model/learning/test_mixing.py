import numpy as np
import pytest
import torch

from model.learning import mixing
from model.learning.mixing import Balance, Parts, Source, Treatment
from model.preset import MixingSettings
from tests.signals import noise

RATE = 16000
PLAIN = Balance(mono=False, part_db=(0.0,), vocal_db=0.0, without="", maximiser=None, loudness_db=0.0)
EVERYTHING = MixingSettings(
    equalise=1.0, reverberate=1.0, double=1.0, compress=1.0, widen=1.0, distort=1.0, distort_voice=1.0
)


def source(signal, stem, **fields):
    padded = np.pad(signal, ((0, 0), (1, mixing.MARGIN)))  # the resampling begins with the second sample
    return Source(torch.from_numpy(padded), stem, Treatment(), **fields)


def mixed(signals, settings=None, seed=0):
    """The stems of one example, of signals as they are, balanced as settings say."""
    drawn = mixing.balance(settings or MixingSettings(), np.random.default_rng(seed), len(signals))
    parts = Parts(tuple(source(signal, stem) for stem, signal in enumerate(signals)), drawn)
    return mixing.mixed([parts], len(signals), signals[0].shape[1], RATE)[0].numpy()


def drawn_example(seed, mono):
    """An example of two signals to which everything is done."""
    random = np.random.default_rng(seed)
    treatments = [
        mixing.voice_treatment(EVERYTHING, random, RATE),
        mixing.backing_treatment(EVERYTHING, random, RATE, 1),
    ]
    sources = tuple(
        Source(torch.from_numpy(noise(1, 2 * RATE + 8, seed * 10 + stem)), stem, treatment)
        for stem, treatment in enumerate(treatments)
    )
    balance = mixing.balance(
        MixingSettings(mono=float(mono), maximise=1.0, without_vocals=0, without_backing=0), random, 2
    )
    return Parts(sources, balance)


def test_levels_are_set_against_each_other():
    settings = MixingSettings(vocal_db=(-6.0, -6.0), without_vocals=0, without_backing=0)
    vocals, rest = mixed([noise(2, RATE), 0.3 * noise(2, RATE, 1)], settings)
    level = lambda audio: np.sqrt(np.square(audio).mean())  # noqa: E731
    assert 20 * np.log10(level(vocals) / level(rest)) == pytest.approx(-6, abs=0.3)
    assert np.abs(vocals + rest).max() <= 1.0 + 1e-6


def test_stems_that_nothing_is_done_to_are_their_sources_but_for_a_gain():
    signals = [noise(2, RATE), noise(2, RATE, 1)]
    for stem, signal in zip(mixed(signals, MixingSettings(without_vocals=0, without_backing=0)), signals, strict=True):
        gain = (stem * signal).sum() / np.square(signal).sum()
        np.testing.assert_allclose(stem, gain * signal, atol=1e-6)


def test_maximising_changes_both_stems_by_one_gain():
    settings = MixingSettings(maximise=1.0, without_vocals=0, without_backing=0)
    vocals, rest = noise(2, RATE, 1), noise(2, RATE, 2)
    loud_vocals, loud_rest = mixed([vocals, rest], settings, seed=3)
    gains = (loud_vocals / np.where(vocals == 0, np.nan, vocals), loud_rest / np.where(rest == 0, np.nan, rest))
    ratio = gains[0] / gains[1]
    assert np.nanstd(ratio) / np.nanmean(ratio) < 1e-3
    assert np.nanstd(gains[0]) > 0


def test_the_parts_of_a_backing_are_set_against_each_other_from_one_level():
    settings = MixingSettings(part_db=(0.0, 0.0), without_vocals=0, without_backing=0)
    parts = [noise(2, RATE), 0.1 * noise(2, RATE, 1), 0.8 * noise(2, RATE, 2), 0.4 * noise(2, RATE, 3)]
    levels = [np.sqrt(np.square(stem).mean()) for stem in mixed(parts, settings)]
    np.testing.assert_allclose(levels[1:], levels[1], rtol=0.02)


def test_a_second_voice_comes_at_its_level_against_the_first():
    first, second, backing = noise(2, RATE), 0.1 * noise(2, RATE, 1), noise(2, RATE, 2)
    alone, both = (
        mixing.mixed([Parts((source(first, 0), source(backing, 1), *more), PLAIN)], 2, RATE, RATE)[0].numpy()
        for more in ((), (source(second, 0, against_db=-6.0),))
    )
    gain = (alone[1] * both[1]).sum() / np.square(alone[1]).sum()  # of the whole, by the louder peak
    vocals = [stems[0] / stems[1].std() for stems in (alone, both)]
    assert gain > 0
    # Vocals are set to the level of the backing again: 1² + 0.5² parts of energy in place of 1².
    shares = [(voice * first).sum() / np.square(first).sum() for voice in vocals]
    assert (shares[1] / shares[0]) ** 2 == pytest.approx(1 / 1.25, rel=0.03)


def test_an_example_may_be_the_same_on_both_sides():
    for stem in mixed([noise(2, RATE), noise(2, RATE, 1)], MixingSettings(mono=1.0)):
        np.testing.assert_array_equal(stem[0], stem[1])


def test_some_examples_have_no_vocals():
    vocals, rest = mixed([noise(2, RATE), noise(2, RATE, 1)], MixingSettings(without_vocals=1.0))
    assert not vocals.any()
    assert rest.any()


def test_silence_is_mixed_without_nan():
    zero = np.zeros((2, RATE), np.float32)
    for pair in ((zero, noise(2, RATE)), (noise(2, RATE), zero), (zero, zero)):
        assert np.isfinite(mixed(list(pair))).all()


def test_an_example_is_the_same_alone_and_in_a_batch():
    """Of an example all is drawn by its number, so that nothing depends on its neighbours."""
    examples = [drawn_example(seed, mono=seed % 2 == 0) for seed in range(4)]
    together = mixing.mixed(examples, 2, 2 * RATE, RATE)
    alone = torch.cat([mixing.mixed([example], 2, 2 * RATE, RATE) for example in examples])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(together).all()
    assert (together.abs().amax((2, 3)) > 0).all()


def test_what_is_drawn_follows_from_the_generator_alone():
    first, again = (drawn_example(5, mono=False) for _ in range(2))
    assert [each.treatment for each in first.sources] == [each.treatment for each in again.sources]
    assert first.balance == again.balance
