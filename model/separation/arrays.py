"""Arrays from callers: which axis is which, and whether they hold audio at all."""

import numpy as np

from model.errors import InputError

MAX_CHANNELS = 64
MAX_RATE = 768_000  # the highest rate of any recorder; beyond it windows of 93 ms fill the memory


def as_channels(audio: np.ndarray, rate: float) -> np.ndarray:
    """Audio as float32 (channels, samples).

    Args:
        audio: Floating point, full scale 1.0: (samples,), (channels, samples), or (samples, channels) where the
            first axis is too long to be channels.
        rate: Samples per second.

    Raises:
        InputError: Another shape or type, a rate that no audio has, or a sample that is NaN or infinite.
    """
    signal = np.asarray(audio)
    if (
        not isinstance(rate, (int, float, np.integer, np.floating))
        or isinstance(rate, bool)
        or not 1 <= rate <= MAX_RATE
    ):
        raise InputError(f"{rate} is not a sample rate; give it in Hz, from 1 to {MAX_RATE}")
    if signal.dtype.kind in "iub":
        raise InputError(
            f"samples are {signal.dtype}, but full scale must be 1.0: divide by the type's largest value, or read the "
            "file as float32"
        )
    if signal.dtype.kind != "f":
        raise InputError(f"samples must be floating-point numbers, not {signal.dtype}")
    if signal.ndim not in (1, 2):
        raise InputError(f"audio has one axis (samples) or two (channels, samples), not the shape {signal.shape}")
    if signal.ndim == 1:
        signal = signal[None]
    elif _samples_first(signal.shape):
        signal = signal.T
    if signal.shape[0] == 0 or signal.shape[0] > MAX_CHANNELS:
        raise InputError(f"the shape {np.shape(audio)} is not (channels, samples) with 1 to {MAX_CHANNELS} channels")
    signal = np.ascontiguousarray(signal, np.float32)
    good = np.isfinite(signal).all(axis=0)
    if not good.all():
        first = int(np.argmin(good))
        raise InputError(
            f"sample {first} ({first / rate:.3f} s) is not a number (NaN or infinite); repair the audio first"
        )
    return signal


def like(signal: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """A signal in the layout of the array that `as_channels` made its mixture from.

    Args:
        signal: A stem, (channels, samples).
        audio: The array that the caller passed: (samples,), (channels, samples) or (samples, channels).

    Returns:
        The stem in the shape of `audio`.
    """
    shape = np.shape(audio)
    return np.ascontiguousarray(signal.T) if len(shape) == 2 and _samples_first(shape) else signal.reshape(shape)


def _samples_first(shape: tuple[int, ...]) -> bool:
    return shape[0] > MAX_CHANNELS >= shape[1] > 0
