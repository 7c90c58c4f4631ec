import numpy as np
import pytest

from model.scoring.museval_engine import museval
from model.scoring.scores import fitted_gain, score, si_sdr, usdr, window_sdr
from tests.signals import noise

RATE = 8000  # the rate only sets the window's length


def museval_sdr(references, estimates):
    """museval's SDR with our windows: (stems, windows). NaN for what it calls silent, inf or −inf for perfect."""
    stack = lambda signals: np.stack([signal.T for signal in signals.values()])  # noqa: E731
    return museval().metrics.bss_eval(
        stack(references), stack(estimates), window=RATE, hop=RATE, compute_permutation=False, filters_len=32,
        framewise_filters=False, bsseval_sources_version=False,
    )[0]  # fmt: skip


def material(kind):
    vocals, rest = noise(2, int(RATE * 4.6), 1), noise(2, int(RATE * 4.6), 2)
    estimate, other = vocals + 0.2 * noise(2, vocals.shape[1], 3), rest + 0.1 * vocals
    if kind == "silent window":
        vocals[:, RATE : 2 * RATE] = 0
    elif kind == "anti-phase window":
        rest[1, RATE : 2 * RATE] = -rest[0, RATE : 2 * RATE]
    elif kind == "silent estimate":
        estimate[:, 2 * RATE : 3 * RATE] = 0
    return {"vocals": vocals, "accompaniment": rest}, {"vocals": estimate, "accompaniment": other}


@pytest.mark.parametrize("kind", ["plain", "silent window", "anti-phase window", "silent estimate"])
def test_sdr_of_every_window_is_musevals(kind):
    references, estimates = material(kind)
    ours = np.stack(list(window_sdr(references, estimates, RATE).values()))
    theirs = museval_sdr(references, estimates)
    assert ours.shape == theirs.shape == (2, 4)  # the last 0.6 s are dropped
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-9, equal_nan=True)


def test_a_track_is_the_median_of_its_windows():
    references, estimates = material("silent window")
    result = score(references, estimates, RATE).stems["vocals"]
    windows = window_sdr(references, estimates, RATE)["vocals"]
    assert result.sdr == pytest.approx(np.nanmedian(windows), abs=1e-9)
    assert result.sdr_mean == pytest.approx(np.nanmean(windows), abs=1e-9)
    assert (result.windows, result.silent_windows) == (4, 1)


def test_what_has_no_score_is_none():
    short = {"vocals": noise(2, RATE // 2)}
    assert score(short, short, RATE).stems["vocals"].sdr is None
    silent = {"vocals": np.zeros((2, RATE * 2), np.float32)}
    result = score(silent, silent, RATE).stems["vocals"]
    assert (result.sdr, result.usdr, result.si_sdr, result.silent_windows) == (None, None, None, 2)


def test_a_perfect_estimate_has_no_finite_score():
    references, _ = material("plain")
    assert score(references, references, RATE).stems["vocals"].sdr is None


def test_si_sdr_forgives_a_gain_and_usdr_does_not():
    reference, estimate = noise(2, 5000, 1), noise(2, 5000, 1) + 0.1 * noise(2, 5000, 2)
    assert si_sdr(reference, 3 * estimate) == pytest.approx(si_sdr(reference, estimate))
    assert usdr(reference, 3 * estimate) < usdr(reference, estimate)


def test_the_fitted_gain_is_the_best_one():
    reference, estimate = noise(1, 3000, 1), 0.3 * noise(1, 3000, 1) + 0.05 * noise(1, 3000, 2)
    best = fitted_gain(reference, estimate)
    error = lambda gain: np.square(reference - gain * estimate).sum()  # noqa: E731
    assert error(best) < min(error(best * 1.01), error(best * 0.99))


def test_stems_or_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="stems differ"):
        window_sdr({"vocals": noise(1, 10)}, {"bass": noise(1, 10)}, RATE)
    with pytest.raises(ValueError, match="shape"):
        window_sdr({"vocals": noise(1, 10)}, {"vocals": noise(1, 11)}, RATE)


@pytest.mark.parametrize("engine", ["bsseval", "sdr", "museval"])
def test_the_engines_agree_on_what_they_all_compute(engine):
    references, estimates = material("silent window")
    result, ours = (score(references, estimates, RATE, engine=e).stems for e in (engine, "bsseval"))
    for stem in references:
        assert result[stem].sdr == pytest.approx(ours[stem].sdr, abs=1e-9)
        assert result[stem].usdr == ours[stem].usdr
        if engine == "museval":
            for name in ("isr", "sir", "sar"):
                assert getattr(result[stem], name) == pytest.approx(getattr(ours[stem], name), abs=1e-4)


def test_magnitude_errors_are_those_of_librosas_spectrograms():
    import librosa

    from model.scoring.scores import magnitude_errors

    reference, estimate = noise(2, 44100 * 3, 1), noise(2, 44100 * 3, 1) + 0.3 * noise(2, 44100 * 3, 2)
    pad = ((0, 0), (3072, 4096))
    ours, theirs = (
        np.abs(librosa.stft(np.pad(x, pad), n_fft=4096, hop_length=1024, center=False)) for x in (reference, estimate)
    )
    mse, snr = magnitude_errors(reference, estimate, 44100)
    assert mse == pytest.approx(np.mean((ours - theirs) ** 2), rel=0.02)
    assert snr == pytest.approx(10 * np.log10((ours**2).sum() / ((ours - theirs) ** 2).sum()), abs=0.05)
