import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.spectra.frontend import FrontEnd, analysis, spectrogram, waveform

DEFAULT = FrontEnd(44100, 4096, 1024)


@given(rate=st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 192000]))
def test_bins_keep_their_spacing_in_hz_at_every_rate(rate):
    front_end = DEFAULT.at_rate(rate)
    assert front_end.hop * 4 == front_end.n_fft
    assert rate / front_end.n_fft == pytest.approx(44100 / 4096, rel=0.006)


@settings(deadline=None, max_examples=25)
@given(samples=st.integers(1, 9000), n_fft=st.sampled_from([64, 744, 1024]))
def test_a_signal_comes_back_from_its_spectrogram(samples, n_fft):
    front_end = FrontEnd(44100, n_fft, n_fft // 4)
    signal = torch.from_numpy(np.random.default_rng(samples).standard_normal((2, samples)).astype(np.float32))
    spectrum = spectrogram(signal, front_end)
    assert spectrum.shape == (2, front_end.frames(samples), n_fft // 2 + 1)
    torch.testing.assert_close(waveform(spectrum, front_end, samples), signal, atol=2e-6, rtol=0)


def test_frames_are_scipys():
    signal = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    ours = analysis(torch.from_numpy(signal)[None], 1024, 256).numpy()[0]
    window = scipy.signal.get_window("hann", 1024)
    transform = scipy.signal.ShortTimeFFT(window, 256, 44100)
    theirs = transform.stft(signal, p0=2, p1=2 + len(ours)).T  # its frame p is centred on sample p · hop
    # scipy references phase to the window's centre, ours to its start.
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=2e-4)


def test_an_empty_signal_has_no_frames():
    assert spectrogram(torch.zeros(1, 0), DEFAULT).shape == (1, 0, 2049)


@pytest.mark.parametrize("leading", [(), (3,), (5, 4), (40,)])
def test_frames_of_many_signals_are_those_of_each(leading):
    """On a CPU the more signals there are, the fewer frames are worked on at a time."""
    torch.manual_seed(0)
    signals = torch.randn(*leading, 2, 512 * 23)
    together = analysis(signals, 2048, 512)
    one_by_one = [analysis(signal, 2048, 512) for signal in signals.reshape(-1, 1, signals.shape[-1])]
    torch.testing.assert_close(together, torch.stack(one_by_one).reshape(together.shape), rtol=0, atol=0)
