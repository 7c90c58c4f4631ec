"""One dataset track scored: the model between its floor and its ceiling, and other systems beside it."""

import logging
import time
from dataclasses import asdict, replace

import numpy as np

from model.errors import DeviceLostError, ModelError
from model.scoring.oracle import ideal_ratio_mask
from model.scoring.scores import fitted_gain
from model.separation.stream import separate_with_evidence
from storage.audio import reader
from storage.errors import AudioError, ModelLost, StorageError
from storage.files.fingerprint import joint_fingerprint
from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results.separation_rows import FAILED, OK, StemRow, WindowScores
from storage.sources.datasets import DatasetTrack
from tasks.pages.kept import keep_players
from tasks.pages.players import MIXTURE, interesting_start, player
from tasks.prediction import arithmetic_columns, predicted_columns, predicted_windows
from tasks.score import read_references, score_all, to_length, window_rows
from tasks.settings import ModelRequest, Scoring
from tasks.worker import deadline, end_if_worker, run_separator

log = logging.getLogger("unbraid.evaluate")

FLOOR, CEILING, SYSTEM = "floor:mixture", "ceiling:irm", "system:"
_HEARD_SECONDS = 6.0


class EvaluateSettings(Scoring, ModelRequest):
    """How a model is scored: its options, the resolved id of `model`, and its stems.

    An excerpt of every track is kept below `out` for the report of the run `run_id`; none where that is "".
    """

    model_id: str
    stems: tuple[str, ...]
    out: str = ""
    run_id: str = ""


def evaluate_batch(settings: EvaluateSettings, tracks: list[DatasetTrack]) -> list[StemRow | WindowScores]:
    """Score the model on several tracks; a track that cannot be read is one failed row.

    Args:
        settings: The model, its stems and how they are scored.
        tracks: Dataset tracks with references, scored one after the other.

    Returns:
        Per track and system (floor, model, ceiling, other systems) one row per stem, and the scores of its windows
        where they are kept.

    Raises:
        ModelLost: The model is gone, or has become another.
    """
    rows = []
    for track in tracks:
        with deadline(settings.seconds_per_track):
            try:
                rows += _evaluate(settings, track)
            except DeviceLostError:  # and every other track of this process would fail alike
                end_if_worker()
                raise
            except ModelLost:  # so would they here
                raise
            except (StorageError, ModelError, ValueError) as error:
                rows.append(failed_row(settings, track, str(error), type(error).__name__))
    return rows


def failed_row(settings: EvaluateSettings, track: DatasetTrack, sentence: str, error_class: str) -> StemRow:
    """The one row of a track that could not be scored.

    Args:
        settings: Names the model that the row is filed under.
        track: The track that failed.
        sentence: What went wrong, for the user.
        error_class: The exception's class name, to group failures by.
    """
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
    """Rows of the floor, the model, the ceiling and other systems, which are scored together."""
    references, rate = read_references(track.stems, settings.stems)
    mixture = _mixture(track, references, rate)
    references = {stem: to_length(signal, mixture.shape[1]) for stem, signal in references.items()}
    separator = run_separator(settings.request, settings.model_id if settings.run_id else None)
    began = time.perf_counter()
    estimates, evidence = separate_with_evidence(separator, mixture, rate)
    seconds = time.perf_counter() - began
    if settings.run_id:
        _keep_excerpt(settings, track, mixture, estimates, references, rate)
    complete = {stem: np.broadcast_to(references[stem], mixture.shape) for stem in references}
    systems = {
        FLOOR: dict.fromkeys(references, mixture),
        settings.model_id: estimates,
        CEILING: ideal_ratio_mask(complete, mixture, rate),
        **_other_systems(track, complete, mixture, rate),
    }
    about = StemRow(
        model_id="",
        track_id=track.track_id,
        path=track.name,
        stem=None,
        status=OK,
        duration_s=mixture.shape[1] / rate,
        sample_rate=rate,
        channels=mixture.shape[0],
        source_fingerprint=joint_fingerprint(source.path for source in track.stems.values()),
    )
    predicted = predicted_columns(separator, evidence)
    rows: list[StemRow | WindowScores] = []
    if settings.windows:
        windows = predicted_windows(separator, evidence, settings.model_id, track.track_id)
        rows += [entry for entry in windows if entry.stem in references]
    for name, scores in score_all(references, systems, rate, engine=settings.engine).items():
        rows += window_rows(name, track.track_id, scores) if settings.windows else []
        rows += [
            replace(about, model_id=name, stem=stem, scenario=scores.scenario, **asdict(score))
            if name != settings.model_id
            else replace(
                about,
                model_id=name,
                stem=stem,
                scenario=scores.scenario,
                seconds=seconds,
                **asdict(score),
                **predicted[stem],
                **arithmetic_columns(separator),
            )
            for stem, score in scores.stems.items()
        ]
    return rows


def _keep_excerpt(
    settings: EvaluateSettings, track: DatasetTrack, mixture: np.ndarray, estimates: dict[str, np.ndarray],
    references: dict[str, np.ndarray], rate: int,
) -> None:  # fmt: skip
    """Keep what the run's report plays and draws of a track; without it the scores are the same."""
    lead = settings.stems[0]
    start = interesting_start(((signal, rate) for signal in references.values()), _HEARD_SECONDS)
    cut = slice(round(start * rate), round((start + _HEARD_SECONDS) * rate))
    true = {f"true {lead}": references[lead]} if lead in references else {}
    heard = {name: signal[:, cut] for name, signal in {MIXTURE: mixture, **estimates, **true}.items()}
    file = OutputLayout(location(settings.out)).player(settings.run_id, track.track_id)
    try:
        made = player(track.name, heard, rate, start=start, muted=[MIXTURE, *true])
        keep_players(file, [made])
    except (OSError, StorageError, RuntimeError) as error:
        log.warning("no excerpt of %s could be kept: %s", track.name, error)


def _other_systems(
    track: DatasetTrack, references: dict[str, np.ndarray], mixture: np.ndarray, rate: int
) -> dict[str, dict[str, np.ndarray]]:
    """The estimates of the systems whose vocals lie beside the track, by their model id in the metrics.

    Raises:
        AudioError: A file cannot be read, is at another rate, or there are no vocals to compare it with.
    """
    if track.systems and "vocals" not in references:
        raise AudioError(f"{track.name} has results of other systems but no vocals; add the vocals or remove systems/")
    systems = {}
    for name, source in track.systems:
        vocals, system_rate = reader.read(source.path, stream=source.stream)
        if system_rate != rate:
            raise AudioError(f"{source.path} is at {system_rate} Hz, its references at {rate} Hz")
        vocals = np.broadcast_to(to_length(vocals, mixture.shape[1]), mixture.shape)
        # Published excerpts come at arbitrary levels; one gain per track is not the system's doing.
        vocals = vocals * np.float32(fitted_gain(references["vocals"], vocals))
        systems[SYSTEM + name] = {"vocals": vocals, "accompaniment": mixture - vocals}
    return systems


def _mixture(track: DatasetTrack, references: dict[str, np.ndarray], rate: int) -> np.ndarray:
    """The dataset's mixture, or the sum of the stems where it has none."""
    if track.mixture is None:
        channels = max(signal.shape[0] for signal in references.values())
        return np.sum([np.broadcast_to(s, (channels, s.shape[1])) for s in references.values()], axis=0)
    mixture, mixture_rate = reader.read(track.mixture.path, stream=track.mixture.stream)
    if mixture_rate != rate:
        raise AudioError(f"{track.mixture.path} is at {mixture_rate} Hz, its stems at {rate} Hz")
    return mixture
