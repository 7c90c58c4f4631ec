"""Stems against their references."""

from collections.abc import Mapping

import numpy as np

from model.errors import ModelError
from model.scoring.scores import WINDOW_SCORES, TrackScores, score_systems
from storage.audio import reader as audio
from storage.errors import AudioError
from storage.files.layout import OutputLayout
from storage.results.separation_rows import OK, StemRow, WindowScores
from storage.sources.datasets import Source
from tasks.settings import Engine


def read_references(references: Mapping[str, Source], stems: tuple[str, ...]) -> tuple[dict[str, np.ndarray], int]:
    """The reference of each of `stems`.

    An accompaniment that is not there is the sum of all that are not vocals.

    Args:
        references: Stem → where its audio is.
        stems: Which references are needed.

    Returns:
        Stem → float32 (channels, samples), all of one length, and their rate in Hz.

    Raises:
        AudioError: A reference cannot be read, none of the stems has one, or their rates differ.
    """
    signals, rates = {}, {}
    for stem, source in references.items():
        signals[stem], rates[stem] = audio.read(source.path, stream=source.stream)
    if len(set(rates.values())) > 1:
        raise AudioError(f"the references differ in sample rate: {rates}")
    chosen = {}
    for stem in stems:
        if stem in signals:
            chosen[stem] = signals[stem]
        elif stem == "accompaniment" and set(signals) - {"vocals"}:
            chosen[stem] = _sum([signal for name, signal in signals.items() if name != "vocals"])
    if not chosen:
        raise AudioError(f"there is no reference for {', '.join(stems)} among {', '.join(references) or 'none'}")
    samples = max(signal.shape[1] for signal in chosen.values())
    chosen = {stem: to_length(signal, samples) for stem, signal in chosen.items()}
    return chosen, next(iter(rates.values()))


def score_stems(
    references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int, *, engine: Engine = "bsseval"
) -> TrackScores:
    """Scores of the stems that have both a reference and an estimate; see `score_all`.

    Args:
        references: Stems by name, float (channels, samples) each.
        estimates: The system's stems, likewise.
        rate: Sample rate in Hz of both.
        engine: "bsseval" (ours), "sdr" (SDR alone) or "museval".

    Raises:
        ModelError: There is no stem in common.
        ValueError: The engine has no answer.
    """
    return score_all(references, {"": estimates}, rate, engine=engine)[""]


def score_all(
    references: dict[str, np.ndarray],
    systems: Mapping[str, dict[str, np.ndarray]],
    rate: int,
    *,
    engine: Engine = "bsseval",
) -> dict[str, TrackScores]:
    """Scores of several systems, each over those of its stems that have a reference.

    As in `museval.evaluate` an estimate is padded or cut to its reference's length. Mono references of
    stereo estimates count for both channels. Systems that estimate the same stems share the work on the references.

    Args:
        references: Stems by name, float (channels, samples) each.
        systems: System → stem → estimate, float (channels, samples).
        rate: Sample rate in Hz of all of them.
        engine: "bsseval" (ours), "sdr" (SDR alone) or "museval".

    Returns:
        System → its scores, per stem and per window.

    Raises:
        ModelError: A system and the references have no stem in common.
        ValueError: The engine has no answer.
    """
    alike: dict[tuple, list[str]] = {}
    for name, estimates in systems.items():
        together = tuple(stem for stem in references if stem in estimates)
        if not together:
            raise ModelError(
                f"there is nothing to score: the references are {', '.join(references)}, the estimates "
                f"{', '.join(estimates)}"
            )
        channels = max(estimates[stem].shape[0] for stem in together)
        alike.setdefault((together, channels), []).append(name)
    scores: dict[str, TrackScores] = {}
    for (together, channels), names in alike.items():
        matched = {stem: np.broadcast_to(references[stem], (channels, references[stem].shape[1])) for stem in together}
        fitted = [{stem: to_length(systems[name][stem], matched[stem].shape[1]) for stem in together} for name in names]
        scores |= zip(names, score_systems(matched, fitted, rate, engine=engine), strict=True)
    return scores


def window_rows(model_id: str, track_id: str, scores: TrackScores) -> list[WindowScores]:
    """The windows of all stems as rows of the windows table.

    Args:
        model_id: The model or system that the rows are filed under.
        track_id: The track that the rows are filed under.
        scores: The track's scores, whose windows hold (4, windows) per stem in dB.

    Returns:
        One entry per stem; a window without a finite score is None.
    """
    rows = []
    for stem, values in scores.windows.items():
        columns = [tuple(float(v) if np.isfinite(v) else None for v in row) for row in values]
        rows.append(WindowScores(model_id, track_id, stem, **dict(zip(WINDOW_SCORES, columns, strict=True))))
    return rows


def import_scores(out: OutputLayout, scores: list[WindowScores]) -> tuple[str, int]:
    """Write scores that another program computed as a run.

    Args:
        out: The output folder that gets the run.
        scores: The windows of every stem of every track, all of one model; there is at least one.

    Returns:
        The run's id and the number of its tracks.
    """
    from storage import runs
    from storage.results.metrics import compact, write_part
    from storage.results.windows import write_windows

    run_id = runs.new_run_id("import")
    runs.begin(out, run_id, {"model_id": scores[0].model_id})
    tracks: dict[str, list[WindowScores]] = {}
    for stem in scores:
        tracks.setdefault(stem.track_id, []).append(stem)
    for track_id, stems in tracks.items():
        rows = [
            StemRow(
                model_id=stem.model_id,
                track_id=track_id,
                path=track_id,
                stem=stem.stem,
                status=OK,
                scenario="/".join(other.stem for other in stems),
                sdr_mean=_statistic(stem.sdr, np.nanmean),
                windows=len(stem.sdr),
                silent_windows=stem.sdr.count(None),
                sdr=_statistic(stem.sdr, np.nanmedian),
                isr=_statistic(stem.isr, np.nanmedian),
                sir=_statistic(stem.sir, np.nanmedian),
                sar=_statistic(stem.sar, np.nanmedian),
            )
            for stem in stems
        ]
        write_windows(out, run_id, stems)
        write_part(out, run_id, rows)
    compact(out, run_id)
    runs.end(out, run_id, runs.COMPLETED, {"tracks": len(tracks)})
    return run_id, len(tracks)


def _statistic(values: tuple[float | None, ...], statistic) -> float | None:
    known = [value for value in values if value is not None]
    return float(statistic(known)) if known else None


def to_length(signal: np.ndarray, samples: int) -> np.ndarray:
    """The signal cut at its end, or padded there with silence.

    Args:
        signal: (channels, samples) of any length.
        samples: The length to bring it to.

    Returns:
        (channels, `samples`).
    """
    signal = signal[:, :samples]
    return np.pad(signal, ((0, 0), (0, samples - signal.shape[1])))


def _sum(signals: list[np.ndarray]) -> np.ndarray:
    channels, samples = (max(signal.shape[i] for signal in signals) for i in (0, 1))
    return np.sum([np.broadcast_to(to_length(s, samples), (channels, samples)) for s in signals], axis=0)
