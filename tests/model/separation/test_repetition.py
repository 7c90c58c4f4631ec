import numpy as np
import pytest
import torch

from model.separation import repetition
from model.separation.repetition import log_odds, use_repetition

BINS = 60


def song(frames=240, period=40, seed=0):
    """A riff that comes back every `period` frames, under a voice that does not: magnitudes and the voice's share."""
    rng = np.random.default_rng(seed)
    riff = np.tile(rng.gamma(1.0, 1.0, (period, BINS)), (frames // period + 1, 1))[:frames] + 1e-3
    voice = rng.gamma(1.0, 1.0, (frames, BINS)) * (rng.random((frames, BINS)) < 0.15) * 3
    mixture = riff + voice
    return as_channel(mixture), as_channel(voice / mixture)


def as_channel(array):
    return torch.from_numpy(array.astype(np.float32))[None]


def gain(magnitude, true, seed=0):
    """By how much the error of an unsure mask falls, as a factor."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(true.shape)).float()
    unsure = torch.sigmoid(0.3 * torch.logit(true.clamp(0.02, 0.98)) + noise)
    masks = unsure[None].clone()
    use_repetition(magnitude, masks, BINS)
    before, after = ((magnitude * (mask - true)).square().sum() for mask in (unsure, masks[0]))
    return float(before / after)


def test_masks_err_less_where_the_accompaniment_comes_back_and_hardly_change_where_nothing_does():
    returning, once = gain(*song(period=40)), gain(*song(period=240))
    assert returning > 1.25 * once
    assert once > 0.8


def test_the_expected_level_is_the_mean_over_other_frames_weighted_by_likeness():
    rng = np.random.default_rng(3)
    stem = rng.gamma(1.0, 1.0, (2, 50, BINS))
    gap, sharpness = 4, 20.0
    sound = np.sqrt(stem.sum(0)[:, 8:])
    padded = np.pad(sound, ((1, 1), (0, 0)))
    count = np.convolve(np.ones(50), np.ones(3), "same")[:, None]
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / count
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True)
    expected = np.zeros_like(stem)
    for frame in range(50):
        others = [other for other in range(50) if abs(other - frame) > gap]
        weights = np.exp(sharpness * np.array([smooth[frame] @ smooth[other] for other in others]))
        expected[:, frame] = np.einsum("f,cfb->cb", weights / weights.sum(), stem[:, others])
    given = repetition._expected(torch.from_numpy(stem).float(), gap, sharpness).numpy()
    assert np.abs(given - 2 * np.log(expected)).max() < 1e-3


def test_other_stems_keep_their_shares_of_what_the_vocals_leave():
    magnitude, voice = song()
    rng = np.random.default_rng(1)
    drums_of_rest = torch.from_numpy(rng.random(voice.shape).astype(np.float32))
    voice = voice.clamp(0.01, 0.99)
    masks = torch.stack([voice, drums_of_rest * (1 - voice)])
    use_repetition(magnitude, masks, BINS)
    assert not torch.allclose(masks[0], voice)
    assert torch.allclose(masks[1], drums_of_rest * (1 - masks[0]), atol=1e-5)
    assert masks.min() >= 0
    assert masks.sum(0).max() <= 1 + 1e-5


def test_only_the_lower_bins_change_and_none_where_the_preset_says_0():
    magnitude, voice = song()
    masks = voice[None].clone()
    use_repetition(magnitude, masks, 0)
    assert torch.equal(masks[0], voice)
    use_repetition(magnitude, masks, 20)
    assert torch.equal(masks[0, ..., 20:], voice[..., 20:])
    assert not torch.equal(masks[0, ..., :20], voice[..., :20])


@pytest.mark.parametrize("frames", [0, 1, 25])
def test_a_segment_too_short_to_repeat_keeps_its_masks(frames):
    magnitude, voice = song()
    masks = voice[None, :, :frames].clone()
    use_repetition(magnitude[:, :frames], masks, BINS)
    assert torch.equal(masks[0], voice[:, :frames])


@pytest.mark.parametrize("level", [0.0, 1e-12, 1e6])
def test_silence_and_any_level_give_masks(level):
    magnitude, voice = song(frames=60)
    for mask in (voice, torch.zeros_like(voice), torch.ones_like(voice)):
        masks = mask[None].clone()
        use_repetition(magnitude * level, masks, BINS)
        assert torch.isfinite(masks).all()
        assert masks.min() >= 0
        assert masks.max() <= 1


def test_the_evidence_does_not_depend_on_the_level_of_the_song():
    magnitude, voice = song()
    (_, soft), (_, loud) = (log_odds(magnitude * level, voice) for level in (1.0, 64.0))
    assert torch.allclose(soft, loud, atol=1e-3)
