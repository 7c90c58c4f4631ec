"""Shows all presets in one table: scores of vocals between floor and ceiling, parameters, speed.

    python bench/networks.py OUT [DATASET] [MODEL …]

DATASET is ../shared/data/dsd100_dev_excerpts if none is given, MODEL the champion of every preset that has
one. cSDR, uSDR, MSE and SNR (of magnitudes) are medians over tracks. × real time is that of the separator without
files: a minute of stereo noise on all cores, the best of three. A last line sums up the outputs of other systems that
lie beside the tracks: the median cSDR of vocals over all of them, and over the best one of each track.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flows.evaluate import evaluate
from model.preset import preset_names
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tasks.evaluate import SYSTEM
from tasks.loading import load_separator, load_weights, registry

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "dsd100_dev_excerpts"
COLUMNS = ("sdr", "usdr", "magnitude_mse", "magnitude_snr")


def main(out: str, dataset: str, models: list[str]) -> None:
    """Score the models and print the table, in Markdown.

    Args:
        out: The run folder.
        dataset: The dataset to score on.
        models: The models' names.
    """
    rows: dict[str, list] = {}
    others: dict[tuple[str, str], float] = {}
    for model in models:
        summary = evaluate(dataset, out, model=model, engine="sdr")
        for row in read_all(OutputLayout(Path(out)), summary.run_id).to_pylist():
            if row["stem"] != "vocals":
                continue
            if not row["model_id"].startswith(SYSTEM):
                rows.setdefault(row["model_id"], []).append(row)
            elif row["sdr"] is not None:
                others[row["track_id"], row["model_id"]] = row["sdr"]
    print("| model | cSDR | mean | uSDR | MSE | SNR | M parameters | × real time |\n|---|---|---|---|---|---|---|---|")
    registered = {registry().find(model).model_id: model for model in models}
    for name, of_network in sorted(rows.items(), key=lambda item: median(item[1], "sdr")):
        of_network = list({row["track_id"]: row for row in of_network}.values())
        extra = f"{parameters(name):.2f} | {speed(name):.0f}" if name in registered else " | "
        columns = [median(of_network, column) for column in COLUMNS]
        scores = [columns[0], mean(of_network, "sdr"), *columns[1:]]
        print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in scores) + f" | {extra} |")
    if others:
        best: dict[str, float] = {}
        for (track, _), score in others.items():
            best[track] = max(score, best.get(track, score))
        print(
            f"\n{len(others)} outputs of other systems: median {statistics.median(others.values()):.1f}; "
            f"the best of each of {len(best)} tracks: median {statistics.median(best.values()):.1f}"
        )


def median(rows: list[dict], column: str) -> float:
    """The median of a column; rows without a value are left out.

    Args:
        rows: Rows of metrics.
        column: The column's name.
    """
    return statistics.median(row[column] for row in rows if row[column] is not None)


def mean(rows: list[dict], column: str) -> float:
    """The mean of a column; rows without a value are left out.

    Args:
        rows: Rows of metrics.
        column: The column's name.
    """
    return statistics.fmean(row[column] for row in rows if row[column] is not None)


def parameters(model: str) -> float:
    """The number of a model's parameters, in millions.

    Args:
        model: A model's id.
    """
    return sum(parameter.numel() for parameter in load_weights(model)[1].network().parameters()) / 1e6


def speed(model: str) -> float:
    """How many times faster than real time a model separates a minute of stereo noise, the best of three.

    Args:
        model: A model's id.
    """
    separator = load_separator(model, device="cpu")
    audio = np.random.default_rng(0).standard_normal((2, 44100 * 60)).astype(np.float32) * 0.1
    best = np.inf
    for _ in range(3):
        began = time.perf_counter()
        separator.separate(audio, 44100)
        best = min(best, time.perf_counter() - began)
    return 60 / best


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    champions = registry().champions()
    chosen = sys.argv[3:] or [preset for preset in preset_names() if preset in champions]
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(SHARED), chosen)
