"""BSSEval against museval itself, on what is easy, what is odd, and what museval cannot do."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch.profiler import ProfilerActivity, profile

import model.scoring.bsseval as module
from model.scoring import normal_equations
from model.scoring.bsseval import bss_eval, bss_eval_systems
from model.scoring.museval_engine import museval_bss_eval

RATE = 8000


def white(stems, channels, seconds, seed=0):
    return np.random.default_rng(seed).standard_normal((stems, channels, int(RATE * seconds))) * 0.1


def estimates_of(references, seed=9):
    noisy = references + 0.03 * np.random.default_rng(seed).standard_normal(references.shape)
    return noisy + 0.2 * np.roll(references, 1, axis=0) + 0.1 * np.roll(references, 37, axis=2)


def ours(references, estimates, window=RATE):
    scores = bss_eval(references, estimates, window)
    return np.stack([scores.sdr, scores.isr, scores.sir, scores.sar])


def assert_equal(references, estimates, tolerance=1e-4, window=RATE):
    scores, expected = ours(references, estimates, window), museval_bss_eval(references, estimates, window)
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(scores[0][finite[0]], expected[0][finite[0]], atol=1e-9)
    np.testing.assert_allclose(scores[finite], expected[finite], atol=tolerance)
    return expected


@pytest.mark.parametrize(("stems", "channels"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 2), (3, 3)])
def test_any_number_of_stems_and_channels(stems, channels):
    references = white(stems, channels, 3.4)
    assert_equal(references, estimates_of(references), tolerance=1e-9)


@pytest.mark.parametrize("window", [700, 4410, 8000, 44100])
def test_any_window(window):
    references = white(2, 2, 6.1)
    assert_equal(references, estimates_of(references), window=window)


def test_the_dropped_tail_shapes_the_filters_all_the_same():
    references = white(2, 2, 3.9)
    references[:, :, 3 * RATE :] *= 20
    assert ours(references, estimates_of(references)).shape == (4, 2, 3)
    assert_equal(references, estimates_of(references))


@pytest.mark.parametrize("whose", ["reference", "estimate", "anti-phase"])
def test_a_silent_window_is_silent_for_all(whose):
    references = white(3, 2, 4)
    estimates = estimates_of(references)
    span = slice(RATE, 2 * RATE)
    if whose == "reference":
        references[1, :, span] = 0
    elif whose == "estimate":
        estimates[1, :, span] = 0
    else:
        references[1, 1, span] = -references[1, 0, span]
    expected = assert_equal(references, estimates)
    assert np.isnan(expected[:, :, 1]).all()
    assert np.isfinite(expected[:, :, [0, 2, 3]]).all()


def test_one_sample_of_sound_is_no_silence():
    references = white(2, 2, 3)
    references[0, :, RATE : 2 * RATE] = 0
    references[0, 0, RATE + 5] = 1e-3
    expected = assert_equal(references, estimates_of(references))
    assert np.isfinite(expected[:, :, 1]).all()


def test_the_mixture_as_estimate_where_there_are_no_artifacts():
    references = white(2, 2, 4)
    mixture = np.broadcast_to(references.sum(axis=0), references.shape)
    scores, expected = ours(references, mixture), museval_bss_eval(references, mixture, RATE)
    np.testing.assert_allclose(scores[:3], expected[:3], atol=1e-9)
    assert min(scores[3].min(), expected[3].min()) > 200  # what is left is rounding, theirs and ours


@pytest.mark.parametrize("level", [-60, -90, -110, -130])
def test_artifacts_far_below_the_estimate_are_not_lost_in_rounding(level):
    references = white(2, 2, 3)
    estimates = references + 10 ** (level / 20) * white(2, 2, 3, seed=4)
    expected = assert_equal(references, estimates)
    assert expected[3].mean() == pytest.approx(-level, abs=1)


def test_a_perfect_estimate_is_infinite():
    references = white(2, 2, 2)
    assert np.isposinf(ours(references, references)[0]).all()
    assert np.isposinf(museval_bss_eval(references, references, RATE)[0]).all()


def test_dual_mono_is_scored_as_one_channel_where_museval_may_fail():
    mono = white(2, 1, 3)
    dual = np.repeat(mono, 2, axis=1)
    noise = 0.01 * white(2, 1, 3, seed=5)
    scores = ours(dual, dual + np.repeat(noise, 2, axis=1))
    np.testing.assert_allclose(scores, ours(mono, mono + noise), atol=1e-6)


def test_linearly_dependent_references_have_finite_scores():
    references = np.repeat(white(2, 1, 3), 2, axis=1)
    references[:, 1] *= 0.5
    scores = ours(references, references + 0.01 * white(2, 2, 3, seed=5))
    mono = ours(references[:, :1], references[:, :1] + 0.01 * white(2, 2, 3, seed=5)[:, :1])
    assert np.isfinite(scores).all()
    assert np.abs(scores[0] - mono[0]).max() < 4


def test_a_silent_stem_has_no_score_in_any_window():
    references = white(2, 2, 3)
    references[1] = 0
    assert np.isnan(ours(references, estimates_of(references))).all()
    with pytest.raises(ValueError, match="silent"):
        museval_bss_eval(references, estimates_of(references), RATE)


def test_a_song_shorter_than_a_window_has_no_windows():
    references = white(2, 2, 0.5)
    assert ours(references, estimates_of(references)).shape == (4, 2, 0)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        bss_eval(white(2, 2, 1), white(2, 1, 1), RATE)


def test_band_limited_material_differs_no_more_than_museval_does_from_itself():
    """8 kHz of 44.1: the correlation matrix is singular but for rounding, museval's figures wander with it."""
    band = scipy.signal.butter(8, 8000, fs=44100, output="sos")
    references = scipy.signal.sosfiltfilt(band, np.random.default_rng(1).standard_normal((2, 2, 44100 * 2)) * 0.1)
    estimates = references + 0.1 * np.roll(references, 1, axis=0)
    estimates += 0.02 * np.random.default_rng(2).standard_normal(references.shape)
    scores, expected = ours(references, estimates, 44100), museval_bss_eval(references, estimates, 44100)
    turned = museval_bss_eval(references[::-1], estimates[::-1], 44100)[:, ::-1]
    np.testing.assert_allclose(scores[0], expected[0], atol=1e-9)
    for index in (1, 2, 3):
        rounding = np.abs(turned[index] - expected[index]).max()
        assert np.abs(scores[index] - expected[index]).max() < max(1e-2, 3 * rounding)


def test_long_songs_are_computed_in_two_passes_with_the_same_result(monkeypatch):
    references = white(2, 2, 9.5)
    kept = ours(references, estimates_of(references))
    monkeypatch.setattr(module, "_KEEP_BYTES", 0)
    np.testing.assert_array_equal(ours(references, estimates_of(references)), kept)


def test_single_precision_signals_are_scored_in_double():
    references = white(2, 2, 3).astype(np.float32)
    estimates = estimates_of(references).astype(np.float32)
    np.testing.assert_array_equal(
        ours(references, estimates), ours(references.astype(np.float64), estimates.astype(np.float64))
    )


def test_systems_scored_together_have_the_scores_they_have_alone():
    references = white(2, 2, 3, seed=1)
    systems = [references + 0.3 * white(2, 2, 3, seed=seed) for seed in (2, 3, 4)]
    systems[1][:, :, RATE : 2 * RATE] = 0  # silent in one window, which is no other system's silence
    together = bss_eval_systems(references, systems, RATE)
    for scores, estimates in zip(together, systems, strict=True):
        alone = bss_eval(references, estimates, RATE)
        for name in ("sdr", "isr", "sir", "sar"):
            np.testing.assert_allclose(getattr(scores, name), getattr(alone, name), atol=1e-7)
    assert np.isnan(together[1].sdr[:, 1]).all()
    assert not np.isnan(together[0].sdr).any()


def test_the_references_are_factorised_once_for_all_systems(monkeypatch):
    references = white(2, 2, 2, seed=1)
    systems = [references + 0.1 * white(2, 2, 2, seed=seed) for seed in (2, 3, 4, 5)]
    solved = []
    solve = normal_equations._solve
    monkeypatch.setattr(normal_equations, "_solve", lambda *equations: solved.append(1) or solve(*equations))
    bss_eval_systems(references, systems, RATE)
    assert len(solved) == 3  # all references together, and each stem's own


def test_the_normal_equations_are_solved_with_one_matrix_in_memory():
    references = 512 * 2
    matrix = torch.eye(references, dtype=torch.float64) + 1e-4
    right = torch.ones(references, 3, dtype=torch.float64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        solution = normal_equations._solve(matrix.clone, right)
    np.testing.assert_allclose(matrix @ solution, right, atol=1e-9)
    changes = [event.nbytes() for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert max(np.cumsum(changes)) < 1.2 * matrix.nbytes
