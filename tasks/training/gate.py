"""The gate of a retraining: may the challenger take the champion's place?"""

import json
from dataclasses import dataclass

import numpy as np

from storage.results.metrics import OK
from storage.results.rows import DecisionRow

LEAD = "vocals"
TOLERANCE_DB = 0.1


@dataclass(frozen=True)
class Contest:
    """Two models on one test split: median cSDR a stem over the tracks that both were scored on, in dB."""

    challenger: dict[str, float]
    champion: dict[str, float]
    tracks: int
    failed: tuple[str, ...]


def contest(rows: list[dict], challenger: str, champion: str) -> Contest:
    """From rows of the metrics table. `failed` names tracks the champion manages and the challenger does not."""
    scores: dict[str, dict[tuple[str, str], float]] = {challenger: {}, champion: {}}
    for row in rows:
        if row["model_id"] in scores and row["status"] == OK and row["sdr"] is not None:
            scores[row["model_id"]][row["track_id"], row["stem"]] = row["sdr"]
    ours, theirs = scores[challenger], scores[champion]
    common = ours.keys() & theirs.keys()
    stems = sorted({stem for _, stem in common})

    def medians(found: dict[tuple[str, str], float]) -> dict[str, float]:
        return {stem: float(np.median([found[key] for key in common if key[1] == stem])) for stem in stems}

    failed = sorted({track for track, _ in theirs.keys() - ours.keys()} - {track for track, _ in ours})
    return Contest(medians(ours), medians(theirs), len({track for track, _ in common}), tuple(failed))


def decide(preset: str, challenger: str, champion: str | None, dataset: str, found: Contest | None) -> DecisionRow:
    """Promote only if the median of vocals rises and no stem's median falls by more than 0.1 dB.

    Without a champion the challenger has nobody to beat. A challenger that cannot do a track the champion
    does is not promoted, whatever its medians.
    """
    promoted, reason = _verdict(challenger, champion, found)
    ours, theirs = (found.challenger, found.champion) if found else ({}, {})
    return DecisionRow(
        preset=preset,
        challenger=challenger,
        champion=champion,
        promoted=promoted,
        reason=reason,
        dataset=dataset,
        tracks=found.tracks if found else 0,
        challenger_vocals=ours.get(LEAD),
        champion_vocals=theirs.get(LEAD),
        challenger_medians=json.dumps(ours),
        champion_medians=json.dumps(theirs),
    )


def _verdict(challenger: str, champion: str | None, found: Contest | None) -> tuple[bool, str]:
    if champion is None or found is None:
        return True, "there was no champion"
    if challenger == champion:
        return False, "the training ended with the champion's own weights"
    if found.failed:
        return False, f"it fails on {len(found.failed)} tracks that the champion does, {found.failed[0]} first"
    if LEAD not in found.challenger:
        return False, f"the test split has no {LEAD} that both were scored on"
    rise = found.challenger[LEAD] - found.champion[LEAD]
    if rise <= 0:
        return False, f"the median of {LEAD} does not rise ({rise:+.2f} dB)"
    for stem, own in found.challenger.items():
        fall = found.champion[stem] - own
        if fall > TOLERANCE_DB:
            return False, f"the median of {stem} falls by {fall:.2f} dB, more than {TOLERANCE_DB} dB"
    return True, f"the median of {LEAD} rises by {rise:.2f} dB and no stem falls by more than {TOLERANCE_DB} dB"
