"""Shows where the time before the first result goes: complete commands, and the parts of a worker's start.

    python bench/start.py [SONG] [--repeat 3] [--against COMMIT]

Seven seconds of music (or SONG) are separated in a process as a user starts it, then again with nothing to do, planned
with --dry-run, and queried. Prints seconds and core-seconds (user + system, children included), the least of the
repeats; then those of each part of a worker's way to its first stem, and what the flow's process imports beside it.
Core-seconds say more on a machine that is busy with other things.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from against import ROOT, Figure, Stopwatch, add_options, compared, finish

LAP = """
import time
began = time.process_time(), time.perf_counter()
def lap(name):
    global began
    now = time.process_time(), time.perf_counter()
    print(f"{name}|{now[1] - began[1]}|{now[0] - began[0]}")
    began = now
"""
WORKER = f"""{LAP}
import torch
lap("import torch")
import tasks.separate
lap("import what a worker needs besides")
from tasks.loading import load_separator
separator = load_separator("stereo", device="cpu")
lap("load the separator")
import numpy as np
noise = np.random.default_rng(0).standard_normal((2, 7 * 44100)).astype(np.float32) * 0.1
separator.separate(noise, 44100)
lap("separate 7 s, the first time")
separator.separate(noise, 44100)
lap("and the second")
"""
FLOW = f"""{LAP}
import flows.cli
lap("import the command line")
import flows.separate
lap("import the flow")
import duckdb
lap("import DuckDB")
import tasks.pages.report
lap("import the report")
"""


def measured(song: Path | None, repeat: int) -> list[Figure]:
    """The times of the commands, then those of the starts of a worker and of the flow's process.

    Args:
        song: The song to separate; seven made seconds where None.
        repeat: How often; of each figure the least counts.
    """
    best: dict[tuple[str, str], Figure] = {}
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            for figure in [*commands(Path(folder), song), *parts("worker", WORKER), *parts("flow", FLOW)]:
                key = figure.name, figure.unit
                best[key] = min(best.get(key, figure), figure, key=lambda one: one.value)
    return list(best.values())


def commands(root: Path, song: Path | None) -> list[Figure]:
    """The times of complete commands.

    Args:
        root: An empty folder.
        song: The song to separate; seven made seconds where None.

    Raises:
        CalledProcessError: A command failed.
    """
    if song is None:
        from storage.audio.writer import write
        from tasks.demo.synthesiser import RATE, compose

        song = root / "song.flac"
        write(song, compose(0, 7.0).mixture, RATE, name="flac")
    separate = ["separate", str(song), "--out", str(root / "out")]
    rows = {
        "separate": separate,
        "nothing to do": separate,
        "--dry-run": [*separate, "--dry-run"],
        "query": ["query", str(root / "out"), "select count(*) from metrics"],
    }
    figures = []
    for name, arguments in rows.items():
        watch = Stopwatch()
        run("-m", "flows.cli", *arguments)
        figures += watch.figures(name)
    return figures


def parts(process: str, laps: str) -> list[Figure]:
    """The times of the parts of a process's start.

    Args:
        process: What the process is.
        laps: Its code, which prints name|seconds|core-seconds per part.

    Raises:
        CalledProcessError: The process failed.
    """
    figures = []
    for line in run("-c", laps).splitlines():
        name, wall, cores = line.split("|")
        figures += [
            Figure(f"  {process}: {name}", float(wall), "s"),
            Figure(f"  {process}: {name}", float(cores), "core-seconds"),
        ]
    return figures


def run(*arguments: str) -> str:
    """What Python prints, with the code that is measured. Raises CalledProcessError."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("song", type=Path, nargs="?", help="a file in place of the seven seconds that are made")
    parser.add_argument("--repeat", type=int, default=1, help="how often; of each figure the least is printed")
    add_options(parser)
    options = parser.parse_args()
    if not compared(__file__, options):
        finish(measured(options.song and options.song.resolve(), options.repeat), options)


if __name__ == "__main__":
    main()
