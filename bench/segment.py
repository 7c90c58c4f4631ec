"""Prints where the time of one segment goes on one thread, beside the least that each stage could take.

    python bench/segment.py [SONG] [--repeat 15]

A segment is what the network of `stereo` sees at once, 512 frames (12 s), of which 448 (10.4 s of stereo) become stems.
Of each stage the least of all repeats counts, in milliseconds of processor time. Workers keep their memory, so run it
with the environment of theirs (WORKERS in `flows/running/environment.py`). The bound of the convolutions is the rate of
the fastest of them, that of the transforms is the transforms alone in the cache, and that of the others the time to
copy what they read and write.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.networks import int8, stereo
from model.scoring import meters
from model.separation import grid, stream
from model.separation.segments import Segment
from storage.audio.reader import read
from tasks.demo.synthesiser import RATE, compose
from tasks.loading import load_separator

FRAMES, CORE, CONTEXT, BINS, ROWS, SEEN = 512, 448, 32, 2049, 512, 4
MB = 4e-6  # of a float32

# Stage → megabytes of float32 read and written at least.
TRAFFIC = {
    "magnitudes": (2 * 2 + SEEN) * FRAMES * BINS * MB,
    "bins to rows": SEEN * FRAMES * (BINS + ROWS) * MB,
    "rows to bins": 2 * FRAMES * (BINS + ROWS) * MB,
    "filter and masks": (4 + 2 + 4) * CORE * BINS * MB,
    "mask sums": (2 + 2) * CORE // 2 * BINS * MB,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("song", nargs="?", type=Path)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    separator = load_separator("stereo", device="cpu", precision="int8")
    assert isinstance(separator, stream.Separator)
    samples = (FRAMES - 1) * 1024 + 4096
    audio, rate = read(options.song) if options.song else (compose(0, 30.0).mixture, RATE)
    mixture = np.ascontiguousarray(np.tile(audio[:2], (1, 2))[:, :samples], np.float32)
    segment = Segment(torch.from_numpy(mixture), 4096, 1024, CONTEXT, CORE, 0, 0)
    runs: list[dict[str, float]] = []
    products: list[tuple[float, float]] = []  # GMAC and ms of each convolution
    watch(separator._masker._network, runs, products)
    for _ in range(options.repeat):
        runs.append({})
        timed(runs, "all of it", separator._estimates)([segment])
        song = timed(runs, "true peak of a stem", meters.TruePeakMeter(2).push)
        song(mixture[:, : CORE * 1024])
        timed(runs, "loudness of a stem", meters.LoudnessMeter(rate, 2).push)(mixture[:, : CORE * 1024])
        stems = {"vocals": mixture[:, : CORE * 1024] * 0.3, "accompaniment": mixture[:, : CORE * 1024] * 0.7}
        timed(runs, "sample grid", grid.on_grid)(mixture[:, : CORE * 1024], stems, "accompaniment", 16)
    least = {stage: min(run[stage] for run in runs) for stage in runs[0]}
    total, fastest = sum(work for work, _ in products) / len(runs), max(work / spent for work, spent in products)
    bound = {stage: megabytes / bandwidth() for stage, megabytes in TRAFFIC.items()}
    bound |= {"convolutions": total / fastest, **transforms()}
    print(f"{total:.1f} GMAC, of which the fastest layer does {1e3 * fastest:.0f} per second")
    for stage, spent in least.items():
        print(f"{stage:22} {spent:7.1f} ms" + (f"   at least {bound[stage]:5.1f}" if stage in bound else ""))


def watch(network: Any, runs: list[dict[str, float]], products: list[tuple[float, float]]) -> None:
    """Have the stages add their time to the latest run.

    Args:
        network: A quantised `StereoUNet`.
        runs: A dictionary of stages per run.
        products: Grows by one entry per convolution.
    """
    for name, stage in (
        ("analysis", "STFT"), ("magnitudes", "magnitudes"), ("stem_spectra", "filter and masks"),
        ("use_repetition", "what repeats"), ("synthesis", "inverse STFT"), ("mask_sums", "mask sums"),
    ):  # fmt: skip
        setattr(stream, name, timed(runs, stage, getattr(stream, name)))
    for module, stage in ((network.gather, "bins to rows"), (network.spread, "rows to bins")):
        module.forward = timed(runs, stage, module.forward)
    network._int8.forward = timed(runs, "U-Net", network._int8.forward)
    computed = int8.Int8Conv2d._computed

    def convolution(self, x, *others):
        began = time.thread_time()
        out = computed(self, x, *others)
        spent = 1e3 * (time.thread_time() - began)
        products.append((1e-9 * out.numel() / out.shape[1] * self._packed.numel(), spent))
        runs[-1]["convolutions"] = runs[-1].get("convolutions", 0.0) + spent
        return out

    setattr(int8.Int8Conv2d, "_computed", convolution)  # noqa: B010
    setattr(stereo.Quantised, "of", timed(runs, "float32 to levels", stereo.Quantised.of))  # noqa: B010


def timed(runs: list[dict[str, float]], stage: str, function: Callable) -> Callable:
    """The function, adding the milliseconds of its calls to a stage of the latest run."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            runs[-1][stage] = runs[-1].get(stage, 0.0) + 1e3 * (time.thread_time() - began)

    return call


def bandwidth() -> float:
    """Megabytes that a copy reads and writes in a millisecond."""
    source, target = torch.ones(2, 16_000_000)
    return 2 * source.numel() * MB / least_of(lambda: target.copy_(source))


def transforms() -> dict[str, float]:
    """Milliseconds of a segment's transforms and inverse transforms, of frames in the cache."""
    frames = torch.randn(2, 16, 4096)
    spectra = torch.fft.rfft(frames)
    return {
        "STFT": FRAMES / 16 * least_of(lambda: torch.fft.rfft(frames)),
        "inverse STFT": CORE / 16 * least_of(lambda: torch.fft.irfft(spectra, n=4096)),
    }


def least_of(work: Callable[[], object]) -> float:
    """Milliseconds of processor time, the least of many calls."""
    spent = []
    for _ in range(30):
        began = time.thread_time()
        work()
        spent.append(1e3 * (time.thread_time() - began))
    return min(spent)


if __name__ == "__main__":
    main()
