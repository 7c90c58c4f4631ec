"""How near an estimate is to its reference, in dB.

SDR here is BSSEval v4's (museval): the energy of the reference over the energy of estimate minus
reference, all channels together, over windows of one second; cSDR is its median over windows. The
512-tap filters of the BSSEval decomposition cancel out of SDR, so none are computed.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """One stem's scores. None where nothing can be said: no window, or all windows silent."""

    sdr: float | None
    sdr_mean: float | None
    usdr: float | None
    si_sdr: float | None
    windows: int
    silent_windows: int


def silent(signal: np.ndarray) -> bool:
    """museval's silence: the channels sum to zero at every sample. Stereo in anti-phase is silent too."""
    return not signal.sum(axis=0).any()


def window_sdr(references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int) -> dict[str, np.ndarray]:
    """SDR of every stem in every whole second, float64 (windows,); the last part of a second is dropped.

    All arrays are (channels, samples) of one length. As in museval a window is NaN for all stems when
    any reference or estimate is silent over it, and NaN where the estimate is exact. Raises
    ValueError when stems or lengths differ.
    """
    if references.keys() != estimates.keys():
        raise ValueError(f"stems differ: {sorted(references)} and {sorted(estimates)}")
    shapes = {np.shape(x) for x in (*references.values(), *estimates.values())}
    if len(shapes) != 1:
        raise ValueError(f"references and estimates differ in shape: {sorted(shapes)}")
    windows = shapes.pop()[1] // rate
    found = {stem: np.full(windows, np.nan) for stem in references}
    for index in range(windows):
        span = slice(index * rate, (index + 1) * rate)
        cut = [(stem, references[stem][:, span], estimates[stem][:, span]) for stem in references]
        if any(silent(reference) or silent(estimate) for _, reference, estimate in cut):
            continue
        for stem, reference, estimate in cut:
            value = ratio_db(_energy(reference), _energy(reference.astype(np.float64) - estimate))
            found[stem][index] = value if np.isfinite(value) else np.nan
    return found


def score(references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int) -> dict[str, Score]:
    """Scores of all stems of a track, scored together: which stems are in `references` decides which windows count."""
    per_window = window_sdr(references, estimates, rate)
    return {
        stem: Score(
            sdr=_finite(values, np.nanmedian),
            sdr_mean=_finite(values, np.nanmean),
            usdr=_number(usdr(references[stem], estimates[stem])),
            si_sdr=_number(si_sdr(references[stem], estimates[stem])),
            windows=len(values),
            silent_windows=int(np.isnan(values).sum()),
        )
        for stem, values in per_window.items()
    }


def usdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """SDR of the whole track as one window (Mitsufuji et al., Music Demixing Challenge 2021)."""
    return ratio_db(_energy(reference), _energy(np.asarray(reference, np.float64) - estimate))


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant SDR of the whole track, channels together (Le Roux et al., "SDR – half-baked or well done?")."""
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    energy = _energy(reference)
    if not energy:
        return float("nan")
    target = reference * (np.vdot(reference, estimate) / energy)
    return ratio_db(_energy(target), _energy(estimate - target))


def fitted_gain(reference: np.ndarray, estimate: np.ndarray) -> float:
    """The gain on `estimate` that brings it nearest to `reference` by least squares; 0 for a silent estimate."""
    energy = _energy(estimate)
    return float(np.vdot(np.asarray(estimate, np.float64), reference) / energy) if energy else 0.0


def ratio_db(signal: float, error: float) -> float:
    """10 · log10(signal / error); inf without error, −inf without signal, NaN without both."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * (np.log10(signal) - np.log10(error)))


def _energy(signal: np.ndarray) -> float:
    flat = np.asarray(signal, np.float64).ravel()
    return float(flat @ flat)


def _finite(values: np.ndarray, statistic) -> float | None:
    return float(statistic(values)) if np.isfinite(values).any() else None


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
