"""Scores in museval's JSON, one file per track, as SiSEC's tools read and write them.

FOLDER/test/<track>.json: {"targets": [{"name", "frames": [{"time", "duration", "metrics": {"SDR", …}}]}]}
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from storage.errors import MetricsError
from storage.files.atomic import write_bytes
from storage.files.naming import safe_parts
from storage.results.windows import SCORES, WindowScores

_DIGITS = 5  # museval rounds to as many
_MUSEVAL_VERSION = "0.4.1"


def write_museval(folder: Path, scores: Iterable[WindowScores], *, split: str = "test") -> list[Path]:
    """Write the windows of one model's tracks, one file per track.

    Args:
        folder: The parent of the split's folder.
        scores: The windows of one model; a file lists its stems in this order.
        split: The name of the split's folder, train or test in museval's tools.

    Returns:
        The files.
    """
    tracks: dict[str, list[WindowScores]] = {}
    for stem in scores:
        tracks.setdefault(stem.track_id, []).append(stem)
    # SiSEC's tools know tracks by their bare names; the folders above are named only where those collide.
    bare = {track_id: safe_parts(track_id)[-1] for track_id in tracks}
    collide = len(set(bare.values())) < len(bare)
    written = []
    for track_id, stems in tracks.items():
        name = "_".join(safe_parts(track_id)) if collide else bare[track_id]
        content = {"targets": [_target(stem) for stem in stems], "museval_version": _MUSEVAL_VERSION}
        written.append(folder / split / f"{name}.json")
        write_bytes(written[-1], json.dumps(content, indent=2).encode(), durable=False)
    return written


def read_museval(folder: Path, model_id: str) -> list[WindowScores]:
    """Every stem of every track below a folder.

    Args:
        folder: It is searched with all folders below it; a file's name without .json is its track's id.
        model_id: The model that the scores are ascribed to: the files do not name it.

    Returns:
        One entry per track and stem, in dB; windows that are NaN in the file are None.

    Raises:
        MetricsError: A file is other JSON, or there is none.
    """
    scores = []
    for path in sorted(folder.rglob("*.json")):
        try:
            targets = json.loads(path.read_text())["targets"]
            for target in targets:
                metrics = [frame["metrics"] for frame in target["frames"]]
                columns = {name: tuple(_number(m.get(name.upper())) for m in metrics) for name in SCORES}
                scores.append(WindowScores(model_id, path.stem, target["name"], **columns))
        except (ValueError, KeyError, TypeError) as error:
            raise MetricsError(f"{path} is not a track's scores in museval's JSON ({error!r})") from error
    if not scores:
        raise MetricsError(f"{folder} holds no scores in museval's JSON")
    return scores


def _target(scores: WindowScores) -> dict:
    frames = [
        {
            "time": float(index),
            "duration": 1.0,
            "metrics": {name.upper(): _rounded(getattr(scores, name)[index]) for name in ("sdr", "sir", "sar", "isr")},
        }
        for index in range(len(scores.sdr))
    ]
    return {"name": scores.stem, "frames": frames}


def _rounded(value: float | None) -> float:
    return math.nan if value is None else round(value, _DIGITS)


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
