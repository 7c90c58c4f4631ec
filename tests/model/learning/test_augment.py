"""The batched augmentations against the first ones (`reference`), and against what their formulas say."""

import numpy as np
import pytest
import soxr
import torch
from scipy import signal as dsp

from model.learning import augment
from tests.model.learning import reference
from tests.signals import noise

RATE = 16000


class Drawn:
    """A generator that gives the numbers it was made with, so that both ways do the same."""

    def __init__(self, *values):
        self._values = iter(values)

    def uniform(self, low=0.0, high=1.0, size=None):
        value = next(self._values)
        return value if size is None else np.reshape(value, size)


def batch(channels=1, seed=0, samples=2 * RATE):
    """Two signals that get louder and softer."""
    swell = 0.6 + 0.4 * np.sin(np.arange(samples) / RATE * 5)
    return torch.from_numpy(np.stack([noise(channels, samples, seed + i) * swell for i in range(2)]).astype(np.float32))


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)


CHANGES = {
    "compress": lambda audio: augment.compress(audio, values(0.2, 0.4), values(2, 4)),
    "distort": lambda audio: augment.distort(audio, values(2, 8), values(0.5, 1)),
    "double": lambda audio: augment.double(
        audio, values([0.01, 0.02], [0.02, 0.03]), values([0.2, 0.5], [0.3, 0.6]), values([0, 0.5], [0.1, 0.9]),
        values(0.5, 0.2), RATE,
    ),
    "bells": lambda audio: augment.through(
        audio, augment.bells(values([500.0], [2000.0]), values([6.0], [-6.0]), values([1.0], [0.5]), RATE)
    ),
    "rooms": lambda audio: augment.through(audio, torch.ones(2, 9), *augment.rooms(
        torch.tensor([[0, 1], [2, 3]]), values(0.4, 2), values(3000, 6000), values(0, 0.05), values(0.3, 0.1), RATE
    )),
    "sides": lambda audio: augment.through(
        audio, torch.ones(2, 9),
        augment.sides(torch.tensor([[3, 9]] * 2), values([1, -1], [0.5, 1]), values(0.5, 1), 99),
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("channels", [1, 2])
def test_an_augmentation_keeps_length_and_leaves_its_argument_alone(change, channels):
    audio = batch(channels)
    before = audio.clone()
    changed = change(audio)
    assert changed.shape[-1] == audio.shape[-1]
    assert changed.dtype == torch.float32
    assert torch.isfinite(changed).all()
    assert torch.equal(audio, before)
    assert not torch.allclose(changed, audio.expand_as(changed))


def test_compression_is_that_of_the_reference():
    audio = batch(2)
    ours = augment.compress(audio, 10 ** (values(-18, -9) / 20), values(4, 2)).numpy()
    for mine, plain, drawn in zip(ours, audio.numpy(), [(-18, 4), (-9, 2)], strict=True):
        theirs = reference.compress(plain, RATE, Drawn(*drawn))
        assert np.std(theirs / np.where(plain, plain, 1)) > 0.02  # it does something
        assert np.square(mine - theirs).mean() < 1e-3 * np.square(theirs).mean()


def test_distortion_is_that_of_the_reference():
    audio = batch(2)
    ours = augment.distort(audio, 10 ** (values(4, 15) / 20), values(0.3, 0.9)).numpy()
    for mine, plain, drawn in zip(ours, audio.numpy(), [(4, 0.3), (15, 0.9)], strict=True):
        np.testing.assert_allclose(mine, reference.distort(plain, Drawn(*drawn), most_db=99), rtol=1e-3, atol=1e-5)


def test_silence_is_not_distorted():
    assert not augment.distort(torch.zeros(1, 2, 50), values(3), values(1)).any()


def test_a_doubled_voice_is_that_of_the_reference():
    audio = batch(1)
    ours = CHANGES["double"](audio).numpy()
    level = 20 * np.log10(0.5)
    theirs = reference.double(audio[0].numpy(), RATE, Drawn([0.01, 0.02], [0.2, 0.5], [0, 0.5], level))
    begun = slice(RATE // 30, None)  # the reference begins its copies between two samples, ours at one
    np.testing.assert_allclose(ours[0, :, begun], theirs[:, begun], atol=1e-3)


def test_a_maximisers_gain_is_that_of_the_reference():
    audio = batch(2)
    ours = augment.maximising_gain(audio, values(0.03, 0.05), 10 ** (values(-6, -2) / 20), RATE).numpy()
    for mine, plain, drawn in zip(ours, audio.numpy(), [(0.03, -6), (0.05, -2)], strict=True):
        theirs = reference.maximising_gain(plain, RATE, Drawn(*drawn))
        assert theirs.min() < 0.9
        inside = slice(RATE // 10, -RATE // 10)
        np.testing.assert_allclose(mine[0, inside], theirs[inside], atol=0.06)


def test_bells_have_the_cookbooks_response():
    """Against scipy's response of the biquads (RBJ audio EQ cookbook, peakingEQ)."""
    settings = [(300.0, 5.0, 0.7), (2500.0, -4.0, 1.2)]
    ours = augment.bells(*(values(list(column)) for column in zip(*settings, strict=True)), RATE)[0].numpy()
    response = np.ones(len(ours))
    for hertz, gain, width in settings:
        centre, amplitude = 2 * np.pi * hertz / RATE, 10 ** (gain / 40)
        alpha = np.sin(centre) / (2 * width)
        above = [1 + alpha * amplitude, -2 * np.cos(centre), 1 - alpha * amplitude]
        below = [1 + alpha / amplitude, -2 * np.cos(centre), 1 - alpha / amplitude]
        response *= np.abs(dsp.freqz(above, below, worN=np.linspace(0, np.pi, len(ours)))[1])
    np.testing.assert_allclose(ours, response, rtol=1e-3)
    tone = torch.sin(2 * np.pi * 300 * torch.arange(RATE) / RATE)[None, None]
    louder = augment.through(tone, torch.from_numpy(response).float()[None])[0, 0, RATE // 4 : -RATE // 4]
    assert 20 * np.log10(float(louder.abs().max())) == pytest.approx(5.0, abs=0.4)


@pytest.mark.parametrize("factor", [0.77, 1.0, 1.3])
def test_speed_is_that_of_a_resampler(factor):
    """soxr at its best quality, on sound below a sixth of the rate."""
    b = dsp.firwin(201, RATE / 6, fs=RATE)
    audio = dsp.lfilter(b, 1, noise(2, 3 * RATE), axis=-1).astype(np.float32)
    ours = augment.at_speed(torch.from_numpy(audio)[None], values(factor), 2 * RATE)[0].numpy()
    theirs = soxr.resample(np.ascontiguousarray(audio[:, 1:].T), RATE * factor, RATE, "VHQ").T[:, : 2 * RATE]
    inside = slice(500, -500)
    error = np.square(ours[:, inside] - theirs[:, inside]).mean() / np.square(theirs[:, inside]).mean()
    assert error < 0.01


def test_a_room_responds_after_its_delay_decays_as_given_and_has_the_energy_of_its_level():
    decay, delay, level = 0.5, 0.05, 0.3
    echoes, darkness = augment.rooms(
        torch.tensor([[4, 5]]), values(decay), values(2000), values(delay), values(level), RATE
    )
    response = augment.through(torch.nn.functional.pad(torch.ones(1, 1, 1), (RATE // 2, 2 * RATE)), torch.ones(1, 9),
                               echoes, darkness)[0].double().numpy()  # fmt: skip
    wet = response[:, RATE // 2 + 1 :]
    assert np.square(wet[:, : int(0.9 * delay * RATE)]).sum() < 1e-3 * np.square(wet).sum()
    assert np.sqrt(np.square(wet).sum(-1)) == pytest.approx([level, level], rel=0.1)
    energies = [np.square(wet[:, int((delay + at) * RATE) :][:, : RATE // 10]).sum() for at in (0.0, 0.25)]
    assert 10 * np.log10(energies[0] / energies[1]) == pytest.approx(60 * 0.25 / decay, abs=4)
    spectrum = np.abs(np.fft.rfft(wet)).mean(0)
    hertz = np.fft.rfftfreq(wet.shape[1], 1 / RATE)
    low, high = spectrum[(hertz > 100) & (hertz < 500)].mean(), spectrum[hertz > 6000].mean()
    assert high < 0.4 * low


def test_widening_leaves_the_sum_of_the_channels_alone():
    audio = batch(1)
    wide = CHANGES["sides"](audio)
    torch.testing.assert_close(wide.mean(1, keepdim=True), audio, atol=1e-5, rtol=1e-4)
    assert (wide[:, 0] - wide[:, 1]).abs().max() > 0.01


def test_the_level_is_that_of_the_louder_half():
    audio = torch.cat([torch.zeros(1, 1, RATE), torch.ones(1, 1, RATE)], -1)
    assert float(augment.level(audio, RATE)) == pytest.approx(1.0)
    assert float(augment.level(torch.zeros(1, 1, RATE), RATE)) == 0
