"""The predicted score's calibration: known mixtures at many vocal levels, separated and scored."""

import dataclasses
import logging
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from model.checkpoint import Weights
from model.preset import load_preset
from model.separation.fitting import Observation, fit, observe
from model.separation.stream import Separator

log = logging.getLogger("unbraid.train")

# Vocal levels in dB against the song's original balance, taken in turn: a catalog has them all.
GAINS = (0.0, -9.0, 3.0, -12.0, 0.0, 6.0, -6.0, 0.0, -3.0)
_SECONDS = 20


def observations(
    separator: Separator, songs: Iterable[tuple[str, dict[str, np.ndarray], int]], remixes: int = 2
) -> list[Observation]:
    """Separate every song at `remixes` levels of its first stem and score what comes out.

    Args:
        separator: What is calibrated.
        songs: (name, stems (channels, samples) each of one shape, rate). A song without a stem has zeros for it. The
            first 20 s are taken.
        remixes: How many of `GAINS` each song gets; the next song goes on with the next.

    Returns:
        `remixes` observations per song; one for a song whose first stem is silent.
    """
    seen: list[Observation] = []
    running: deque[Future] = deque()
    # Excerpts are too short to give every core a segment, so mixtures go side by side; no more of them wait in memory.
    with ThreadPoolExecutor(separator.side_by_side) as threads:
        for index, (name, stems, rate) in enumerate(songs):
            stems = {stem: signal[:, : _SECONDS * rate] for stem, signal in stems.items()}
            lead = next(iter(stems))
            for turn in range(remixes if stems[lead].any() else 1):
                gain = GAINS[(index * remixes + turn) % len(GAINS)]
                running.append(threads.submit(observe, separator, name, stems, rate, gain))
                if len(running) > separator.side_by_side:
                    seen.append(running.popleft().result())
        return seen + [future.result() for future in running]


def calibrated(weights: Weights, observed: dict[str, list[Observation]]) -> Weights:
    """The weights with a calibration per preset, fitted to what was observed with it; the tensors stay as they are.

    Args:
        weights: What is calibrated; calibrations it has of other presets are kept.
        observed: Preset → separations of known mixtures under it. One with too few songs gets no calibration.
    """
    fits = {preset: fit(seen) for preset, seen in observed.items()}
    for preset, calibration in fits.items():
        for stem, line in calibration.stems.items():
            log.info(
                "%s: predicted SDR of %s within %.1f dB in the mean, fitted on %d songs",
                preset, stem, line.error, line.songs,
            )  # fmt: skip
    kept = {preset: calibration.to_dict() for preset, calibration in fits.items() if calibration.stems}
    return dataclasses.replace(weights, calibrations={**weights.calibrations, **kept})


def borrowed(weights: Weights, preset: str, **options) -> Separator:
    """A separator of `weights` under another preset that borrows them.

    Args:
        weights: The lender's weights.
        preset: The name of the preset that borrows them.
        options: Those of `Separator`: model_id, device, precision.

    Raises:
        PresetError: There is no such preset.
    """
    viewing = load_preset(preset).viewing(weights.preset)
    return Separator.from_weights(dataclasses.replace(weights, preset=viewing), **options)
