"""How loud the vocals are against the accompaniment, and how loud the mix may get."""

import numpy as np
import torch

from model.scoring.meters import SILENCE_LUFS, LoudnessMeter, TruePeakMeter, oversampling_phases

DEFAULT_BALANCE = -1.0  # LU of the vocals against the accompaniment
CEILING_DB = -1.0  # dBTP, as streaming services require
_MOST_GAIN_DB = 15.0
_LOOKAHEAD = 0.005  # s
_STRETCH = 4096  # samples
_OVERSHOOT = 1.6  # times its samples that music reaches between them, at most
_SMOOTHED_AT_ONCE = 8192  # samples
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
    smooth = np.convolve(np.pad(gains, 2, mode="edge"), np.full(5, 0.2), mode="valid")
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
    window = np.hanning(2 * reach + 1)
    gain = _convolved(_least_within(needed, reach), window / window.sum())
    return np.minimum(gain, 1.0).astype(np.float32)


def _peaks_above(mix: np.ndarray, ceiling: float) -> np.ndarray | None:
    """The largest magnitude at and around each sample, (samples,), oversampled four times; None where none exceeds.

    Only stretches that could exceed the ceiling between their samples are oversampled.
    """
    peaks, phases = np.abs(mix).max(axis=0), oversampling_phases().float()
    taps = len(phases)
    padded = np.pad(mix, ((0, 0), (taps // 2, taps // 2)))
    largest = [peaks[first : first + _STRETCH].max() for first in range(0, mix.shape[1], _STRETCH)]
    for number in np.flatnonzero(np.array(largest) * _OVERSHOOT > ceiling):
        first = number * _STRETCH
        around = torch.from_numpy(padded[:, first : first + _STRETCH + taps]).unfold(-1, taps, 1)
        # Before the first sample, between every two, and after the last.
        between = torch.matmul(around, phases).abs_().amax(dim=(0, 2)).numpy()
        inside = peaks[first : first + _STRETCH]
        np.maximum(inside, np.maximum(between[:-1], between[1:]), out=inside)
    return peaks if (peaks > ceiling).any() else None


def _least_within(values: np.ndarray, reach: int) -> np.ndarray:
    """The least of the values up to `reach` places to either side of each, by minima of twice as many at every step."""
    width, span = 2 * reach + 1, 1
    least = np.pad(values, reach, mode="edge")
    while 2 * span <= width:
        least, span = np.minimum(least[:-span], least[span:]), 2 * span
    return np.minimum(least[: len(values)], least[width - span :])


def _convolved(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The values smoothed by a symmetric window of odd length, the first and last going on beyond the ends; float64."""
    reach, size = len(window) // 2, _SMOOTHED_AT_ONCE
    step = size - 2 * reach
    blocks = -(-len(values) // step)
    padded = np.pad(values.astype(np.float64), (reach, reach + blocks * step - len(values)), mode="edge")
    response = np.fft.rfft(window, size)
    out = np.empty(blocks * step)
    for number in range(blocks):
        spectrum = np.fft.rfft(padded[number * step : number * step + size])
        out[number * step : (number + 1) * step] = np.fft.irfft(spectrum * response)[2 * reach :]
    return out[: len(values)]


def true_peak(audio: np.ndarray) -> float | None:
    """The true peak in dBTP (ITU-R BS.1770-4, annex 2), None for silence.

    Args:
        audio: (channels, samples).
    """
    meter = TruePeakMeter(audio.shape[0])
    meter.push(audio)
    return meter.decibels()
