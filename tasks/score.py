"""Stems against their references."""

from collections.abc import Mapping

import numpy as np

from model.scores import Score, score
from storage import audio
from storage.datasets import Source
from storage.errors import AudioError


def read_references(references: Mapping[str, Source], stems: tuple[str, ...]) -> tuple[dict[str, np.ndarray], int]:
    """The reference of each of `stems` as (channels, samples), and their rate.

    An accompaniment that is not there is the sum of all that are not vocals. Raises AudioError when a
    reference cannot be read, is missing, or differs from the others in rate.
    """
    signals, rates = {}, {}
    for stem, source in references.items():
        signals[stem], rates[stem] = audio.read(source.path, stream=source.stream)
    if len(set(rates.values())) > 1:
        raise AudioError(f"the references differ in sample rate: {rates}")
    wanted = {}
    for stem in stems:
        if stem in signals:
            wanted[stem] = signals[stem]
        elif stem == "accompaniment" and set(signals) - {"vocals"}:
            wanted[stem] = _sum([signal for name, signal in signals.items() if name != "vocals"])
    if not wanted:
        raise AudioError(f"there is no reference for {', '.join(stems)} among {', '.join(references) or 'none'}")
    samples = max(signal.shape[1] for signal in wanted.values())
    wanted = {stem: to_length(signal, samples) for stem, signal in wanted.items()}
    return wanted, next(iter(rates.values()))


def score_stems(
    references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int
) -> tuple[dict[str, Score], str]:
    """Scores of the stems that have both, and the scenario (their names): which were scored together.

    As in `museval.evaluate` an estimate is padded or cut to its reference's length. Mono references of
    stereo estimates count for both channels.
    """
    together = [stem for stem in references if stem in estimates]
    channels = max(estimates[stem].shape[0] for stem in together)
    matched = {stem: np.broadcast_to(references[stem], (channels, references[stem].shape[1])) for stem in together}
    fitted = {stem: to_length(estimates[stem], matched[stem].shape[1]) for stem in together}
    return score(matched, fitted, rate), "/".join(together)


def to_length(signal: np.ndarray, samples: int) -> np.ndarray:
    signal = signal[:, :samples]
    return np.pad(signal, ((0, 0), (0, samples - signal.shape[1])))


def _sum(signals: list[np.ndarray]) -> np.ndarray:
    channels, samples = (max(signal.shape[i] for signal in signals) for i in (0, 1))
    return np.sum([np.broadcast_to(to_length(s, samples), (channels, samples)) for s in signals], axis=0)
