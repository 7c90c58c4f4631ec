"""Pictures of spectrograms: linear, mel, or on the warped axis that the networks see.

By numpy alone: a run's report is drawn in the flow's process, where torch would take longer to import than a short song
takes to separate.
"""

import functools
import io
from dataclasses import dataclass

import numpy as np

from model.spectra.axis import gathering, row_centres
from model.spectra.windows import FrontEnd
from tasks.pages.colours import MAGMA

AXES = ("linear", "mel", "warped")
FRONT_END = FrontEnd(44100, 4096, 1024)  # the networks', at the rate they were trained at
DYNAMIC_RANGE = 80.0  # dB from black to white
_COLUMNS = 256  # that are transformed together
_TICKS = (100, 200, 500, 1000, 2000, 5000, 10000, 20000)


@dataclass(frozen=True)
class Mark:
    """A frequency on a picture's edge: its distance from the top as a share of the picture's height, and its label."""

    at: float
    text: str


def levels(audio: np.ndarray, rate: int, *, width: int = 512, rows: int = 128, axis: str = "warped",
           high_hz: float | None = None) -> np.ndarray:  # fmt: skip
    """Power of a signal by time and frequency.

    Args:
        audio: (channels, samples), float32.
        rate: Sample rate in Hz.
        width: Columns, evenly over the signal; fewer for a short one.
        rows: Rows of the frequency axis.
        axis: One of `AXES`. The warped one is `model.spectra.axis`, as the networks see it.
        high_hz: Where the axis ends; half the sample rate where None. The warped axis always ends there.

    Returns:
        (rows, columns), power averaged over channels, the lowest frequency first; about 1 for a full-scale sine.
    """
    n_fft = FRONT_END.at_rate(rate).n_fft
    samples = audio.shape[-1]
    columns = max(1, min(width, samples // (n_fft // 16)))
    hop = max(1, samples // columns)
    signal = np.pad(np.asarray(audio, np.float32), ((0, 0), (n_fft // 2, n_fft)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, n_fft, axis=-1)[:, ::hop][:, :columns]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)  # periodic Hann
    weights = _rows(n_fft // 2 + 1, rows, axis, rate, high_hz or rate / 2)
    out = np.empty((len(weights), columns), np.float32)
    for first in range(0, columns, _COLUMNS):
        span = slice(first, first + _COLUMNS)
        spectrum = np.fft.rfft(frames[:, span] * window)
        power = (np.square(spectrum.real) + np.square(spectrum.imag)).mean(axis=0)  # (columns, bins)
        out[:, span] = weights @ power.T
    return out * (4.0 / n_fft) ** 2


def marks(rate: int, *, rows: int = 128, axis: str = "warped", high_hz: float | None = None) -> list[Mark]:
    """Where round frequencies lie on a picture of `levels`.

    Args:
        rate: Sample rate in Hz, as given to `levels`.
        rows: Rows of the picture.
        axis: One of `AXES`.
        high_hz: Where the axis ends; half the sample rate where None.

    Returns:
        The lowest first; labels that would overlap, or leave the picture, are left out.
    """
    centres = _centres(FRONT_END.at_rate(rate).n_fft // 2 + 1, rows, axis, rate, high_hz or rate / 2)
    ticks = [hz for hz in _TICKS if centres[0] <= hz <= centres[-1]]
    if axis == "linear":
        ticks = [hz for hz in (2000, 5000, 10000, 15000, 20000) if hz <= centres[-1]]
    places = np.interp(ticks, centres, np.arange(len(centres)))
    # Labels that would overlap are left out, and so are those that would leave the picture.
    clear = 0.09 * len(centres)
    kept: list[tuple[int, float]] = []
    for hz, row in zip(ticks, places, strict=True):
        if clear / 2 <= row <= len(centres) - clear / 2 and (not kept or row - kept[-1][1] >= clear):
            kept.append((hz, float(row)))
    return [
        Mark(round(1 - (row + 0.5) / len(centres), 4), f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz")
        for hz, row in kept
    ]


def row_frequencies(rate: int, *, rows: int = 128, axis: str = "warped") -> np.ndarray:
    """The centre frequency of each row of `levels`.

    Args:
        rate: Sample rate in Hz, as given to `levels`.
        rows: Rows of the frequency axis.
        axis: One of `AXES`.

    Returns:
        Hz, (rows,), the lowest first.
    """
    return _centres(FRONT_END.at_rate(rate).n_fft // 2 + 1, rows, axis, rate, rate / 2)


def picture(power: np.ndarray, *, loudest: float | None = None, name: str = "WEBP") -> bytes:
    """An image file of `levels`, low frequencies at the bottom.

    Args:
        power: (rows, columns), as `levels` returns it.
        loudest: The power that is brightest; the picture's maximum where None. Stems that are compared share one.
        name: Format: "WEBP" or "PNG".
    """
    from PIL import Image

    top = max(loudest or float(power.max(initial=0)), 1e-12)
    decibels = 10 * np.log10(np.maximum(power, 1e-14) / top)
    shade = np.clip(1 + decibels / DYNAMIC_RANGE, 0, 1)[::-1]
    colours = MAGMA[np.minimum((shade * len(MAGMA)).astype(np.int32), len(MAGMA) - 1)]
    target = io.BytesIO()
    options = {"quality": 62, "method": 4} if name == "WEBP" else {"optimize": True}
    Image.fromarray(colours).save(target, name, **options)
    return target.getvalue()


def draw(audio: np.ndarray, rate: int, *, axis: str, title: str, start: float = 0.0, high_hz: float | None = None,
         width: int = 1200) -> bytes:  # fmt: skip
    """A PNG with axes and a scale: time, frequency, dB.

    Args:
        audio: (channels, samples); the channels' mean power is drawn.
        rate: Sample rate in Hz.
        axis: One of `AXES`.
        title: Shown above the picture.
        start: Time of the first sample in seconds.
        high_hz: Where the frequency axis ends; half the rate where None.
        width: Width in pixels.
    """
    from matplotlib.figure import Figure

    rows = {"linear": 1024, "mel": 256, "warped": 512}[axis]
    power = levels(audio, rate, width=width, rows=rows, axis=axis, high_hz=high_hz)
    decibels = 10 * np.log10(np.maximum(power, 1e-14))
    top = float(decibels.max())
    figure = Figure(figsize=(width / 100, 5.2), layout="constrained")
    axes = figure.subplots()
    seconds = audio.shape[1] / rate
    image = axes.imshow(
        decibels, origin="lower", aspect="auto", cmap="magma", vmin=top - DYNAMIC_RANGE, vmax=top,
        extent=(start, start + seconds, 0, 1), interpolation="nearest",
    )  # fmt: skip
    places = marks(rate, rows=rows, axis=axis, high_hz=high_hz)
    axes.set_yticks([1 - mark.at for mark in places], [mark.text for mark in places])
    axes.set_xlabel("seconds")
    # Names may hold dollar signs, which matplotlib would take for mathematics.
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.colorbar(image, ax=axes, label="dB below full scale", pad=0.01)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()


@functools.lru_cache(maxsize=8)
def _rows(bins: int, rows: int, axis: str, rate: int, high_hz: float) -> np.ndarray:
    """(rows, bins) weights that gather bins into rows."""
    if axis == "warped":
        return gathering(bins, rows)
    if axis == "mel":
        import librosa

        mel = librosa.filters.mel(sr=rate, n_fft=(bins - 1) * 2, n_mels=rows, fmax=high_hz, norm=None)
        return mel.astype(np.float32)
    edges = np.linspace(0, high_hz / (rate / 2) * (bins - 1), rows + 1)
    weights = np.zeros((rows, bins), np.float32)
    for row in range(rows):
        first = int(edges[row])
        weights[row, first : max(first + 1, int(edges[row + 1]))] = 1.0
    return weights / weights.sum(axis=1, keepdims=True)


@functools.lru_cache(maxsize=8)
def _centres(bins: int, rows: int, axis: str, rate: int, high_hz: float) -> np.ndarray:
    """Centre frequency of each row in Hz, (rows,)."""
    if axis == "warped":
        return row_centres(bins, rows) * rate / 2 / (bins - 1)
    if axis == "mel":
        import librosa

        return librosa.mel_frequencies(n_mels=rows + 2, fmax=high_hz)[1:-1]
    return (np.arange(rows) + 0.5) * high_hz / rows
