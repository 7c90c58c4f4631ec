"""Measures what the sums behind the predicted scores cost a separation, in CPU seconds.

    python bench/evidence.py [MODEL] [SECONDS] [PAIRS]

Separates the same made song (SECONDS, 60) with and without the sums in turn, PAIRS (12) times each, and prints the
medians, the median of the pairs' ratios, and how much of the CPU time with the sums was spent in the functions that
add them up. The ratios vary by several per cent where other processes run, the share hardly. Decoding, measuring and
encoding are left out, so the share of a complete separation is smaller still.
"""

import statistics
import sys
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch

from model.separation import stream
from model.separation.evidence import Evidence
from tasks.demo.synthesiser import RATE, compose
from tasks.loading import load_separator


def main(model: str, seconds: float, pairs: int) -> None:
    """Print what the sums cost.

    Args:
        model: The model's name.
        seconds: Length of the made song.
        pairs: How many times it is separated each way.
    """
    torch.set_num_threads(1)
    separator = load_separator(model, device="cpu")
    audio = compose(0, seconds).mixture
    cpu_seconds(separator, audio)  # caches and the first allocations
    taken = []
    for pair in range(pairs):
        order = (True, False) if pair % 2 else (False, True)
        taken.append({sums: cpu_seconds(separator, audio) if sums else without(separator, audio) for sums in order})
    ratios = [pair[True] / pair[False] for pair in taken]
    summed, bare = (statistics.median(pair[sums] for pair in taken) for sums in (True, False))
    more, least, most = (100 * (ratio - 1) for ratio in (statistics.median(ratios), min(ratios), max(ratios)))
    print(f"{model}, {seconds:g} s of stereo, {pairs} pairs: {summed:.2f} CPU s with the sums, {bare:.2f} without")
    print(f"with them {more:+.1f} % in the median (pairs {least:+.1f} … {most:+.1f})")
    shares = sorted(100 * share(separator, audio) for _ in range(pairs))
    print(f"in the sums themselves {statistics.median(shares):.1f} % ({shares[0]:.1f} … {shares[-1]:.1f})")


def cpu_seconds(separator, audio) -> float:
    """CPU seconds of separating a song in blocks of a second.

    Args:
        separator: What separates it.
        audio: float32 (channels, samples), at `RATE`.
    """
    began = time.process_time()
    separating = separator.stream(RATE, len(audio))
    for start in range(0, audio.shape[1], RATE):
        for _ in separating.push(audio[:, start : start + RATE]):
            pass
    for _ in separating.finish():
        pass
    return time.process_time() - began


def without(separator, audio) -> float:
    """CPU seconds of the same separation with the sums patched out.

    Args:
        separator: What separates it.
        audio: float32 (channels, samples), at `RATE`.
    """
    with (
        mock.patch.object(stream, "mask_sums", return_value=torch.zeros(2, 0, 2)),
        mock.patch.object(Evidence, "add_frames"),
        mock.patch.object(Evidence, "add_samples"),
    ):
        return cpu_seconds(separator, audio)


def share(separator, audio) -> float:
    """The share of a separation's CPU seconds that is spent in the functions that add up, 0 … 1.

    Args:
        separator: What separates the song.
        audio: float32 (channels, samples), at `RATE`.
    """
    spent: list[float] = []

    def timed(function):
        def run(*arguments):
            began = time.thread_time()
            result = function(*arguments)
            spent.append(time.thread_time() - began)
            return result

        return run

    with (
        mock.patch.object(stream, "mask_sums", timed(stream.mask_sums)),
        mock.patch.object(Evidence, "add_frames", timed(Evidence.add_frames)),
        mock.patch.object(Evidence, "add_samples", timed(Evidence.add_samples)),
    ):
        total = cpu_seconds(separator, audio)
    return sum(spent) / total


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        given[0] if given else "stereo",
        float(given[1]) if len(given) > 1 else 60.0,
        int(given[2]) if len(given) > 2 else 12,
    )
