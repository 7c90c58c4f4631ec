"""A little band that plays from a seed: drums, bass, chords, and a formant voice that sings vowels.

The songs are there to try everything on, where no real songs may be shipped. They are plain, but
not easy: the chords share the voice's range, the drums its consonants, and everything is in one key.
"""

from dataclasses import dataclass

import numpy as np
from scipy import signal as dsp

RATE = 44100
_PROGRESSIONS = ((0, 5, 3, 4), (0, 3, 4, 4), (5, 3, 0, 4), (0, 4, 5, 3), (0, 2, 3, 4))
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
# First three formants in Hz and their bandwidths, after Peterson & Barney 1952 (men and women averaged).
_VOWELS = {
    "a": ((790, 1150, 2560), (90, 110, 170)),
    "e": ((570, 2080, 2740), (70, 120, 180)),
    "i": ((290, 2530, 3150), (60, 110, 180)),
    "o": ((580, 880, 2560), (80, 90, 170)),
    "u": ((340, 910, 2450), (60, 90, 160)),
}


@dataclass(frozen=True)
class Song:
    """A song that was made, and what it was made of.

    Attributes:
        title: Its name, which says the seed.
        stems: Stem → float32 (2, samples) at `RATE`; their sum peaks at −1 dB of full scale.
        tempo: Beats per minute.
        tonic: Pitch class of the key's tonic, 0 (C) to 11.
        minor: Whether the key is minor.
        downbeats: When each bar begins, seconds.
    """

    title: str
    stems: dict[str, np.ndarray]
    tempo: float
    tonic: int
    minor: bool
    downbeats: tuple[float, ...]

    @property
    def mixture(self) -> np.ndarray:
        return np.add.reduce(list(self.stems.values()), axis=0, dtype=np.float32)


def compose(seed: int, seconds: float = 20.0, *, tempo: float | None = None, tonic: int | None = None) -> Song:
    """The song of a seed, the same to the last bit each time on one machine.

    Args:
        seed: Decides all that is drawn.
        seconds: The song's length.
        tempo: Beats per minute; by default drawn from 84 to 139.
        tonic: Pitch class of the key's tonic, 0 (C) to 11; by default drawn. Major or minor is drawn always.
    """
    random = np.random.default_rng([seed, 0x50A6])
    tempo = float(tempo or random.integers(84, 140))
    tonic = int(random.integers(12)) if tonic is None else tonic
    minor = bool(random.random() < 0.5)
    scale = _MINOR if minor else _MAJOR
    score = _Score(random, round(seconds * RATE), 60.0 / tempo, tonic, scale)
    stems = {"drums": _drums(score), "bass": _bass(score), "other": _chords(score), "vocals": _voice(score)}
    levels = {"drums": 0.9, "bass": 0.7, "other": 0.55, "vocals": float(random.uniform(0.7, 1.2))}
    stems = {stem: _at_level(audio, levels[stem]) for stem, audio in stems.items()}
    peak = float(np.abs(np.sum(list(stems.values()), axis=0)).max())
    stems = {stem: (audio * (10 ** (-1 / 20) / peak)).astype(np.float32) for stem, audio in stems.items()}
    bars = np.arange(0, score.samples / RATE, 4 * score.beat)
    return Song(f"Song {seed}", stems, tempo, tonic, minor, tuple(float(t) for t in bars))


@dataclass
class _Score:
    """What the players share."""

    random: np.random.Generator
    samples: int
    beat: float
    tonic: int
    scale: tuple[int, ...]

    def __post_init__(self) -> None:
        self.progression = _PROGRESSIONS[self.random.integers(len(_PROGRESSIONS))]
        self.bars = int(np.ceil(self.samples / RATE / (4 * self.beat)))

    def pitch(self, degree: int, octave: int) -> float:
        """Hz of a scale degree; octave 4 holds middle C."""
        steps, index = divmod(degree, 7)
        return 440.0 * 2 ** ((self.tonic + self.scale[index] + 12 * (octave + steps - 4) - 9) / 12)

    def chord(self, bar: int) -> tuple[int, int, int]:
        root = self.progression[bar % len(self.progression)]
        return root, root + 2, root + 4


def _drums(score: _Score) -> np.ndarray:
    random = score.random
    out = np.zeros((2, score.samples))
    time = np.arange(int(0.35 * RATE)) / RATE
    kick = np.sin(2 * np.pi * (45 * time + 8 * (1 - np.exp(-time * 28)))) * np.exp(-time * 11)
    snare = (
        0.5 * np.sin(2 * np.pi * 190 * time) * np.exp(-time * 22)
        + random.standard_normal(len(time)) * np.exp(-time * 17) * 0.6
    )
    hat = _high_pass(random.standard_normal(len(time)), 7000) * np.exp(-time * 55) * 0.5
    off = random.random() < 0.5
    for bar in range(score.bars):
        for eighth in range(8):
            at = (bar * 8 + eighth) * score.beat / 2
            if eighth in (0, 4) or (off and eighth == 5):
                _add(out, kick, at, 0.0)
            if eighth in (2, 6):
                _add(out, snare * random.uniform(0.85, 1.0), at, 0.1)
            _add(out, hat * random.uniform(0.5, 1.0), at + random.normal(0, 0.002), -0.4)
    return out


def _bass(score: _Score) -> np.ndarray:
    out = np.zeros((2, score.samples))
    for bar in range(score.bars):
        root = score.chord(bar)[0]
        for eighth in range(8):
            if eighth % 2 and score.random.random() < 0.4:
                continue
            degree = root + (4 if eighth == 6 and score.random.random() < 0.5 else 0)
            length = score.beat / 2 * 0.95
            time = np.arange(int(length * RATE)) / RATE
            frequency = score.pitch(degree, 2)
            tone = sum(np.sin(2 * np.pi * k * frequency * time) / k**1.6 for k in range(1, 9))
            _add(out, tone * _envelope(len(time), 0.006, 0.03), (bar * 8 + eighth) * score.beat / 2, 0.0)
    return out


def _chords(score: _Score) -> np.ndarray:
    random = score.random
    out = np.zeros((2, score.samples))
    plucked = random.random() < 0.5
    for bar in range(score.bars):
        for number, degree in enumerate(score.chord(bar)):
            frequency = score.pitch(degree, 3 if degree > 4 else 4)
            starts = range(4) if plucked else (0,)
            length = score.beat * (1 if plucked else 4)
            time = np.arange(int(length * RATE)) / RATE
            for start in starts:
                tone = np.zeros(len(time))
                for k in range(1, 13):
                    detune = 1 + random.normal(0, 0.0008)
                    fade = np.exp(-time * (1.5 + 0.8 * k)) if plucked else 1 / k**0.4
                    tone += np.sin(2 * np.pi * k * frequency * detune * time + random.uniform(0, 6.3)) / k * fade
                envelope = _envelope(len(time), 0.004 if plucked else 0.08, 0.05)
                _add(out, tone * envelope, (bar * 4 + start) * score.beat, (-0.6, 0.0, 0.6)[number])
    return out


def _voice(score: _Score) -> np.ndarray:
    """Phrases of four bars with a breath between, each syllable a vowel behind a soft consonant."""
    random = score.random
    frequency, loudness, formants = _melody(score)
    time = np.arange(score.samples) / RATE
    depth = 0.35 * np.clip(dsp.lfilter([0.0001], [1, -0.9999], loudness > 0.1), 0, 1)  # vibrato grows on long notes
    vibrato = depth * np.sin(2 * np.pi * 5.6 * time + random.uniform(0, 6.3)) + 0.04 * np.cumsum(
        random.standard_normal(score.samples)
    ) / np.sqrt(RATE)
    frequency = frequency * 2 ** (vibrato / 12)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    voice = np.zeros(score.samples)
    for k in range(1, 46):
        partial = k * frequency
        if not (partial < 9000).any():
            break
        gain = sum(
            strength / np.sqrt(1 + ((partial - centre) / width) ** 2)
            for (centre, width), strength in zip(formants, (1.0, 0.55, 0.3), strict=True)
        )
        voice += np.sin(k * phase) * (gain + 0.02) / k**0.6 * (partial < 9000)
    breath = _high_pass(random.standard_normal(score.samples), 3500)
    consonant = np.clip(np.diff(loudness, prepend=0) * 900, 0, 1)
    consonant = dsp.lfilter(np.hanning(1800), [1], consonant)
    consonant /= max(consonant.max(), 1e-9)
    dry = voice * loudness + breath * (0.015 * loudness * np.abs(voice).max() + 0.12 * consonant)
    return _room(np.stack([dry, dry]), random)


def _melody(score: _Score) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Frequency, loudness and formants (centre, width) of the voice at every sample."""
    random = score.random
    frequency = np.full(score.samples, score.pitch(4, 4))
    loudness = np.zeros(score.samples)
    tracks = np.zeros((6, score.samples))
    tracks[:] = np.array([*_VOWELS["a"][0], *_VOWELS["a"][1]])[:, None]
    octave = 4 if random.random() < 0.5 else 3
    degree = int(random.integers(2, 7))
    size = random.uniform(0.92, 1.12)  # of the singer's vocal tract
    for bar in range(score.bars):
        if bar % 8 == 7:  # a bar for the band
            continue
        chord = score.chord(bar)
        at = 0.0
        while at < 4.0 - 1e-9:
            length = float(random.choice([0.5, 0.5, 1.0, 1.0, 2.0]))
            length = min(length, 4.0 - at)
            degree += int(random.choice([-2, -1, -1, 0, 1, 1, 2]))
            degree = int(np.clip(degree, 0, 9))
            if at == 0.0:  # on the first beat a tone of the chord
                degree = min((c + 7 * o for c in chord for o in (0, 1)), key=lambda d: abs(d - degree))
            resting = random.random() < 0.12 or (bar % 4 == 3 and at >= 3.0)
            start, stop = (int((bar * 4 + b) * score.beat * RATE) for b in (at, at + length * 0.94))
            stop = min(stop, score.samples)
            if not resting and stop > start:
                frequency[start:stop] = score.pitch(degree, octave)
                loudness[start:stop] = _envelope(stop - start, 0.035, 0.06) * random.uniform(0.75, 1.0)
                vowel = _VOWELS[str(random.choice(list(_VOWELS)))]
                tracks[:, start:stop] = np.array([*(f * size for f in vowel[0]), *vowel[1]])[:, None]
            at += length
    # A mouth and a larynx move in tens of milliseconds.
    smooth = np.hanning(int(0.05 * RATE))
    smooth /= smooth.sum()
    edge = len(smooth)
    glide = lambda x: dsp.fftconvolve(np.pad(x, edge, mode="edge"), smooth, mode="same")[edge:-edge]  # noqa: E731
    tracks = np.stack([glide(row) for row in tracks])
    return glide(frequency), loudness, [(tracks[i], tracks[i + 3]) for i in range(3)]


def _room(audio: np.ndarray, random: np.random.Generator) -> np.ndarray:
    length = int(0.9 * RATE)
    tail = random.standard_normal((2, length)) * np.exp(-np.arange(length) / RATE * 6)
    tail *= 0.22 / np.sqrt(np.square(tail).sum(axis=1, keepdims=True))
    return audio + dsp.fftconvolve(audio, tail, axes=-1)[:, : audio.shape[1]]


def _add(out: np.ndarray, tone: np.ndarray, at: float, position: float) -> None:
    """Mix a mono tone in at `at` seconds, panned by equal power: −1 left, 1 right."""
    start = max(0, int(at * RATE))
    tone = tone[: max(0, out.shape[1] - start)]
    angle = (position + 1) * np.pi / 4
    out[0, start : start + len(tone)] += np.cos(angle) * tone
    out[1, start : start + len(tone)] += np.sin(angle) * tone


def _envelope(samples: int, attack: float, release: float) -> np.ndarray:
    rise, fall = min(int(attack * RATE), samples // 2), min(int(release * RATE), samples // 2)
    shape = np.ones(samples)
    shape[:rise] = np.linspace(0, 1, rise, endpoint=False)
    if fall:
        shape[-fall:] = np.linspace(1, 0, fall)
    return shape


def _high_pass(noise: np.ndarray, frequency: float) -> np.ndarray:
    return dsp.sosfilt(dsp.butter(2, frequency, "high", fs=RATE, output="sos"), noise)


def _at_level(audio: np.ndarray, level: float) -> np.ndarray:
    return audio * (0.1 * level / max(float(np.sqrt(np.square(audio).mean())), 1e-9))
