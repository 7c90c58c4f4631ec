"""Our BSSEval and museval's on real songs."""

import numpy as np
import pytest

from model.scoring.bsseval import bss_eval
from model.scoring.museval_engine import museval_bss_eval
from storage.audio.reader import read

pytestmark = [pytest.mark.real]


def ours(references, estimates, rate):
    scores = bss_eval(references, estimates, rate)
    return np.stack([scores.sdr, scores.isr, scores.sir, scores.sar])


def farthest(scores, expected):
    """Largest difference of each score where both are finite, (4,)."""
    both = np.isfinite(scores) & np.isfinite(expected)
    return np.where(both, np.abs(np.where(both, scores - expected, 0)), 0).max(axis=(1, 2))


@pytest.mark.parametrize("song", ["011", "016", "019", "024", "026", "041", "045", "047", "049"])
def test_every_window_of_the_real_excerpts_is_musevals(shared_data, song):
    folder = shared_data / "dsd100_dev_excerpts" / song
    mixture, rate = read(folder / "mixture.flac")
    references = np.stack([read(folder / f"{stem}.flac")[0] for stem in ("vocals", "accompaniment")])
    system, _ = read(sorted((folder / "systems").iterdir())[0])
    for estimates in (np.stack([mixture, mixture]), np.stack([system, mixture - system])):
        scores, expected = ours(references, estimates, rate), museval_bss_eval(references, estimates, rate)
        np.testing.assert_array_equal(np.isnan(scores), np.isnan(expected))
        sdr, isr, sir, sar = farthest(scores, expected)
        assert sdr < 1e-9
        assert max(isr, sir, sar) < 1e-4


def test_four_lossy_stems_differ_no_more_than_museval_does_from_itself(shared_data):
    """AAC stems: museval's SIR and SAR move by hundredths of a dB when the stems come in another order."""
    (path,) = (shared_data / "stems_mp4").glob("The Easton*")
    stems = [read(path, stream=stream)[0] for stream in range(5)]
    samples = min(stem.shape[1] for stem in stems)
    mixture, *stems = (stem[:, :samples].astype(np.float64) for stem in stems)
    references = np.stack(stems)
    estimates = np.stack([0.9 * stem + 0.1 * mixture for stem in stems])
    scores, expected = ours(references, estimates, 44100), museval_bss_eval(references, estimates, 44100)
    turned = museval_bss_eval(references[::-1], estimates[::-1], 44100)[:, ::-1]
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(expected))
    difference, rounding = farthest(scores, expected), farthest(turned, expected)
    assert difference[0] < 1e-9
    assert (difference[1:] < np.maximum(0.01, 3 * rounding[1:])).all(), (difference, rounding)
