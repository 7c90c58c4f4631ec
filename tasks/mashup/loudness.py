"""How loud the vocals are against the accompaniment, and how loud the mix may get."""

from functools import cache

import numpy as np
from scipy import ndimage
from scipy import signal as dsp

from model.scoring.meters import SILENCE_LUFS, LoudnessMeter, TruePeakMeter

DEFAULT_BALANCE = -1.0  # LU of the vocals against the accompaniment
CEILING_DB = -1.0  # dBTP, as streaming services require
_MOST_GAIN_DB = 15.0
_LOOKAHEAD = 0.005  # s
_STRETCH, _CONTEXT = 4096, 64  # samples
_OVERSHOOT = 1.6  # times its samples that music reaches between them, at most
_OVERSAMPLING = 4
_AUDIBLE_SECONDS = 10


def integrated(audio: np.ndarray, rate: int) -> float | None:
    """Integrated loudness in LUFS (ITU-R BS.1770-4), None where it is silent.

    Args:
        audio: (channels, samples).
        rate: Sample rate in Hz.
    """
    return LoudnessMeter.of(audio, rate).integrated()


def audible(audio: np.ndarray, rate: int) -> bool:
    """Whether any of it is above the absolute gate of BS.1770-4, so that it has a loudness; seldom listens to its end.

    Args:
        audio: (channels, samples).
        rate: Sample rate in Hz.
    """
    meter, size = LoudnessMeter(rate, audio.shape[0]), _AUDIBLE_SECONDS * rate
    for first in range(0, audio.shape[1], size):
        meter.push(audio[:, first : first + size])
        if meter.integrated() is not None:
            return True
    return False


def whole_song_gain(vocals: np.ndarray, accompaniment: np.ndarray, rate: int, balance: float) -> float:
    """The gain in dB that puts the vocals `balance` LU from the accompaniment; both gated, so pauses do not count.

    Args:
        vocals: (channels, samples).
        accompaniment: (channels, samples).
        rate: Sample rate of both, in Hz.
        balance: Loudness of the vocals less the accompaniment's, in LU.

    Returns:
        dB; 0 where either is silent.
    """
    return level_gain(integrated(vocals, rate), integrated(accompaniment, rate), balance)


def level_gain(vocals: float | None, accompaniment: float | None, balance: float) -> float:
    """The gain in dB that brings the vocals to their level over the accompaniment, 0 where either is silent.

    Args:
        vocals: Their loudness in LUFS, None for silence.
        accompaniment: Its loudness in LUFS, None for silence.
        balance: Loudness of the vocals less the accompaniment's, in LU.
    """
    return 0.0 if vocals is None or accompaniment is None else accompaniment + balance - vocals


def frame_gains(vocals: np.ndarray, accompaniment: np.ndarray, rate: int, balance: float) -> np.ndarray:
    """A gain that keeps the vocals `balance` LU from the accompaniment at every moment.

    The level of each is K-weighted over 400 ms blocks, 100 ms apart. Where either is silent the gain is interpolated
    between its neighbours; it stays within ±15 dB of the song's overall gain and is smoothed over half a second.

    Args:
        vocals: (channels, samples).
        accompaniment: (channels, samples), of the same length.
        rate: Sample rate of both, in Hz.
        balance: Loudness of the vocals less the accompaniment's, in LU.

    Returns:
        Factors to multiply the vocals by, float32 (samples,).
    """
    meters = [LoudnessMeter.of(audio, rate) for audio in (vocals, accompaniment)]
    middle = level_gain(meters[0].integrated(), meters[1].integrated(), balance)
    voice, backing = (meter.blocks() for meter in meters)
    if not len(voice):
        return np.full(vocals.shape[1], 10 ** (middle / 20), np.float32)
    loudest = voice.max(initial=SILENCE_LUFS)
    sounding = (voice > max(SILENCE_LUFS, loudest - 25)) & (backing > SILENCE_LUFS)
    gains = np.full(len(voice), middle)
    gains[sounding] = np.clip(
        backing[sounding] + balance - voice[sounding], middle - _MOST_GAIN_DB, middle + _MOST_GAIN_DB
    )
    if sounding.any():
        gains = np.interp(np.arange(len(gains)), np.flatnonzero(sounding), gains[sounding])
    smooth = ndimage.uniform_filter1d(gains, 5, mode="nearest")
    centres = (np.arange(len(smooth)) * 0.1 + 0.2) * rate
    return (10 ** (np.interp(np.arange(vocals.shape[1]), centres, smooth) / 20)).astype(np.float32)


def limiting_gain(mix: np.ndarray, rate: int, ceiling_db: float = CEILING_DB) -> np.ndarray:
    """The gain under which the mix's true peak stays at or below the ceiling; 1 where it does anyway.

    Peaks are those of the signal oversampled four times. The gain falls over the 5 ms before a peak and rises over
    the 5 ms after it; applied to every part of the mix, it leaves them summing to the limited mix.

    Args:
        mix: (channels, samples).
        rate: Sample rate in Hz.
        ceiling_db: The highest true peak, in dBTP.

    Returns:
        Factors, float32 (samples,), at most 1.
    """
    # Two ways of oversampling differ by some tenths of a decibel between the samples; the quarter allows for that.
    ceiling = 10 ** ((ceiling_db - 0.25) / 20)
    peaks = _peaks_above(mix, ceiling)
    if peaks is None:
        return np.ones(mix.shape[1], np.float32)
    needed = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-9))
    reach = max(1, round(_LOOKAHEAD * rate))
    held = ndimage.minimum_filter1d(needed, 2 * reach + 1, mode="nearest")
    window = np.hanning(2 * reach + 1)
    gain = dsp.oaconvolve(np.pad(held, reach, mode="edge"), window / window.sum(), mode="valid")
    return np.minimum(gain, 1.0).astype(np.float32)


def _peaks_above(mix: np.ndarray, ceiling: float) -> np.ndarray | None:
    """The largest magnitude at and around each sample, (samples,), oversampled four times; None where none exceeds.

    Only stretches that could exceed the ceiling between their samples are oversampled.
    """
    peaks = np.abs(mix).max(axis=0)
    stretches = range(0, mix.shape[1], _STRETCH)
    near = [first for first in stretches if peaks[first : first + _STRETCH].max() * _OVERSHOOT > ceiling]
    for first in near:
        begin = max(0, first - _CONTEXT)
        part = mix[:, begin : first + _STRETCH + _CONTEXT]
        between = dsp.resample_poly(part, _OVERSAMPLING, 1, axis=-1, window=_low_pass())
        largest = np.abs(between).max(axis=0).reshape(-1, _OVERSAMPLING).max(axis=1)
        inside = largest[first - begin :][:_STRETCH]
        peaks[first : first + len(inside)] = inside
    return peaks if (peaks > ceiling).any() else None


@cache
def _low_pass() -> np.ndarray:
    """The filter that `scipy.signal.resample_poly` would design anew at every call."""
    return dsp.firwin(20 * _OVERSAMPLING + 1, 1 / _OVERSAMPLING, window=("kaiser", 5.0)).astype(np.float32)


def true_peak(audio: np.ndarray) -> float | None:
    """The true peak in dBTP (ITU-R BS.1770-4, annex 2), None for silence.

    Args:
        audio: (channels, samples).
    """
    meter = TruePeakMeter(audio.shape[0])
    meter.push(audio)
    return meter.decibels()
