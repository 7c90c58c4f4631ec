"""How near an estimate is to its reference, in dB.

SDR, ISR, SIR and SAR are BSSEval v4's (museval) over windows of one second; a track's figure (cSDR) is the
median over its windows. SDR needs no filters, which cancel out of it; `engine="sdr"` computes it alone.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from model.scoring.bsseval import bss_eval_systems
from model.scoring.museval_engine import museval_bss_eval
from model.spectra.frontend import FrontEnd, spectrogram

ENGINES = ("bsseval", "sdr", "museval")
WINDOW_SCORES = ("sdr", "isr", "sir", "sar")
_FRONT_END = FrontEnd(44100, 4096, 1024)  # of the magnitude spectrograms that are compared
_STRETCH_SECONDS = 30


@dataclass(frozen=True)
class Score:
    """One stem's scores. None where nothing can be said: no window, all windows silent, or not computed.

    magnitude_mse and magnitude_snr compare magnitude spectrograms (4096/1024 at 44.1 kHz, magnitudes of a
    full-scale sine are 1024): mean of (|S| − |Ŝ|)², and Σ|S|² over Σ(|S| − |Ŝ|)² in dB.
    """

    sdr: float | None
    isr: float | None
    sir: float | None
    sar: float | None
    sdr_mean: float | None
    usdr: float | None
    si_sdr: float | None
    magnitude_mse: float | None
    magnitude_snr: float | None
    windows: int
    silent_windows: int


@dataclass(frozen=True)
class TrackScores:
    """Scores of stems that were scored together; `windows` has, per stem, SDR, ISR, SIR and SAR, (4, windows) in dB."""

    stems: dict[str, Score]
    windows: dict[str, np.ndarray]

    @property
    def scenario(self) -> str:
        """The names of the stems: which were scored together decides which windows count as silent."""
        return "/".join(self.stems)


def silent(signal: np.ndarray) -> bool:
    """museval's silence: the channels sum to zero at every sample. Stereo in anti-phase is silent too.

    Args:
        signal: (channels, samples).
    """
    return not signal.sum(axis=0).any()


def window_sdr(references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int) -> dict[str, np.ndarray]:
    """SDR of every stem in every complete second; what is left at the end is dropped.

    As in museval a window is NaN for all stems when any reference or estimate is silent over it, and NaN for a stem
    whose estimate is exact.

    Args:
        references: The true stems by name, float (channels, samples) each.
        estimates: Their estimates, of the same names and shape.
        rate: Sample rate in Hz, the length of a window.

    Returns:
        Per stem its SDR in dB, float64 (windows,).

    Raises:
        ValueError: Stems or shapes differ.
    """
    windows = _common_shape(references, estimates)[1] // rate
    values = {stem: np.full(windows, np.nan) for stem in references}

    def fill(index: int) -> None:
        span = slice(index * rate, (index + 1) * rate)
        cut = [(stem, references[stem][:, span], estimates[stem][:, span]) for stem in references]
        if any(silent(reference) or silent(estimate) for _, reference, estimate in cut):
            return
        for stem, reference, estimate in cut:
            wide = reference.astype(np.float64)
            value = ratio_db(_energy(wide), _energy(wide - estimate))
            values[stem][index] = value if np.isfinite(value) else np.nan

    # numpy lets go of the interpreter in each of these operations, so threads share the windows.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(windows)))
    return values


def score(
    references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int, *, engine: str = "bsseval"
) -> TrackScores:
    """Scores of all stems of a track, scored together; see `score_systems`.

    Args:
        references: The true stems by name, float (channels, samples) each.
        estimates: Their estimates, of the same names and shape.
        rate: Sample rate in Hz.
        engine: One of ENGINES.

    Raises:
        ValueError: Stems or shapes differ, there is no such engine, or museval has no answer.
    """
    return score_systems(references, [estimates], rate, engine=engine)[0]


def score_systems(
    references: dict[str, np.ndarray],
    systems: Sequence[dict[str, np.ndarray]],
    rate: int,
    *,
    engine: str = "bsseval",
) -> list[TrackScores]:
    """Scores of several systems' estimates of one track's stems, whose references are analysed once.

    Args:
        references: Stems by name, float (channels, samples) each.
        systems: Each system's estimates, of the same names and shapes.
        rate: Sample rate in Hz.
        engine: "bsseval" (ours), "sdr" (SDR alone, hundreds of times cheaper) or "museval" (the reference).

    Returns:
        The scores of each system, in order.

    Raises:
        ValueError: Stems or shapes differ, there is no such engine, or museval has no answer.
    """
    windows = window_scores(references, systems, rate, engine)
    return [_track_scores(references, *pair, rate) for pair in zip(systems, windows, strict=True)]


def _track_scores(
    references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], windows: dict[str, np.ndarray], rate: int
) -> TrackScores:
    scores = {}
    for stem, values in windows.items():
        mse, snr = magnitude_errors(references[stem], estimates[stem], rate)
        medians = (_finite(row, np.nanmedian) for row in values)
        scores[stem] = Score(
            **dict(zip(WINDOW_SCORES, medians, strict=True)),
            sdr_mean=_finite(values[0], np.nanmean),
            usdr=_number(usdr(references[stem], estimates[stem])),
            si_sdr=_number(si_sdr(references[stem], estimates[stem])),
            magnitude_mse=_number(mse),
            magnitude_snr=_number(snr),
            windows=values.shape[1],
            silent_windows=int(np.isnan(values[0]).sum()),
        )
    return TrackScores(scores, windows)


def window_scores(
    references: dict[str, np.ndarray], systems: Sequence[dict[str, np.ndarray]], rate: int, engine: str
) -> list[dict[str, np.ndarray]]:
    """SDR, ISR, SIR and SAR of every stem in every window of one second, for each system.

    Args:
        references: Stems by name, float (channels, samples) each.
        systems: Each system's estimates, of the same names and shapes.
        rate: Sample rate in Hz.
        engine: One of ENGINES; "sdr" leaves the other three scores NaN.

    Returns:
        For each system, per stem, float64 (4, windows) in dB; NaN for silence and for infinity.

    Raises:
        ValueError: Stems or shapes differ, there is no such engine, or museval has no answer.
    """
    if engine not in ENGINES:
        raise ValueError(f"{engine} is not an engine; choose one of {', '.join(ENGINES)}")
    for estimates in systems:
        _common_shape(references, estimates)
    if engine == "sdr":
        plain = (window_sdr(references, estimates, rate) for estimates in systems)
        return [
            {stem: np.stack([sdr, *np.full((3, len(sdr)), np.nan)]) for stem, sdr in by_stem.items()}
            for by_stem in plain
        ]
    truth = _stacked(references, references)
    if engine == "museval":
        scored = [museval_bss_eval(truth, _stacked(references, estimates), rate) for estimates in systems]
    else:
        results = bss_eval_systems(truth, [_stacked(references, estimates) for estimates in systems], rate)
        scored = [np.stack([result.sdr, result.isr, result.sir, result.sar]) for result in results]
    return [
        {
            stem: np.where(np.isfinite(values[:, index]), values[:, index], np.nan)
            for index, stem in enumerate(references)
        }
        for values in scored
    ]


def _stacked(stems: Iterable[str], signals: dict[str, np.ndarray]) -> np.ndarray:
    """Signals in the order of `stems`, (stems, channels, samples)."""
    return np.stack([signals[stem] for stem in stems])


def _common_shape(references: dict[str, np.ndarray], estimates: dict[str, np.ndarray]) -> tuple[int, int]:
    """(channels, samples) of all signals. Raises ValueError when stems or shapes differ."""
    if references.keys() != estimates.keys():
        raise ValueError(f"stems differ: {sorted(references)} and {sorted(estimates)}")
    shapes = {np.shape(x) for x in (*references.values(), *estimates.values())}
    if len(shapes) != 1:
        raise ValueError(f"references and estimates differ in shape: {sorted(shapes)}")
    return shapes.pop()


def magnitude_errors(reference: np.ndarray, estimate: np.ndarray, rate: int) -> tuple[float, float]:
    """Mean squared error and SNR of magnitude spectrograms, stretch by stretch in constant memory.

    Args:
        reference: The true stem, (channels, samples).
        estimate: Its estimate, of the same shape.
        rate: Sample rate in Hz.

    Returns:
        The mean of (|S| − |Ŝ|)², NaN for empty signals, and Σ|S|² over Σ(|S| − |Ŝ|)² in dB.
    """
    front_end = _FRONT_END.at_rate(rate)
    energy = error = 0.0
    count = 0
    for start in range(0, reference.shape[1], _STRETCH_SECONDS * rate):
        span = slice(start, start + _STRETCH_SECONDS * rate)
        ours, theirs = (
            spectrogram(torch.from_numpy(np.array(x[:, span], np.float32)), front_end).abs()
            for x in (reference, estimate)
        )
        energy += float(ours.square().sum(dtype=torch.float64))
        error += float((ours - theirs).square().sum(dtype=torch.float64))
        count += ours.numel()
    return (error / count if count else float("nan")), ratio_db(energy, error)


def usdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """SDR of the complete track as one window (Mitsufuji et al., Music Demixing Challenge 2021).

    Args:
        reference: The true stem, (channels, samples).
        estimate: Its estimate, of the same shape.

    Returns:
        dB, as `ratio_db`.
    """
    return ratio_db(_energy(reference), _energy(np.asarray(reference, np.float64) - estimate))


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant SDR of the complete track, channels together (Le Roux et al., "SDR – half-baked or well done?").

    Args:
        reference: The true stem, (channels, samples).
        estimate: Its estimate, of the same shape.

    Returns:
        dB; NaN for a silent reference.
    """
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    energy = _energy(reference)
    if not energy:
        return float("nan")
    target = reference * (np.vdot(reference, estimate) / energy)
    return ratio_db(_energy(target), _energy(estimate - target))


def fitted_gain(reference: np.ndarray, estimate: np.ndarray) -> float:
    """The gain on the estimate that brings it nearest to the reference by least squares.

    Args:
        reference: The true stem, (channels, samples).
        estimate: Its estimate, of the same shape.

    Returns:
        An amplitude factor; 0 for a silent estimate.
    """
    energy = _energy(estimate)
    return float(np.vdot(np.asarray(estimate, np.float64), reference) / energy) if energy else 0.0


def ratio_db(signal: float, error: float) -> float:
    """10 · log10(signal / error).

    Args:
        signal: Energy of the signal, in any unit.
        error: Energy of the error, in the same unit.

    Returns:
        dB; inf without error, −inf without signal, NaN without both.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * (np.log10(signal) - np.log10(error)))


def _energy(signal: np.ndarray) -> float:
    flat = np.asarray(signal, np.float64).ravel()
    return float(flat @ flat)


def _finite(values: np.ndarray, statistic) -> float | None:
    return float(statistic(values)) if np.isfinite(values).any() else None


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
