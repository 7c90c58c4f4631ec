"""Random track mixing: a training example from stems of different songs (Uhlich et al., ICASSP 2017)."""

import numpy as np

from model.learning import augment
from model.preset import MixingSettings


def voice(audio: np.ndarray, rate: int, settings: MixingSettings, random: np.random.Generator) -> np.ndarray:
    """A vocal stem as it would sit in a mix: (2, samples)."""
    if random.random() < settings.compress:
        audio = augment.compress(audio, rate, random)
    if random.random() < settings.equalise:
        audio = augment.equalise(audio, rate, random)
    if random.random() < settings.distort_voice:
        audio = augment.distort(audio, random, most_db=18.0)
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
    if random.random() < settings.distort:
        audio = augment.distort(audio, random, most_db=24.0)
    if audio.shape[0] == 1 and random.random() < settings.widen:
        audio = augment.widen(audio, rate, random)
    audio = augment.as_stereo(audio)
    return audio[::-1] if random.random() < 0.5 else audio


def balance(
    stems: list[np.ndarray], rate: int, settings: MixingSettings, random: np.random.Generator
) -> list[np.ndarray]:
    """Set the vocals, the first stem, against the sum of the others, then the whole to a random loudness.

    Levels are the RMS over the louder half of each, so that pauses do not count as quiet singing.
    """
    if random.random() < settings.mono:
        stems = [np.repeat(stem.mean(axis=0, keepdims=True), 2, axis=0) for stem in stems]
    stems = _parts(stems, [_level(stem, rate) for stem in stems], settings, random)
    levels = _level(stems[0], rate), _level(_sum(stems[1:]), rate)
    stems = _against_each_other(stems, levels, settings, random)
    if random.random() < settings.maximise:
        gain = augment.maximising_gain(_sum(stems), rate, random)
        stems = [stem * gain for stem in stems]
    peak = float(np.abs(_sum(stems)).max(initial=0))
    loudness = np.float32(augment.decibels(float(random.uniform(-12.0, 0.0))) / max(peak, 1e-6))
    return [stem * loudness for stem in stems]


def balance_spectra(stems: list[np.ndarray], settings: MixingSettings, random: np.random.Generator) -> list[np.ndarray]:
    """`balance` for spectra (channels, frames, bins), where only gains can be set; the level is the RMS."""

    def level(spectra: np.ndarray) -> float:
        return float(np.sqrt(np.square(np.abs(spectra)).mean()))

    stems = _parts(stems, [level(stem) for stem in stems], settings, random)
    return _against_each_other(stems, (level(stems[0]), level(_sum(stems[1:]))), settings, random)


def _parts(
    stems: list[np.ndarray], levels: list[float], settings: MixingSettings, random: np.random.Generator
) -> list[np.ndarray]:
    """The parts of a backing at one level, each then turned down by chance; a backing of one part as it is."""
    if len(stems) == 2:
        return stems
    gains = [augment.decibels(float(random.uniform(*settings.part_db))) for _ in stems[1:]]
    return [stems[0]] + [
        stem * np.float32(gain / level) if level else stem
        for stem, gain, level in zip(stems[1:], gains, levels[1:], strict=True)
    ]


def _against_each_other(
    stems: list[np.ndarray], levels: tuple[float, float], settings: MixingSettings, random: np.random.Generator
) -> list[np.ndarray]:
    """Scale the vocals to a random ratio of the levels, or leave them or all the others out."""
    chance = random.random()
    ratio = augment.decibels(float(random.uniform(*settings.vocal_db)))
    vocals, others = stems[0], stems[1:]
    if chance < settings.without_vocals or not levels[0]:
        vocals = np.zeros_like(vocals)
    elif chance < settings.without_vocals + settings.without_backing or not levels[1]:
        others = [np.zeros_like(other) for other in others]
    else:
        vocals = vocals * np.float32(ratio * levels[1] / levels[0])
    return [vocals, *others]


def _sum(stems: list[np.ndarray]) -> np.ndarray:
    return stems[0] if len(stems) == 1 else np.sum(stems, axis=0, dtype=stems[0].dtype)


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
