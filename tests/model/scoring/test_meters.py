import numpy as np
import pyloudnorm
import pytest
from scipy import signal as dsp

from model.scoring.meters import LoudnessMeter, TruePeakMeter, activity, oversampling_filter
from model.scoring.weighting import KWeighting, sections
from tests.signals import noise


def measured(meter, audio, size):
    for start in range(0, audio.shape[1], size):
        meter.push(audio[:, start : start + size])
    return meter


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_loudness_in_blocks_is_pyloudnorms_of_the_complete_signal(rate, channels):
    swell = np.repeat(10 ** (np.random.default_rng(0).uniform(-40, 0, 12) / 20), rate)
    audio = noise(channels, rate * 12) * swell
    ours = measured(LoudnessMeter(rate, channels), audio, 7777).integrated()
    theirs = pyloudnorm.Meter(rate).integrated_loudness(audio.T.astype(np.float64))
    assert ours == pytest.approx(theirs, abs=0.02)


def test_a_sum_is_measured_by_what_its_parts_are_weighted_to():
    parts = [noise(2, 44100 * 3) * level for level in (1.0, 0.3)]
    meters = [LoudnessMeter(44100, 2) for _ in parts]
    together = LoudnessMeter(44100, 2)
    for start in range(0, 44100 * 3, 9999):
        together.add(sum(m.weighted(part[:, start : start + 9999]) for m, part in zip(meters, parts, strict=True)))
    np.testing.assert_allclose(together.blocks(), LoudnessMeter.of(sum(parts), 44100).blocks(), atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_the_weighting_filters_are_pyloudnorms(rate):
    theirs = np.array([[*stage.b, *stage.a] for stage in pyloudnorm.Meter(rate)._filters.values()])
    np.testing.assert_allclose(sections(rate), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 31, 32, 33, 5000), (40000,), (7, 2048, 1024, 0, 3)])
def test_weighting_in_blocks_is_the_recursive_filter(sizes):
    audio = noise(2, sum(sizes))
    weighting, start, parts = KWeighting(44100, 2), 0, []
    for size in sizes:
        parts.append(weighting.push(audio[:, start : start + size]))
        start += size
    np.testing.assert_allclose(np.concatenate(parts, axis=1), dsp.sosfilt(sections(44100), audio), atol=1e-9)


def test_the_oversampling_filter_is_a_windowed_sinc():
    np.testing.assert_allclose(oversampling_filter(), dsp.firwin(48, 1 / 4, window=("kaiser", 5.0)) * 4, atol=1e-12)


def test_the_peak_between_samples_is_that_of_the_oversampled_signal():
    audio = noise(2, 9000)
    oversampled = dsp.upfirdn(oversampling_filter(), audio, up=4, axis=-1)[:, : 4 * audio.shape[1]]
    expected = 20 * np.log10(max(np.abs(audio).max(), np.abs(oversampled).max()))
    assert measured(TruePeakMeter(2), audio, 2500).decibels() == pytest.approx(expected, abs=1e-9)


def test_silence_has_no_loudness_and_no_peak():
    assert measured(LoudnessMeter(44100, 2), np.zeros((2, 44100)), 5000).integrated() is None
    assert measured(TruePeakMeter(2), np.zeros((2, 44100)), 5000).decibels() is None


def test_the_peak_between_samples_is_found():
    """A sine at a quarter of the rate whose samples all miss its top by 3 dB."""
    audio = np.sin(np.pi / 2 * np.arange(48000) + np.pi / 4)[None] * 0.5
    assert 20 * np.log10(np.abs(audio).max()) == pytest.approx(-9.03, abs=0.01)
    assert measured(TruePeakMeter(1), audio, 48000).decibels() == pytest.approx(-6.02, abs=0.2)


def test_passing_over_quiet_stretches_does_not_change_the_peak():
    audio = noise(2, 60000) * np.linspace(0.05, 1, 60000, dtype=np.float32)
    exhaustive = TruePeakMeter(2)
    exhaustive._gain = np.inf  # nothing is ever passed over
    assert measured(TruePeakMeter(2), audio, 9001).decibels() == measured(exhaustive, audio, 9001).decibels()


def test_activity_is_the_share_of_blocks_near_the_mixture():
    blocks = np.array([-20.0, -25.0, -60.0, -np.inf])
    assert activity(blocks, -18.0) == 0.5
    assert activity(blocks, None) is None
