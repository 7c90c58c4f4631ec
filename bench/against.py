"""Runs a bench on the code of an older commit beside today's, in turns, and prints both with their ratio.

A bench imports this module first: it puts the checkout that is measured at the front of `sys.path`, today's unless the
environment names another. The bench's own script is always today's, so both sides are measured alike; a commit whose
modules still had other names cannot be measured by it.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_CHECKOUT = "UNBRAID_BENCH_CHECKOUT"
TODAY = Path(__file__).resolve().parent.parent
ROOT = Path(os.environ.get(_CHECKOUT) or TODAY)  # of the code that is measured
sys.path.insert(0, str(ROOT))

_RISING = ("× real time", "per second", "× museval")  # units of which more is better


@dataclass(frozen=True)
class Figure:
    """One measured value, e.g. 5.0 core-seconds of `separate`."""

    name: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name:44} {self.value:9.2f} {self.unit}"


class Stopwatch:
    """Wall-clock seconds and core-seconds (user + system) of this process and the children it has waited for."""

    def __init__(self) -> None:
        self._wall, self._cores = time.perf_counter(), _core_seconds()

    def figures(self, name: str) -> list[Figure]:
        """What has passed since the stopwatch was made.

        Args:
            name: What was done meanwhile.
        """
        wall, cores = time.perf_counter() - self._wall, _core_seconds() - self._cores
        return [Figure(name, wall, "s"), Figure(name, cores, "core-seconds")]


def _core_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a bench the options --against, --rounds and --json.

    Args:
        parser: The bench's parser.
    """
    parser.add_argument("--against", metavar="COMMIT", help="measure this commit too, in turns with today's code")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side is measured (with --against)")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last")


def finish(figures: Sequence[Figure], options: argparse.Namespace) -> None:
    """Print the figures of a bench that has measured one checkout.

    Args:
        figures: What was measured.
        options: The parsed options of `add_options`.
    """
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures]), flush=True)
        return
    for figure in figures:
        print(figure, flush=True)


def compared(script: str, options: argparse.Namespace) -> bool:
    """Where --against is given, measure both commits in processes of their own and print them side by side.

    Of each figure the best of all rounds counts: on a machine that does other things too, it is the least disturbed.

    Args:
        script: The bench's `__file__`. It runs with the arguments of this process, --against replaced by --json.
        options: The parsed options of `add_options`.

    Returns:
        Whether that was done; False without --against.

    Raises:
        CalledProcessError: git or a measurement failed; its own words are on the screen.
    """
    if not options.against:
        return False
    best: dict[str, dict[tuple[str, str], float]] = {"old": {}, "new": {}}
    with checked_out(options.against) as old:
        sides = [("old", old), ("new", TODAY)]
        for number in range(options.rounds):
            for side, checkout in sides if number % 2 == 0 else reversed(sides):
                for figure in _measured(script, checkout):
                    key = figure.name, figure.unit
                    before = best[side].get(key, figure.value)
                    best[side][key] = (max if figure.unit in _RISING else min)(before, figure.value)
    print(f"{'':44} {options.against[:12]:>12} {'now':>9} {'now / then':>11}")
    for (name, unit), value in best["new"].items():
        then = best["old"].get((name, unit))
        column = f"{'–':>12}" if then is None else f"{then:12.2f}"
        ratio = f"{value / then:11.2f}" if then else f"{'–':>11}"
        print(f"{name:44} {column} {value:9.2f} {ratio} {unit}", flush=True)
    return True


def _measured(script: str, checkout: Path) -> list[Figure]:
    command = [sys.executable, script, *_without_against(sys.argv[1:]), "--json"]
    environment = {**os.environ, _CHECKOUT: str(checkout), "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [Figure(**fields) for fields in json.loads(done.stdout.strip().splitlines()[-1])]


def _without_against(arguments: Sequence[str]) -> list[str]:
    left, waiting = [], iter(arguments)
    for argument in waiting:
        if argument == "--against":
            next(waiting, None)
        elif not argument.startswith("--against="):
            left.append(argument)
    return left


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A checkout of a commit in a temporary folder, which runs with the packages of this environment.

    Args:
        commit: What git takes for a commit.

    Yields:
        The checkout's root.

    Raises:
        CalledProcessError: There is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="unbraid-against-") as folder:
        root = Path(folder) / "checkout"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", root, commit], cwd=TODAY, check=True)
        try:
            yield root
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", root], cwd=TODAY, check=True)
