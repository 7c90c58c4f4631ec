"""Shows where the time before the first result goes: complete commands, and the parts of a worker's start.

    python bench/start.py [SONG]

Seven seconds of music (or SONG) are separated in a process as a user starts it, then again with nothing to do, planned
with --dry-run, and queried. Prints seconds and core-seconds (user + system, children included), then those of each part
of a worker's way to its first stem. Core-seconds say more on a machine that is busy with other things.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PARTS = """
import time
began = time.process_time(), time.perf_counter()
def lap(name):
    global began
    now = time.process_time(), time.perf_counter()
    print(f"  {name:34} {now[1] - began[1]:6.2f} s  {now[0] - began[0]:6.2f} core-seconds")
    began = now
import torch
lap("import torch")
import tasks.separate
lap("import what a worker needs")
from tasks.loading import load_separator
separator = load_separator("stereo", device="cpu")
lap(f"load the separator ({separator.precision})")
import numpy as np
noise = np.random.default_rng(0).standard_normal((2, 7 * 44100)).astype(np.float32) * 0.1
separator.separate(noise, 44100)
lap("separate 7 s, the first time")
separator.separate(noise, 44100)
lap("and the second")
"""


def main(song: Path | None) -> None:
    """Print the times of the commands, then those of a worker's start.

    Args:
        song: The song to separate; seven made seconds where None.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if song is None:
            from storage.audio.writer import write
            from tasks.demo.synthesiser import RATE, compose

            song = root / "song.flac"
            write(song, compose(0, 7.0).mixture, RATE, name="flac")
        separate = ["separate", str(song), "--out", str(root / "out")]
        query = ["query", str(root / "out"), "select count(*) from metrics"]
        rows = [
            ("separate", separate),
            ("nothing to do", separate),
            ("--dry-run", [*separate, "--dry-run"]),
            ("query", query),
        ]
        for name, arguments in rows:
            wall, cores = command([sys.executable, "-m", "flows.cli", *arguments])
            print(f"{name:36} {wall:6.2f} s  {cores:6.2f} core-seconds", flush=True)
    print("of a worker's start", flush=True)
    subprocess.run([sys.executable, "-c", PARTS], check=True, cwd=ROOT)


def command(arguments: list[str]) -> tuple[float, float]:
    """Run a command and measure it.

    Args:
        arguments: The program and its arguments.

    Returns:
        Wall-clock seconds, and core-seconds of the command and the processes it waited for.

    Raises:
        CalledProcessError: It failed.
    """
    before, began = os.times(), time.perf_counter()
    subprocess.run(arguments, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("song", type=Path, nargs="?", help="a file in place of the seven seconds that are made")
    given = arguments.parse_args().song
    main(given.resolve() if given else None)
