"""Compares runs on the judging songs: cSDR of every stem, and an interval of the difference from the first run.

    python bench/experiment.py [--views 0.94,1,1.06] WEIGHTS …

The songs are the nine of dsd100_dev_excerpts and the twelve of musdb18_7s/valid, from ../shared/data. WEIGHTS are files
or ids of registered models. The interval is a paired bootstrap over the 21 songs (BCa, 90 %, 9 999 draws): what to
expect on other songs of the same kind. Scores are cached in the temporary folder under a hash of the weights and of
the code in model/, so a run is scored once.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from model.checkpoint import Weights
from model.scoring.scores import window_sdr
from model.separation.stream import Separator
from storage.audio.reader import read
from tasks.loading import registry

SHARED = ROOT.parent / "shared" / "data"
SETS = {"nine": SHARED / "dsd100_dev_excerpts", "twelve": SHARED / "musdb18_7s" / "valid"}
KEPT = Path(tempfile.gettempdir()) / "unbraid-experiment"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--views", help="bin spacings that the network looks at, as hq does; the preset's own without")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    views = tuple(float(view) for view in arguments.views.split(",")) if arguments.views else None
    first: dict[str, dict[str, dict[str, float]]] = {}
    for name in arguments.weights:
        by_set = scores(name, views, arguments.precision)
        first = first or by_set
        print(f"\n{name}")
        for stem in sorted({stem for songs in by_set.values() for stems in songs.values() for stem in stems}):
            report(stem, by_set, first)


def report(stem: str, by_set: dict, first: dict) -> None:
    """Print the scores of a stem, and how they differ from the first run's.

    Args:
        stem: The stem.
        by_set: Scores of the run, as `scores` returns them.
        first: Scores of the first run; no difference is printed for that run itself.
    """
    for kind, songs in by_set.items():
        scored = {song: stems[stem] for song, stems in songs.items() if stem in stems}
        if scored:
            median, mean = statistics.median(scored.values()), statistics.fmean(scored.values())
            songs_shown = " ".join(f"{value:.1f}" for value in scored.values())
            print(f"  {stem:7} {kind:6} median {median:.2f} mean {mean:.2f}  {songs_shown}")
    differences = [
        stems[stem] - first[kind][song][stem]
        for kind, songs in by_set.items()
        for song, stems in songs.items()
        if stem in stems and stem in first[kind][song]
    ]
    if by_set is not first and len(differences) > 1:
        interval = bootstrap(
            (differences,), np.mean, confidence_level=0.9, rng=np.random.default_rng(0)
        ).confidence_interval
        print(f"  {stem:7} against the first: {np.mean(differences):+.2f} [{interval.low:+.2f}, {interval.high:+.2f}], "
              f"better on {sum(d > 0 for d in differences)} of {len(differences)}")  # fmt: skip


def scores(name: str, views: tuple[float, ...] | None, precision: str) -> dict:
    """Scores of the judging songs, from the cache where these weights were scored before.

    Args:
        name: Weights file, or id of a registered model.
        views: Bin spacings that the network sees; the preset's where None.
        precision: As `Separator` takes it.

    Returns:
        Set → song → stem → cSDR in dB.
    """
    _, data = registry().read(name)
    code = b"".join(path.read_bytes() for path in sorted((ROOT / "model").rglob("*.py")))
    key = hashlib.sha256(data + code + repr((views, precision)).encode()).hexdigest()[:16]
    kept = KEPT / f"{key}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    weights = Weights.from_bytes(data, name)
    preset = weights.preset
    if views:
        inference = {**preset.to_dict()["inference"], "views": views}
        preset = preset.from_dict({**preset.to_dict(), "inference": inference})
    separator = Separator(preset, weights.network(), device="cpu", precision=precision)
    by_set = {
        kind: {song.name: song_scores(separator, song) for song in sorted(folder.iterdir()) if song.is_dir()}
        for kind, folder in SETS.items()
    }
    KEPT.mkdir(exist_ok=True)
    kept.write_text(json.dumps(by_set))
    return by_set


def song_scores(separator: Separator, song: Path) -> dict[str, float]:
    """cSDR of the estimated stems of a song, all scored together as by `unbraid evaluate`.

    Args:
        separator: What estimates them.
        song: Folder of stems and possibly a mixture; without one their sum is separated.

    Returns:
        Stem → dB, the median over windows; stems without a finite score are left out.
    """
    parts = {path.stem: read(path) for path in sorted(song.iterdir()) if path.is_file()}
    rate = next(iter(parts.values()))[1]
    samples = min(audio.shape[1] for audio, _ in parts.values())
    signals = {stem: audio[:, :samples] for stem, (audio, _) in parts.items()}
    given = signals.pop("mixture", None)
    mixture = np.add.reduce(list(signals.values()), axis=0, dtype=np.float32) if given is None else given
    if "accompaniment" not in signals:
        backing = [audio for stem, audio in signals.items() if stem != "vocals"]
        signals["accompaniment"] = np.add.reduce(backing, axis=0, dtype=np.float32)
    estimates = separator.separate(mixture, rate)
    stems = [stem for stem in separator.preset.stems if stem in signals]
    references = {stem: np.broadcast_to(signals[stem], mixture.shape) for stem in stems}
    windows = window_sdr(references, {stem: estimates[stem] for stem in stems}, rate)
    return {stem: float(np.nanmedian(values)) for stem, values in windows.items() if np.isfinite(values).any()}


if __name__ == "__main__":
    main()
