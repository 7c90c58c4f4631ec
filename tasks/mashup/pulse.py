"""The pulse of an onset envelope: its tempo, and the beats that dynamic programming finds at that tempo.

librosa's algorithms, without its import, which takes longer than listening to a song; the tests compare both.
"""

import numpy as np

from tasks.mashup.onsets import ANALYSIS_RATE, HOP

_PER_MINUTE = 60.0 * ANALYSIS_RATE / HOP  # frames
_TEMPO_SECONDS, _TEMPO_STRIDE = 8.0, 32
_LIKED_TEMPO, _FASTEST_TEMPO = 120.0, 320.0  # beats per minute
_TIGHTNESS = 100.0


def tempo(onsets: np.ndarray) -> float:
    """The tempo of a song, in beats per minute: the strongest period near 120, on a logarithmic scale.

    As `librosa.feature.tempo` finds it in the mean of the tempogram, which is taken three times per second here.

    Args:
        onsets: The onset envelope, (frames,).
    """
    strength = _tempogram(onsets).mean(axis=1)
    with np.errstate(divide="ignore"):
        tempi = _PER_MINUTE / np.arange(len(strength))
    liking = -0.5 * np.square(np.log2(tempi) - np.log2(_LIKED_TEMPO))
    liking[: int(np.argmax(tempi < _FASTEST_TEMPO))] = -np.inf
    return float(tempi[np.argmax(np.log1p(1e6 * strength) + liking)])


def _tempogram(onsets: np.ndarray) -> np.ndarray:
    """Autocorrelation of the onset envelope over 8 s windows, three per second: (lags, places).

    What `librosa.feature.tempogram` computes at every frame, at a thirtieth of the cost; its mean is the same.
    """
    length = round(_TEMPO_SECONDS * ANALYSIS_RATE / HOP)
    padded = np.pad(onsets, length // 2, mode="linear_ramp", end_values=0)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::_TEMPO_STRIDE] * np.hanning(length)
    power = np.square(np.abs(np.fft.rfft(frames, 1 << (2 * length - 1).bit_length(), axis=1)))
    lags = np.fft.irfft(power, axis=1)[:, :length].T
    return lags / np.maximum(np.abs(lags).max(axis=0, keepdims=True), 1e-9)


def beat_frames(onsets: np.ndarray, tempo: float) -> np.ndarray:
    """Beats near a tempo (Ellis, "Beat tracking by dynamic programming", JNMR 2007).

    As `librosa.beat.beat_track` finds them with `tightness=100, trim=False`.

    Args:
        onsets: The onset envelope, (frames,), not constant.
        tempo: In beats per minute.

    Returns:
        The beats' frames, ascending.
    """
    period = float(np.round(_PER_MINUTE / tempo))
    bump = np.exp(-0.5 * np.square(np.arange(-period, period + 1) * 32.0 / period))
    strength = np.convolve(onsets / onsets.std(ddof=1, dtype=np.float64), bump)[len(bump) // 2 :][: len(onsets)]
    links, scores = _linked(strength, period)
    rising = np.append(False, scores[1:] > scores[:-1])
    peaks = np.flatnonzero(rising & np.append(scores[:-1] >= scores[1:], True))
    late = peaks[scores[peaks] >= 0.5 * np.median(scores[peaks])] if len(peaks) else peaks
    frame = int(late[-1]) if len(late) else len(scores) - 1
    beats = []
    while frame >= 0:
        beats.append(frame)
        frame = int(links[frame])
    heard = np.flatnonzero(strength > 0)
    frames = np.array(beats[::-1])
    return frames[(frames >= heard[0]) & (frames <= heard[-1])] if len(heard) else frames[:0]


def _linked(strength: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the beat before it, were it a beat (−1 for none), and the best score of beats that end with it."""
    nearest, farthest = int(np.round(period / 2)), int(2 * period)
    distances = np.arange(farthest, nearest - 1, -1)
    costs = _TIGHTNESS * np.square(np.log(distances) - np.log(period))
    scores = np.full(farthest + len(strength), -np.inf)  # those before the song are of no use
    links = np.full(len(strength), -1)
    least, begun = 0.01 * strength.max(), False
    for frame, value in enumerate(strength):
        candidates = scores[frame : frame + len(distances)] - costs
        # Of equals the nearest, as librosa has it.
        best = len(candidates) - 1 - int(candidates[::-1].argmax())
        linked = candidates[best] > -np.inf
        scores[farthest + frame] = value + (candidates[best] if linked else 0.0)
        begun = begun or value >= least
        if begun and linked:
            links[frame] = frame - distances[best]
    return links, scores[farthest:]
