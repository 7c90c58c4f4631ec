"""Measures how fast a training runs: examples per second and core, network steps per second, the share of waiting.

    python bench/training.py STORE [--preset stereo] [--device auto] [--steps N] [--workers N] [--against COMMIT]
    python bench/training.py STORE --minutes 25 --write FILE     how many steps fit into 25 minutes, into FILE

Prints four figures: examples made by one process on one core (nothing beside it), mixed and, as workers hand them to a
GPU, before they are mixed; steps of the network on one batch that is there already; a training of both together, with
the share of time in which the network had no batch. `--against` runs the last of them for an older commit too, in a
separate checkout, twice each in turns, and prints the ratio. A commit before the rooms got sub-rooms is run by its own
module names.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flows.running.environment import WORKERS

# Runs in a checkout of any age: batches ahead of the network, as that commit's training loop makes them.
_TOGETHER = """
import importlib, json, sys, time
store, preset_name, device, steps, workers = sys.argv[1:]
steps = int(steps)
import torch
from pathlib import Path
from model.preset import load_preset
from storage.store import Store
for name in ("model.learning.trainer", "model.trainer", "model.training"):
    try:
        Trainer = importlib.import_module(name).Trainer
        break
    except ImportError:
        continue
preset = load_preset(preset_name)
tracks = Store.open(Path(store)).tracks("train")
trainer = Trainer(preset, device=device)
try:
    from tasks.training.feed import Feed
    chosen = None if workers == "None" else int(workers)
    try:
        feed = Feed(store, tracks, preset, 0, workers=chosen, device=device)
    except TypeError:
        feed = Feed(store, tracks, preset, 0, workers=chosen, pinned=device == "cuda")
    batches = feed.batches(0, steps + 3)
except ImportError:
    try:
        from tasks.training import train as module
        from tasks.training.examples import example_source
    except ImportError:
        from tasks import train as module
        from tasks.examples import example_source
    batches = module._ahead(example_source(store, tracks, preset, 0), 0, steps + 3)
waited = 0.0
for done in range(steps + 3):
    if done == 3:
        began, waited = time.monotonic(), 0.0
    asked = time.monotonic()
    batch = next(batches)
    waited += time.monotonic() - asked
    trainer.train(batch)
seconds = time.monotonic() - began
print(json.dumps({"steps_per_s": steps / seconds, "waiting": waited / seconds}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--preset", default="stereo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, help="of each measurement. Default: 24, on a GPU 400")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--minutes", type=float, help="with --write: say how many steps of a training fit")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    from model.separation.arithmetic import resolved_device
    from tasks.training.feed import chosen_workers

    arguments.device = resolved_device(arguments.device)
    # What is ready when a GPU begins lasts it for a second; a rate must come from well after that.
    arguments.steps = arguments.steps or (24 if arguments.device == "cpu" else 400)
    if arguments.workers is None:
        arguments.workers = chosen_workers(arguments.device.startswith("cuda"), 1000)  # as a long training does
    size = examples_and_network(arguments).batch
    results = {"now": [together(ROOT, arguments)]}
    if arguments.against:
        with tempfile.TemporaryDirectory(prefix="unbraid-training-") as folder:
            before = Path(folder) / "before"
            subprocess.run(
                ["git", "worktree", "add", "-q", "--detach", before, arguments.against], cwd=ROOT, check=True
            )
            try:
                results["before"] = [together(before, arguments)]
                results["now"].append(together(ROOT, arguments))
                results["before"].append(together(before, arguments))
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", before], cwd=ROOT, check=True)
    best = {name: max(runs, key=lambda run: run["steps_per_s"]) for name, runs in results.items()}
    for name, run in best.items():
        print(f"training {name}: {run['steps_per_s']:.2f} steps/s, {run['steps_per_s'] * size:.1f} examples/s, "
              f"the network waited {run['waiting']:.0%}")  # fmt: skip
    if arguments.minutes and arguments.write:
        # The rest is for validation, which a GPU does little for, checkpoints, and a network that is compiled.
        share = 0.9 if arguments.device == "cpu" else 0.75
        arguments.write.write_text(f"{max(1, int(share * 60 * arguments.minutes * best['now']['steps_per_s']))}\n")
    if "before" in best:
        print(f"{best['now']['steps_per_s'] / best['before']['steps_per_s']:.2f} times as fast as {arguments.against}")


@dataclass(frozen=True)
class Alone:
    """What was measured with nothing beside it.

    Attributes:
        batch: Examples per step.
        made: Mixed examples per second of one core.
        read: Ingredients of examples per second of one core; None where examples are made from spectra.
        steps: Steps of the network per second.
    """

    batch: int
    made: float
    read: float | None
    steps: float


def examples_and_network(arguments: argparse.Namespace) -> Alone:
    """Print how many examples one core makes and how many steps the network takes, each alone.

    Args:
        arguments: The command line: `store`, `preset`, `device` (not "auto") and `steps`.

    Returns:
        What was printed, and the preset's batch size.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = _source(arguments)
    batch = source.batch(0)
    began, batches = time.process_time(), max(1, min(8, arguments.steps // 4))
    for step in range(1, 1 + batches):
        batch = source.batch(step)
    made = batches * len(batch.stems) / (time.process_time() - began)
    print(f"examples: {made:.1f} per second of one core")
    read = None
    if hasattr(source, "ingredients"):
        began = time.process_time()
        first = arguments.steps * len(batch.stems)
        for number in range(first, first + 2 * arguments.steps):
            source.ingredients(number)
        read = 2 * arguments.steps / (time.process_time() - began)
        print(f"ingredients: {read:.1f} per second of one core, for a GPU that mixes them itself")
    torch.set_num_threads(threads)
    return Alone(len(batch.stems), made, read, network_steps(arguments, batch))


def one_batch(arguments: argparse.Namespace):
    """The first batch of a training, on the CPU.

    Args:
        arguments: The command line: `store` and `preset`.
    """
    return _source(arguments).batch(0)


def network_steps(arguments: argparse.Namespace, batch, compiler: str = "") -> float:
    """Steps per second of the network on one batch that is there already.

    Args:
        arguments: The command line: `preset`, `device` (not "auto") and `steps`.
        batch: The batch.
        compiler: Backend of `torch.compile`, "" for none.
    """
    from model.learning.trainer import Trainer
    from model.preset import load_preset

    trainer = Trainer(load_preset(arguments.preset), device=arguments.device, compiler=compiler)
    for _ in range(2 if arguments.device == "cpu" else 8):  # a GPU's algorithms are chosen, and compiled, meanwhile
        trainer.train(batch)
    began = time.monotonic()
    steps = max(1, arguments.steps // 2)
    for _ in range(steps):
        trainer.train(batch)
    per_second = steps / (time.monotonic() - began)
    print(f"network: {per_second:.2f} steps/s of {len(batch.stems)} on {arguments.device} in {trainer.precision}"
          f"{', compiled' if compiler else ''}")  # fmt: skip
    return per_second


def _source(arguments: argparse.Namespace):
    from model.preset import load_preset
    from storage.store import Store
    from tasks.training.examples import example_source

    tracks = Store.open(Path(arguments.store)).tracks("train")
    return example_source(arguments.store, tracks, load_preset(arguments.preset), 0)


def together(checkout: Path, arguments: argparse.Namespace) -> dict:
    """Train in another process with the code of a checkout and a worker's environment, and measure it.

    Args:
        checkout: Root of the checkout.
        arguments: The command line: `store`, `preset`, `device`, `steps` and `workers`.

    Returns:
        `steps_per_s`, and `waiting`, the share of time in which the network had no batch.

    Raises:
        CalledProcessError: The training failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "together.py"  # a file: worker processes import their parent's main module
        script.write_text("if __name__ == '__main__':\n" + "\n".join(f"    {line}" for line in _TOGETHER.split("\n")))
        command = [sys.executable, str(script), arguments.store, arguments.preset, arguments.device]
        command += [str(arguments.steps), str(arguments.workers)]
        environment = {**os.environ, **WORKERS, "PYTHONPATH": str(checkout)}
        out = subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
