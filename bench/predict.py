"""Judges how well scores are predicted on songs that neither calibration nor training has seen.

    python bench/predict.py WEIGHTS.safetensors [PRESET]

On real songs as they are (dsd100_dev_excerpts, musdb18_7s/valid, stems_mp4), clips of the MIR-1K singers annar and
Kenshin, and remixes of all of them with the vocals at −12, −6 and +6 dB: Pearson's r between predicted and true cSDR,
mean absolute error, and the share of true scores in their 80 % interval. Then vocal presence: real songs against
`instrumentals` that the calibration was not fitted on, as the area under the ROC curve and the precision at 99 %
recall.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from calibrate import HELD_OUT_SINGERS, SHARED, Song, as_stems, mir1k, stem_folder, without_voice

from model.checkpoint import Weights
from model.separation.fitting import Observation, observe
from model.separation.prediction import predict, vocal_presence
from model.separation.stream import Separator
from storage.audio.reader import read
from tasks.training.calibrate import borrowed

GAINS = (0, -12, -6, 6)
_MP4_STEMS = ("drums", "bass", "other", "vocals")


def main(path: Path, preset: str | None) -> None:
    """Print how well scores and vocal presence are predicted.

    Args:
        path: The weights.
        preset: A preset that borrows them; the preset of the weights where None.
    """
    began = time.process_time()
    weights = Weights.from_bytes(path.read_bytes(), path.name)
    as_shipped = preset in (None, weights.preset.name)
    separator = Separator.from_weights(weights) if as_shipped else borrowed(weights, str(preset))
    seen: list[tuple[str, int, Observation]] = []
    for source, (name, stems, rate) in judged(separator.stems):
        for gain in GAINS:
            seen.append((source, gain, observe(separator, name, stems, rate, gain, faint=None)))
    for stem in separator.stems:
        show(f"{stem}, real songs", separator, stem, [o for s, gain, o in seen if not gain and s != "singers"])
        show(f"{stem}, held-out singers", separator, stem, [o for s, gain, o in seen if not gain and s == "singers"])
        show(f"{stem}, remixes −12…+6 dB", separator, stem, [o for _, _, o in seen])
    songs = [o for _, gain, o in seen if not gain]
    others = [
        observe(separator, *without_voice(file, separator.stems), faint=None)
        for index, file in enumerate(sorted((SHARED / "instrumentals").iterdir()))
        if index % 4 == 2
    ]
    show_presence(*(np.array([presence(separator, o) for o in group]) for group in (songs, others)))
    print(f"{len(seen) + len(others)} mixtures in {time.process_time() - began:.0f} CPU seconds")


def judged(stems: tuple[str, ...]) -> Iterator[tuple[str, Song]]:
    """The songs that predictions are judged on.

    Args:
        stems: The model's stems; the held-out singers are left out where there are more than two.

    Returns:
        (source, song) each: the source is a folder's name, or "singers".
    """
    for name in ("dsd100_dev_excerpts", "musdb18_7s/valid"):
        for folder in sorted((SHARED / name).iterdir()):
            for song in as_stems(folder.name, *stem_folder(folder), stems):
                yield name, song
    for path in sorted((SHARED / "stems_mp4").iterdir()):
        parts = {stem: read(path, stream=index + 1) for index, stem in enumerate(_MP4_STEMS)}
        rate = parts["vocals"][1]
        start = max(0, min(60 * rate, parts["vocals"][0].shape[1] - 10 * rate))
        cut = {stem: signal[:, start : start + 10 * rate] for stem, (signal, _) in parts.items()}
        for song in as_stems(path.name, cut, rate, stems):
            yield "stems_mp4", song
    if len(stems) == 2:
        for song in mir1k(lambda singer: singer in HELD_OUT_SINGERS, each=6):
            yield "singers", song


def show(what: str, separator: Separator, stem: str, seen: list[Observation]) -> None:
    """Print one line on how well the scores of a stem are predicted.

    Args:
        what: Heading of the line.
        separator: Gives the calibration.
        stem: The stem.
        seen: What was observed of each mixture, with its true scores.
    """
    pairs = []
    for one in seen:
        prediction = predict(one.evidence, one.stems, separator.calibration)[stem]
        if stem in one.scores and prediction.sdr is not None:
            pairs.append((one.scores[stem], prediction.sdr, prediction.low, prediction.high))
    if len(pairs) < 3:
        print(f"{what:36} {len(pairs)} predictions of {len(seen)}: is there a calibration?")
        return
    true, predicted, low, high = np.array(pairs, np.float64).T
    held = 100 * np.mean((low <= true) & (true <= high))
    print(
        f"{what:36} {len(true):4} mixtures   r {np.corrcoef(true, predicted)[0, 1]:.3f}   "
        f"MAE {np.abs(true - predicted).mean():.2f} dB   in interval {held:.0f} %",
        flush=True,
    )


def presence(separator: Separator, seen: Observation) -> float:
    """The predicted probability that a mixture has vocals, 0 without a calibration.

    Args:
        separator: Gives the calibration.
        seen: What was observed of the mixture.
    """
    chance, _ = vocal_presence(seen.evidence, seen.stems, separator.calibration)
    return 0.0 if chance is None else chance


def show_presence(songs: np.ndarray, others: np.ndarray) -> None:
    """Print the area under the ROC curve, and the precision at 99 % recall.

    Args:
        songs: Predicted presence of vocals in songs that have them, 0 … 1, (songs,).
        others: The same of instrumentals, (instrumentals,).
    """
    wins = (songs[:, None] > others[None]).mean() + 0.5 * (songs[:, None] == others[None]).mean()
    least = np.quantile(songs, 0.01)
    hits, false = (songs >= least).sum(), (others >= least).sum()
    print(
        f"vocal presence, {len(songs)} songs, {len(others)} instrumentals: AUC {wins:.3f}, "
        f"precision at 99 % recall {hits / (hits + false):.2f}"
    )


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else None)
