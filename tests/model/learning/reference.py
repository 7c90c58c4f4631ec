"""The augmentations as they were first written, with numpy and scipy: what the batched ones are held against.

Every function takes audio of shape (channels, samples) and returns a new array."""

import numpy as np
from scipy import signal as dsp


def decibels(value: float) -> float:
    """Amplitude factor of a gain in dB."""
    return float(10.0 ** (value / 20.0))


def equalise(audio: np.ndarray, rate: int, random: np.random.Generator, *, most_db: float = 6.0) -> np.ndarray:
    """Two or three random peaking or shelving-like bells (RBJ audio EQ cookbook, peakingEQ)."""
    out = audio
    for _ in range(int(random.integers(2, 4))):
        centre = float(np.exp(random.uniform(np.log(80.0), np.log(min(14000.0, 0.45 * rate)))))
        gain = decibels(float(random.uniform(-most_db, most_db)) / 2)
        omega = 2 * np.pi * centre / rate
        alpha = np.sin(omega) / (2 * float(random.uniform(0.4, 1.5)))
        b = np.array([1 + alpha * gain, -2 * np.cos(omega), 1 - alpha * gain])
        a = np.array([1 + alpha / gain, -2 * np.cos(omega), 1 - alpha / gain])
        out = dsp.lfilter(b / a[0], a / a[0], out, axis=-1)
    return out.astype(np.float32)


def reverberate(audio: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    """Stereo reverberation: exponentially decaying noise, darker as it decays, after a pre-delay.

    Mono comes out as stereo; the dry signal stays in the middle.
    """
    decay = float(random.uniform(0.3, 2.2))
    length = int(rate * min(decay, 1.5))
    time = np.arange(length) / rate
    noise = random.standard_normal((2, length)).astype(np.float32)
    b, a = dsp.butter(1, float(random.uniform(2000.0, 9000.0)) / (rate / 2))
    response = dsp.lfilter(b, a, noise, axis=-1) * np.exp(-6.9 * time / decay)
    response /= np.sqrt(np.square(response).sum(-1, keepdims=True)) + 1e-9
    delay = int(rate * random.uniform(0.0, 0.06))
    wet = dsp.fftconvolve(as_stereo(audio), response, axes=-1)[:, : audio.shape[-1]]
    wet = np.pad(wet, ((0, 0), (delay, 0)))[:, : audio.shape[-1]]
    return (as_stereo(audio) + wet * decibels(float(random.uniform(-20.0, -5.0)))).astype(np.float32)


def double(audio: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    """The same line sung again: a copy with a slowly wandering delay, panned to the sides."""
    samples = audio.shape[-1]
    base = random.uniform(0.008, 0.03, size=(2, 1))
    wander = 0.002 * np.sin(
        2 * np.pi * (random.uniform(0.1, 0.7, size=(2, 1)) * np.arange(samples) / rate + random.uniform(size=(2, 1)))
    )
    at = np.arange(samples) - (base + wander) * rate
    voice = audio.mean(axis=0)
    copies = np.stack([np.interp(row, np.arange(samples), voice, left=0.0) for row in at])
    return (as_stereo(audio) + copies * decibels(float(random.uniform(-14.0, -3.0)))).astype(np.float32)


def widen(audio: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    """Pseudo-stereo for a mono backing: two random all-pass-like echoes of opposite sign on the sides."""
    mono = audio.mean(axis=0)
    taps = np.zeros(int(0.03 * rate), np.float32)
    at = random.integers(int(0.002 * rate), len(taps), size=6)
    taps[at] = random.uniform(-1, 1, size=6)
    side = dsp.fftconvolve(mono, taps)[: len(mono)] * float(random.uniform(0.1, 0.6))
    return np.stack([mono + side, mono - side]).astype(np.float32)


def pan(audio: np.ndarray, position: float) -> np.ndarray:
    """Balance: −1 leaves only the left channel, 1 only the right, 0 changes nothing."""
    left, right = min(1.0, 1.0 - position), min(1.0, 1.0 + position)
    return as_stereo(audio) * np.array([[left], [right]], np.float32)


def compress(audio: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    """Downward compression as mixing engineers put on voices: level above a threshold grows more slowly."""
    level = np.abs(audio).max(axis=0)
    smooth = np.sqrt(np.maximum(dsp.lfilter([0.002], [1, -0.998], level**2), 1e-10))
    threshold = smooth.max() * decibels(float(random.uniform(-24.0, -6.0)))
    ratio = float(random.uniform(1.5, 5.0))
    gain = np.where(smooth > threshold, (smooth / threshold) ** (1 / ratio - 1), 1.0)
    return (audio * gain).astype(np.float32)


def distort(audio: np.ndarray, random: np.random.Generator, *, most_db: float) -> np.ndarray:
    """Soft clipping (tanh) driven by up to `most_db`, blended with the clean signal at the same level."""
    level = float(np.sqrt(np.square(audio).mean())) * 3
    if level < 1e-5:
        return audio
    driven = np.tanh(audio * (decibels(float(random.uniform(0.0, most_db))) / level))
    driven *= level / 3 / max(1e-9, float(np.sqrt(np.square(driven).mean())))
    share = np.float32(random.uniform(0.2, 1.0))
    return (audio * (1 - share) + driven * share).astype(np.float32)


def maximising_gain(mixture: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    """The gain over time (samples,) by which a loudness maximiser would hold this mixture down.

    Multiplied onto every stem it keeps their sum equal to the maximised mixture.
    """
    smooth = max(1, int(rate * random.uniform(0.005, 0.05)))
    peaks = np.abs(mixture).max(axis=0)
    envelope = dsp.fftconvolve(peaks, np.hanning(2 * smooth + 1) / smooth, mode="same")
    ceiling = max(float(np.abs(envelope).max()), 1e-6) * decibels(float(random.uniform(-8.0, -2.0)))
    return (1.0 / np.maximum(1.0, envelope / ceiling)).astype(np.float32)


def as_stereo(audio: np.ndarray) -> np.ndarray:
    return np.repeat(audio, 2, axis=0) if audio.shape[0] == 1 else audio
