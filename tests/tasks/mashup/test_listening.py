"""Onsets, tempo, beats and pitch classes against librosa, which mash-ups are too short to import."""

import subprocess
import sys

import librosa
import numpy as np
import pytest
import soxr
from scipy import ndimage

from tasks.demo.synthesiser import RATE, compose
from tasks.mashup import chroma, loudness, onsets, pulse


@pytest.fixture(scope="module", params=[83.5, 128.3])
def mono(request):
    song = compose(11, 20.0, tempo=request.param).mixture.mean(axis=0, dtype=np.float32)
    return soxr.resample(song, RATE, onsets.ANALYSIS_RATE, "HQ")


@pytest.fixture(scope="module")
def envelopes(mono):
    power = np.square(np.abs(librosa.stft(mono, n_fft=1024, hop_length=onsets.HOP)))
    mel = librosa.feature.melspectrogram(S=power, sr=onsets.ANALYSIS_RATE, n_mels=96)
    level = librosa.power_to_db(mel, ref=np.max)
    return [librosa.onset.onset_strength(S=part, sr=onsets.ANALYSIS_RATE, center=False) for part in (level, level[:6])]


def test_onsets_are_those_of_librosa(mono, envelopes):
    for ours, theirs in zip(onsets.onset_envelopes(mono), envelopes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_filters_are_those_of_librosa():
    mel = librosa.filters.mel(sr=onsets.ANALYSIS_RATE, n_fft=1024, n_mels=96)
    np.testing.assert_allclose(onsets.mel_filters(), mel, atol=1e-8)
    for classes in (12, 36):
        theirs = librosa.filters.chroma(sr=11025, n_fft=4096, n_chroma=classes, tuning=0.0)
        ours = chroma.chroma_filters(classes)
        np.testing.assert_allclose(ours, theirs[:, : ours.shape[1]], atol=1e-7)


def test_tempo_and_beats_are_those_of_librosa(envelopes):
    envelope = envelopes[0]
    tempogram = librosa.feature.tempogram(onset_envelope=envelope, sr=onsets.ANALYSIS_RATE, hop_length=onsets.HOP)
    tempo = librosa.feature.tempo(tg=tempogram, sr=onsets.ANALYSIS_RATE, hop_length=onsets.HOP).item()
    assert pulse.tempo(envelope) == pytest.approx(tempo, rel=0.03)  # a lag further at most
    for tried in (tempo, 0.8 * tempo, 2 * tempo):
        _, beats = librosa.beat.beat_track(
            onset_envelope=envelope, sr=onsets.ANALYSIS_RATE, hop_length=onsets.HOP, bpm=tried, trim=False
        )
        np.testing.assert_array_equal(pulse.beat_frames(envelope, tried), beats)


def test_the_limiter_holds_the_least_gain_around_each_sample_and_smooths_it():
    gains = np.random.default_rng(0).uniform(0.2, 1.0, 20_000)
    window = np.hanning(441) / np.hanning(441).sum()
    least = loudness._least_within(gains, 220)
    np.testing.assert_array_equal(least, ndimage.minimum_filter1d(gains, 441, mode="nearest"))
    np.testing.assert_allclose(
        loudness._convolved(least, window), ndimage.convolve1d(least, window, mode="nearest"), atol=1e-12
    )


def test_a_mash_up_imports_neither_librosa_nor_scipy():
    code = "import tasks.mashup.render, sys; print(*{'librosa', 'scipy', 'numba', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
