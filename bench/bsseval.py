"""Compares our BSSEval with museval's on one song, each run in a separate process.

    python bench/bsseval.py [--seconds 240] [--stems 4] [--repeat 3] [--museval-seconds 240] [--against COMMIT]

Prints seconds, core-seconds, peak memory and the ratio for all four scores, for SDR alone, and for long songs; then the
floor: what any exact method must at least read and transform, and how far we are above it. Memory is the process's;
figures are medians of the repeats (museval runs once: it takes minutes). Last, eight systems over the same references,
as `unbraid evaluate` scores them, beside one. With --against or --json only our own engine is measured.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))

from against import Figure, Stopwatch, add_options, compared, finish

RATE = 44100
_SYSTEMS = 8


def song(stems: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Made stereo stems of low-passed noise, and estimates of them with leakage and noise.

    Args:
        stems: How many.
        seconds: Their length.

    Returns:
        References and estimates, float32 (stems, 2, samples) each, at `RATE`.
    """
    random = np.random.default_rng(0)
    samples = int(seconds * RATE)
    references = np.empty((stems, 2, samples), np.float32)
    for row in references.reshape(-1, samples):
        row[:] = random.standard_normal(samples, np.float32)
        row[1:] += 0.9 * row[:-1]
    references *= 0.05
    estimates = references + 0.2 * np.roll(references, 1, axis=0)
    for row in estimates.reshape(-1, samples):
        row += 0.01 * random.standard_normal(samples, np.float32)
    return references, estimates


def measure(engine: str, stems: int, seconds: float) -> dict:
    """Score a made song once, in this process.

    Args:
        engine: "bsseval" (ours), "systems" (ours, eight systems), "sdr" (ours, SDR alone) or "museval".
        stems: How many stems the song has.
        seconds: Its length.

    Returns:
        `seconds` and `cores` (core-seconds) of the scoring, and the process's peak memory as `peak_mb` and
        `above_input_mb`, in MiB.
    """
    from model.scoring.bsseval import bss_eval, bss_eval_systems
    from model.scoring.museval_engine import museval, museval_bss_eval
    from model.scoring.scores import window_sdr

    references, estimates = song(stems, seconds)
    if engine == "museval":
        museval()
    watched = Watched()
    stopwatch = Stopwatch()
    if engine == "bsseval":
        bss_eval(references, estimates, RATE)
    elif engine == "systems":
        bss_eval_systems(references, [estimates] * _SYSTEMS, RATE)
    elif engine == "sdr":
        truth, estimated = ({str(i): stem for i, stem in enumerate(x)} for x in (references, estimates))
        window_sdr(truth, estimated, RATE)
    else:
        museval_bss_eval(references, estimates, RATE)
    wall, cores = (figure.value for figure in stopwatch.figures(engine))
    return {"seconds": wall, "cores": cores, **watched.stop()}


class Watched:
    """The process's memory from now on, sampled every 10 ms."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._peak = self._process.memory_info().rss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def stop(self) -> dict:
        self._ended.set()
        self._thread.join()
        return {"peak_mb": self._peak / 2**20, "above_input_mb": (self._peak - self._before) / 2**20}


def run(engine: str, stems: int, seconds: float, repeat: int) -> dict:
    """Medians of `measure` over several runs, each in a separate process.

    Args:
        engine: As `measure` takes it.
        stems: How many stems the song has.
        seconds: Its length.
        repeat: How many processes.

    Raises:
        CalledProcessError: A process failed.
    """
    repeats = []
    for _ in range(repeat):
        command = [sys.executable, __file__, "--measure", engine, "--stems", str(stems), "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        repeats.append(json.loads(done.stdout))
    return {name: statistics.median(one[name] for one in repeats) for name in repeats[0]}


def ours_alone(stems: int, seconds: float, repeat: int) -> list[Figure]:
    """What our engine takes, for one system, for eight, and for SDR alone.

    Args:
        stems: How many stems the song has.
        seconds: Its length.
        repeat: How many processes each; medians count.
    """
    names = {"bsseval": "all four scores", "systems": f"all four scores of {_SYSTEMS} systems", "sdr": "SDR alone"}
    figures = []
    for engine, name in names.items():
        ours = run(engine, stems, seconds, repeat)
        figures += [
            Figure(name, ours["seconds"], "s"),
            Figure(name, ours["cores"], "core-seconds"),
            Figure(f"{name}, above its input", ours["above_input_mb"], "MB"),
        ]
    return figures


def floor(stems: int, seconds: float) -> tuple[float, float]:
    """The least that any exact method must read and compute.

    Every channel of references and estimates is read once; every reference channel is transformed in two roles
    and every estimate channel in one (2.5 · n · log2 n flops for a real transform of n); the normal equations of
    all references are factorised once (n³ / 3).

    Args:
        stems: How many stereo stems the song has.
        seconds: Its length.

    Returns:
        Gigabytes read, and 10⁹ floating-point operations.
    """
    channels, points, blocks = 2 * stems, 5000, 10
    transforms = seconds * blocks * 3 * channels * 2.5 * points * np.log2(points)
    factor = (channels * 512) ** 3 / 3
    return 2 * channels * seconds * RATE * 4 / 1e9, (transforms + factor) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--stems", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--museval-seconds", type=float, help="a shorter song for museval, its time scaled up")
    parser.add_argument("--long", type=float, nargs="*", default=[600, 3600], help="lengths to show memory at")
    parser.add_argument("--measure", choices=["bsseval", "systems", "sdr", "museval"], help=argparse.SUPPRESS)
    add_options(parser)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.stems, options.seconds)))
        return
    if compared(__file__, options):
        return
    if options.json:
        finish(ours_alone(options.stems, options.seconds, options.repeat), options)
        return
    for stems in sorted({2, options.stems}):
        theirs_seconds = options.museval_seconds or options.seconds
        theirs = run("museval", stems, theirs_seconds, 1)
        scale = options.seconds / theirs_seconds
        print(f"{stems} stereo stems, {options.seconds:.0f} s")
        note = f" (measured on {theirs_seconds:.0f} s)" if scale != 1 else ""
        print(f"  museval  {theirs['seconds'] * scale:8.2f} s   peak {theirs['peak_mb']:6.0f} MB{note}")
        for engine in ("bsseval", "sdr"):
            ours = run(engine, stems, options.seconds, options.repeat)
            ratio = theirs["seconds"] * scale / ours["seconds"]
            print(
                f"  {engine:8} {ours['seconds']:8.2f} s   peak {ours['peak_mb']:6.0f} MB, "
                f"{ours['above_input_mb']:.0f} MB above its input   {ratio:.0f} × museval "
                f"({theirs['cores'] * scale / ours['cores']:.0f} × in core-seconds)",
                flush=True,
            )
            if engine == "bsseval":
                gigabytes, gigaflops = floor(stems, options.seconds)
                side = 3000
                matrix = np.random.default_rng(0).standard_normal((side, side))
                matrix @ matrix
                began = time.perf_counter()
                matrix @ matrix
                speed = 2 * side**3 / (time.perf_counter() - began) / 1e9
                print(
                    f"  floor    {gigaflops / speed:8.2f} s   {gigabytes:.2f} GB read, {gigaflops:.1f} Gflop at the "
                    f"{speed:.0f} Gflop/s of a matrix product here; we take {ours['seconds'] * speed / gigaflops:.1f} ×"
                )
    one, several = (run(engine, options.stems, options.seconds, 1) for engine in ("bsseval", "systems"))
    print(
        f"{_SYSTEMS} systems over the same {options.stems} references: {several['seconds']:.2f} s, "
        f"{several['seconds'] / one['seconds']:.1f} × one system, {several['above_input_mb']:.0f} MB above its input"
    )
    for seconds in options.long:
        ours = run("bsseval", 2, seconds, 1)
        print(
            f"2 stems, {seconds / 60:.0f} min: {ours['seconds']:.1f} s, {ours['above_input_mb']:.0f} MB above its input"
        )


if __name__ == "__main__":
    main()
