import numpy as np
import pytest
import torch

from model.separation.spatial import stem_spectra


def complex_noise(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def placed(rng, left, right, frames=150, bins=12):
    """A source at one place: (2, frames, bins)."""
    return np.stack([left, right])[:, None, None] * complex_noise(rng, frames, bins)


def as_tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, np.complex64 if np.iscomplexobj(array) else np.float32))


def error(estimate, true):
    return float(np.sum(np.abs(estimate - true) ** 2) / np.sum(np.abs(true) ** 2))


@pytest.mark.parametrize("stems", [2, 4])
def test_the_filter_is_the_formula_of_the_literature(stems):
    rng = np.random.default_rng(stems)
    mixture = sum(placed(rng, np.cos(a), np.sin(a)) for a in np.linspace(0.2, 1.4, stems))
    masks = rng.dirichlet(np.ones(stems), (2, *mixture.shape[1:])).transpose(3, 0, 1, 2)
    amplitude = np.abs(masks * mixture).sum(1)
    share = amplitude / amplitude.sum(0)
    of_stems = share[:, None] * mixture
    expected = np.zeros((stems - 1, *mixture.shape), complex)
    for bin in range(mixture.shape[2]):
        near = slice(max(0, bin - 2), bin + 3)
        direction = []
        for stem in of_stems:
            heard = np.einsum("ctb,dtb->cd", stem[..., near], stem[..., near].conj())
            direction.append(0.99 * 2 * heard / np.trace(heard) + 0.01 * np.eye(2))
        for frame in range(mixture.shape[1]):
            weighted = [share[j, frame, bin] * direction[j] for j in range(stems)]
            filtered = np.linalg.inv(sum(weighted)) @ mixture[:, frame, bin]
            for j in range(stems - 1):
                expected[j, :, frame, bin] = weighted[j] @ filtered
    given = stem_spectra(as_tensor(mixture), as_tensor(masks[:-1]), mixture.shape[2]).numpy()
    assert np.abs(given - expected).max() < 1e-3 * np.abs(expected).max()


def test_stems_from_different_places_are_told_apart_where_a_mask_cannot():
    rng = np.random.default_rng(0)
    voice, guitar = placed(rng, 1.0, 1.0), placed(rng, 1.0, 0.1)
    ideal = np.abs(voice) / (np.abs(voice) + np.abs(guitar))
    masked = error(ideal * (voice + guitar), voice)
    filtered = stem_spectra(as_tensor(voice + guitar), as_tensor(ideal[None]), voice.shape[2]).numpy()[0]
    assert error(filtered, voice) < 0.65 * masked


@pytest.mark.parametrize("frames", [1, 40])
def test_of_a_mono_song_the_filter_is_the_mask(frames):
    rng = np.random.default_rng(1)
    channel, masks = complex_noise(rng, frames, 12), rng.random((2, frames, 12))
    mixture = np.stack([channel, channel])
    filtered = stem_spectra(as_tensor(mixture), as_tensor(masks[None]), 12).numpy()[0]
    assert error(filtered, masks.mean(0) * mixture) < 1e-9


def test_other_bins_and_other_channel_counts_are_masked():
    rng = np.random.default_rng(2)
    for channels in (1, 2, 3):
        mixture, mask = as_tensor(complex_noise(rng, channels, 30, 12)), as_tensor(rng.random((1, channels, 30, 12)))
        given = stem_spectra(mixture, mask, 5)
        untouched = slice(5, None) if channels == 2 else slice(None)
        assert torch.equal(given[..., untouched], (mixture * mask)[..., untouched])
        assert channels != 2 or not torch.allclose(given[..., :5], (mixture * mask)[..., :5], rtol=0.01)


@pytest.mark.parametrize("level", [0.0, 1e-18, 1e-9, 1e4])
def test_silence_and_extreme_levels_stay_finite_and_in_proportion(level):
    rng = np.random.default_rng(3)
    mixture, masks = complex_noise(rng, 2, 20, 12), rng.random((1, 2, 20, 12))
    masks[..., :4] = np.round(masks[..., :4])  # a stem that has everything or nothing
    mixture[:, 5:8] = 0
    given = stem_spectra(as_tensor(level * mixture), as_tensor(masks), 12)
    assert given.isfinite().all()
    if level > 1e-10:
        alike = level * stem_spectra(as_tensor(mixture), as_tensor(masks), 12)
        assert (given - alike).abs().max() < 1e-3 * alike.abs().max()
