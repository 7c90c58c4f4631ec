"""A picture of two beat grids, one over the other."""

from pathlib import Path

import numpy as np

from storage.files.atomic import replacing

_SHOWN_SECONDS = 24.0
_POINTS = 2400


def draw_beats(
    target: Path,
    rate: int,
    vocals: np.ndarray,
    accompaniment: np.ndarray,
    vocal_beats: np.ndarray,
    accompaniment_beats: np.ndarray,
    title: str,
) -> None:
    """Write a PNG: both signals with the beats heard in each, and how far apart these are.

    The upper panels show 24 s from where the vocals begin; the lowest shows the entire song.

    Args:
        target: The PNG.
        rate: Sample rate of both signals, in Hz.
        vocals: (channels, samples), as they are in the mash-up.
        accompaniment: (channels, samples), of the same length.
        vocal_beats: Beats heard in the vocals' song, in seconds of the mash-up.
        accompaniment_beats: Beats heard in the accompaniment's song, in seconds of the mash-up.
        title: Shown above the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    upper, lower, distance = figure.subplots(3, 1, height_ratios=(2, 2, 1.4))
    seconds = vocals.shape[1] / rate
    loud = np.flatnonzero(np.abs(vocals).max(axis=0) > 0.05 * max(1e-6, float(np.abs(vocals).max(initial=0))))
    begin = min(loud[0] / rate if len(loud) else 0.0, max(0.0, seconds - _SHOWN_SECONDS))
    end = min(seconds, begin + _SHOWN_SECONDS)
    for axes, audio, name, colour in (
        (upper, vocals, "vocals", "#b3412e"),
        (lower, accompaniment, "accompaniment", "#2e6fb3"),
    ):
        low, high = _outline(audio[:, round(begin * rate) : round(end * rate)])
        axes.fill_between(np.linspace(begin, end, len(low)), low, high, color=colour, alpha=0.45, linewidth=0)
        peak = max(1e-3, float(np.abs(audio).max(initial=0)))
        for beats, color, top in ((vocal_beats, "#b3412e", True), (accompaniment_beats, "#2e6fb3", False)):
            inside = beats[(beats >= begin) & (beats <= end)]
            axes.vlines(inside, 0 if top else -peak, peak if top else 0, color=color, linewidth=0.9)
        axes.set(ylabel=name, xlim=(begin, end), ylim=(-peak, peak))
    upper.set_title(f"{title}\nred, above: beats of the vocals' song; blue, below: of the accompaniment's", fontsize=10)
    if len(vocal_beats) and len(accompaniment_beats):
        apart = vocal_beats[:, None] - accompaniment_beats[None, :]
        nearest = np.take_along_axis(apart, np.abs(apart).argmin(axis=1)[:, None], axis=1)[:, 0]
        distance.axhspan(-20, 20, color="#dde6dd")
        distance.plot(vocal_beats, 1000 * nearest, ".", color="#333333", markersize=3)
    distance.set(xlabel="seconds", ylabel="apart, ms", xlim=(0, seconds), ylim=(-120, 120))
    with replacing(target) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _outline(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest sample of each of at most 2400 stretches."""
    mono = audio.mean(axis=0)
    if not len(mono):
        return np.zeros(1), np.zeros(1)
    pieces = np.array_split(mono, min(_POINTS, len(mono)))
    return np.array([piece.min() for piece in pieces]), np.array([piece.max() for piece in pieces])
