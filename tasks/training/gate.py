"""The gate of a retraining: may the challenger take the champion's place?"""

import json
import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from storage.results.metrics import OK
from storage.results.training_rows import DecisionRow

LEAD = "vocals"
TOLERANCE_DB = 0.1
LEAST_RISE_DB = 0.1
# Each model's prediction is calibrated separately, and is off by some tenths of a dB over any one kind of music
# (`bench/predict.py`): a smaller difference of two predictions says nothing of the sound.
LEAST_PREDICTED_RISE_DB = 0.5
CONFIDENCE = 0.9
# Below five songs no order statistics enclose a median with 90 % probability: 1 − 2 · 0.5⁴ is 87.5 %.
LEAST_SONGS = 5
_RESAMPLES = 9999


@dataclass(frozen=True)
class Contest:
    """Two models on one test split, over the songs that both were scored on; all in dB.

    Args:
        challenger: Median cSDR per stem.
        champion: Median cSDR per stem.
        rises: Median per stem of the songs' differences, challenger minus champion.
        low: Lower end of the 90 % interval of the rise of vocals, NaN where there are too few songs.
        high: Its upper end.
        songs: How many songs were scored with both, in vocals where they have them.
        failed: Songs that the champion manages and the challenger does not.
    """

    challenger: dict[str, float]
    champion: dict[str, float]
    rises: dict[str, float]
    low: float
    high: float
    songs: int
    failed: tuple[str, ...]


def contest(rows: list[dict], challenger: str, champion: str) -> Contest:
    """Pair the scores of two models, song by song and stem by stem.

    Args:
        rows: Rows of the metrics table, of which the models' OK rows with an SDR count.
        challenger: The model id of the newly trained model.
        champion: The model id of the preset's present model.
    """
    scores: dict[str, dict[tuple[str, str], float]] = {challenger: {}, champion: {}}
    for row in rows:
        if row["model_id"] in scores and row["status"] == OK and row["sdr"] is not None:
            scores[row["model_id"]][row["stem"], row["track_id"]] = row["sdr"]
    ours, theirs = scores[challenger], scores[champion]
    pairs: dict[str, list[tuple[float, float]]] = {}
    for stem, track in sorted(ours.keys() & theirs.keys()):
        pairs.setdefault(stem, []).append((ours[stem, track], theirs[stem, track]))
    paired = {stem: np.array(values) for stem, values in pairs.items()}
    differences = {stem: values[:, 0] - values[:, 1] for stem, values in paired.items()}
    lead = differences.get(LEAD, np.empty(0))
    low, high = interval(lead)
    failed = sorted({track for _, track in theirs.keys() - ours.keys()} - {track for _, track in ours})
    return Contest(
        challenger={stem: float(np.median(values[:, 0])) for stem, values in paired.items()},
        champion={stem: float(np.median(values[:, 1])) for stem, values in paired.items()},
        rises={stem: float(np.median(values)) for stem, values in differences.items()},
        low=low,
        high=high,
        songs=len(lead),
        failed=tuple(failed),
    )


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The 90 % interval of the median of songs' differences, by the percentile bootstrap over songs.

    Args:
        differences: Challenger minus champion, one value per song, dB.

    Returns:
        Its lower and its upper end, NaN for fewer than `LEAST_SONGS` songs. The same differences have the same
        interval every time.
    """
    if len(differences) < LEAST_SONGS:
        return math.nan, math.nan
    result = bootstrap(
        (differences,), np.median, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(result.low), float(result.high)


def decide(
    preset: str,
    challenger: str,
    champion: str | None,
    dataset: str,
    result: Contest | None,
    *,
    least_rise: float = LEAST_RISE_DB,
    looks: int = 1,
    predicted: bool = False,
) -> DecisionRow:
    """Promote only what is better beyond the chance of which songs happen to be in the test split.

    The lower end of the 90 % interval of the median rise of vocals lies above 0, the rise is at least
    `least_rise`, and no stem falls by more than 0.1 dB. Without a champion the challenger has nobody to beat. A
    challenger that cannot do a track the champion does is not promoted, whatever its scores.

    Args:
        preset: The preset whose champion is challenged.
        challenger: The challenger's model id.
        champion: The champion's model id, or None.
        dataset: The test set.
        result: What the two came to on it, None without a champion.
        least_rise: The least median rise of vocals that is worth a promotion, dB.
        looks: How many decisions, this one included, have been taken on this test set.
        predicted: Whether the scores are each model's predictions of its own stems. The rise must then be at least
            `LEAST_PREDICTED_RISE_DB`, and the reason says what the scores are.
    """
    if predicted:
        least_rise = max(least_rise, LEAST_PREDICTED_RISE_DB)
    promoted, reason = _verdict(challenger, champion, result, least_rise)
    if predicted and result is not None:
        if LEAD not in result.rises:
            reason = f"there is no song whose {LEAD} both models predict a score of"
        reason += "; scores are predicted by the models from their own doubt, not measured"
    ours, theirs = (result.challenger, result.champion) if result else ({}, {})
    return DecisionRow(
        preset=preset,
        challenger=challenger,
        champion=champion,
        promoted=promoted,
        reason=reason,
        dataset=dataset,
        tracks=result.songs if result else 0,
        challenger_vocals=ours.get(LEAD),
        champion_vocals=theirs.get(LEAD),
        challenger_medians=json.dumps(ours),
        champion_medians=json.dumps(theirs),
        rise=result.rises.get(LEAD) if result else None,
        rise_low=_known(result.low) if result else None,
        rise_high=_known(result.high) if result else None,
        least_rise=least_rise,
        looks=looks,
        score="predicted" if predicted else "measured",
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _verdict(challenger: str, champion: str | None, result: Contest | None, least_rise: float) -> tuple[bool, str]:
    if champion is None or result is None:
        return True, "there was no champion"
    if challenger == champion:
        return False, "the training ended with the champion's weights"
    if result.failed:
        return False, f"it fails on {len(result.failed)} tracks that the champion separates, e.g. {result.failed[0]}"
    if LEAD not in result.rises:
        return False, f"the test split has no {LEAD} that both were scored on"
    if result.songs < LEAST_SONGS:
        return (
            False,
            f"{result.songs} songs are too few to tell an improvement from chance; {LEAST_SONGS} or more are needed",
        )
    rise = result.rises[LEAD]
    measured = f"{rise:+.2f} dB in the median, 90 % interval {result.low:+.2f} to {result.high:+.2f}"
    if result.low <= 0:
        return False, f"the rise of {LEAD} cannot be told from chance over {result.songs} songs ({measured})"
    if rise < least_rise:
        return False, f"{LEAD} rises by less than {least_rise} dB ({measured})"
    for stem, change in result.rises.items():
        if change < -TOLERANCE_DB:
            return False, f"{stem} falls by {-change:.2f} dB in the median, more than {TOLERANCE_DB} dB"
    return True, f"{LEAD} rises over {result.songs} songs ({measured}) and no stem falls by more than {TOLERANCE_DB} dB"
