"""One dataset track scored: the model between its floor and its ceiling, and other systems beside it."""

import time
from dataclasses import asdict

import numpy as np

from model.errors import ModelError
from model.scoring.oracle import ideal_ratio_mask
from model.scoring.scores import fitted_gain
from storage.audio import reader as audio
from storage.errors import StorageError
from storage.files.fingerprint import joint_fingerprint
from storage.results.metrics import FAILED, OK, StemRow
from storage.results.windows import WindowScores
from storage.sources.datasets import DatasetTrack
from tasks.score import read_references, score_stems, to_length, window_rows
from tasks.settings import ModelRequest, Scoring
from tasks.worker import deadline, resident_separator

FLOOR, CEILING, SYSTEM = "floor:mixture", "ceiling:irm", "system:"


class EvaluateSettings(Scoring, ModelRequest):
    """How a model is scored: its options, the resolved id of `model`, and its stems."""

    model_id: str
    stems: tuple[str, ...]


def evaluate_batch(settings: EvaluateSettings, tracks: list[DatasetTrack]) -> list[StemRow | WindowScores]:
    """Rows of several tracks; a track that cannot be read is one failed row."""
    rows = []
    for track in tracks:
        with deadline(settings.seconds_per_track):
            try:
                rows += _evaluate(settings, track)
            except (StorageError, ModelError, ValueError) as error:
                rows.append(failed_row(settings, track, str(error), type(error).__name__))
    return rows


def failed_row(settings: EvaluateSettings, track: DatasetTrack, sentence: str, error_class: str) -> StemRow:
    return StemRow(
        model_id=settings.model_id,
        track_id=track.track_id,
        path=track.name,
        stem=None,
        status=FAILED,
        error=sentence,
        error_class=error_class,
    )


def _evaluate(settings: EvaluateSettings, track: DatasetTrack) -> list[StemRow | WindowScores]:
    references, rate = read_references(track.stems, settings.stems)
    mixture = _mixture(track, references, rate)
    samples = mixture.shape[1]
    references = {stem: to_length(signal, samples) for stem, signal in references.items()}
    fingerprint = joint_fingerprint(source.path for source in track.stems.values())
    separator = resident_separator(settings.request)

    def rows(name: str, estimates: dict[str, np.ndarray], seconds: float | None) -> list[StemRow | WindowScores]:
        scores = score_stems(references, estimates, rate, engine=settings.engine)
        kept = window_rows(name, track.track_id, scores) if settings.windows else []
        return kept + [
            StemRow(
                model_id=name,
                track_id=track.track_id,
                path=track.name,
                stem=stem,
                status=OK,
                scenario=scores.scenario,
                duration_s=samples / rate,
                sample_rate=rate,
                channels=mixture.shape[0],
                seconds=seconds,
                source_fingerprint=fingerprint,
                **asdict(found),
            )
            for stem, found in scores.stems.items()
        ]

    found = rows(FLOOR, {stem: mixture for stem in references}, None)
    began = time.perf_counter()
    estimates = separator.separate(mixture, rate)
    found += rows(settings.model_id, estimates, time.perf_counter() - began)
    complete = {stem: np.broadcast_to(references[stem], mixture.shape) for stem in references}
    found += rows(CEILING, ideal_ratio_mask(complete, mixture, rate), None)
    for name, source in track.systems:
        vocals, own = audio.read(source.path, stream=source.stream)
        if own != rate:
            raise audio.AudioError(f"{source.path} is at {own} Hz, its references at {rate} Hz")
        vocals = np.broadcast_to(to_length(vocals, samples), mixture.shape)
        # Published excerpts come at a level of their own; one gain a track is not the system's doing.
        vocals = vocals * np.float32(fitted_gain(complete["vocals"], vocals))
        found += rows(SYSTEM + name, {"vocals": vocals, "accompaniment": mixture - vocals}, None)
    return found


def _mixture(track: DatasetTrack, references: dict[str, np.ndarray], rate: int) -> np.ndarray:
    """The dataset's own mixture, or the sum of the stems where it has none."""
    if track.mixture is None:
        channels = max(signal.shape[0] for signal in references.values())
        return np.sum([np.broadcast_to(s, (channels, s.shape[1])) for s in references.values()], axis=0)
    mixture, own = audio.read(track.mixture.path, stream=track.mixture.stream)
    if own != rate:
        raise audio.AudioError(f"{track.mixture.path} is at {own} Hz, its stems at {rate} Hz")
    return mixture
