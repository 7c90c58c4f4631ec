"""Random track mixing: a training example from stems of different songs (Uhlich et al., ICASSP 2017)."""

from dataclasses import dataclass

import numpy as np

from model import augment


@dataclass(frozen=True)
class MixingSettings:
    """How examples are drawn. Probabilities are per example; levels are in dB.

    `speed` is the largest change of speed (and with it pitch and formants) either way, as a factor
    minus one. `vocal_db` is the range of the vocals' level against the backing, in RMS where both sound.
    """

    speed: float = 0.0
    vocal_db: tuple[float, float] = (-8.0, 4.0)
    equalise: float = 0.0
    reverberate: float = 0.0
    double: float = 0.0
    compress: float = 0.0
    widen: float = 0.0
    maximise: float = 0.0
    second_voice: float = 0.0
    second_backing: float = 0.0
    without_vocals: float = 0.05
    without_backing: float = 0.02
    same_track: float = 0.0


def voice(audio: np.ndarray, rate: int, settings: MixingSettings, random: np.random.Generator) -> np.ndarray:
    """A vocal stem as it would sit in a mix: (2, samples)."""
    if random.random() < settings.compress:
        audio = augment.compress(audio, rate, random)
    if random.random() < settings.equalise:
        audio = augment.equalise(audio, rate, random)
    if random.random() < settings.double:
        audio = augment.double(audio, rate, random)
    if random.random() < settings.reverberate:
        audio = augment.reverberate(audio, rate, random)
    # Lead vocals sit in the middle; let some stand aside.
    position = float(random.normal(0, 0.08)) if random.random() < 0.8 else float(random.uniform(-0.7, 0.7))
    return augment.pan(audio, float(np.clip(position, -1, 1)))


def backing(audio: np.ndarray, rate: int, settings: MixingSettings, random: np.random.Generator) -> np.ndarray:
    """A backing as (2, samples): equalised, widened where it is mono, its channels swapped half the time."""
    if random.random() < settings.equalise:
        audio = augment.equalise(audio, rate, random, most_db=4.0)
    if audio.shape[0] == 1 and random.random() < settings.widen:
        audio = augment.widen(audio, rate, random)
    audio = augment.as_stereo(audio)
    return audio[::-1] if random.random() < 0.5 else audio


def balance(
    vocals: np.ndarray, accompaniment: np.ndarray, rate: int, settings: MixingSettings, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Set the vocals' level against the backing's, then the whole to a random loudness.

    Levels are the RMS over the louder half of each stem, so that pauses do not count as quiet singing.
    """
    levels = _level(vocals, rate), _level(accompaniment, rate)
    vocals, accompaniment = _against_each_other(vocals, accompaniment, levels, settings, random)
    if random.random() < settings.maximise:
        gain = augment.maximising_gain(vocals + accompaniment, rate, random)
        vocals, accompaniment = vocals * gain, accompaniment * gain
    peak = float(np.abs(vocals + accompaniment).max(initial=0))
    gain = np.float32(augment.decibels(float(random.uniform(-12.0, 0.0))) / max(peak, 1e-6))
    return vocals * gain, accompaniment * gain


def balance_spectra(
    vocals: np.ndarray, accompaniment: np.ndarray, settings: MixingSettings, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`balance` for spectra (channels, frames, bins), where only gains can be set; the level is the RMS."""
    levels = tuple(float(np.sqrt(np.square(np.abs(x)).mean())) for x in (vocals, accompaniment))
    return _against_each_other(vocals, accompaniment, levels, settings, random)


def _against_each_other(
    vocals: np.ndarray,
    accompaniment: np.ndarray,
    levels: tuple[float, float],
    settings: MixingSettings,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale the vocals to a random ratio of the levels, or leave one of the two out."""
    chance = random.random()
    ratio = augment.decibels(float(random.uniform(*settings.vocal_db)))
    if chance < settings.without_vocals or not levels[0]:
        vocals = np.zeros_like(vocals)
    elif chance < settings.without_vocals + settings.without_backing or not levels[1]:
        accompaniment = np.zeros_like(accompaniment)
    else:
        vocals = vocals * np.float32(ratio * levels[1] / levels[0])
    return vocals, accompaniment


def _level(audio: np.ndarray, rate: int) -> float:
    """RMS over the louder half of 50 ms blocks; 0 where there is nothing."""
    size = max(1, rate // 20)
    whole = audio.shape[-1] // size * size
    if not whole:
        return 0.0
    power = np.square(audio[:, :whole].reshape(audio.shape[0], -1, size)).mean(axis=(0, 2))
    louder = np.sort(power)[len(power) // 2 :]
    level = float(np.sqrt(louder.mean()))
    return level if level > 1e-5 else 0.0
