"""Makes a network of the StereoUNet kind narrower: fewer channels, nearly the same masks, less time.

    python bench/narrow.py WEIGHTS STORE FOLDER [--widths 24 40 64 96 128 128] [--steps 700] [--mixtures stereo]

Channels that the others can stand in for go, what is left is fitted to give what the wide network gives
(`model/learning/narrowing.py`), then it learns from the wide network's masks of random mixtures of the store
(`model/learning/distillation.py`). FOLDER/narrow.safetensors has the result, under the preset of WEIGHTS but for its
widths, with the record and the calibrations of WEIGHTS: they hold as far as its masks are as before, which
`bench/predict.py` shows. Every hundred steps the agreement on mixtures of validation songs is printed. Killed, the same
command goes on from FOLDER/checkpoint.pt.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.checkpoint import Weights, build
from model.learning.distillation import Distiller
from model.learning.narrowing import fit_narrower
from model.learning.trainer import Batch
from model.networks.stereo import StereoUNet
from model.preset import Preset, load_trainable
from model.separation.arithmetic import resolved_device
from model.spectra.frontend import analysis, magnitudes
from storage.files.location import location
from storage.store import Store
from tasks.training.examples import example_source
from tasks.training.feed import Feed
from tasks.training.validation import split_for_validation

CHOOSING_BATCHES, HELD_BATCHES = 10, 4
CHECKPOINT_SECONDS, TOLD_EVERY = 120.0, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("store")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--widths", type=int, nargs="+", help="channels of the encoder's levels; the preset's by default"
    )
    parser.add_argument("--mixtures", metavar="PRESET", help="make them as this preset's training does, not WEIGHTS'")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    weights = Weights.from_bytes(options.weights.read_bytes(), str(options.weights))
    shipped = load_trainable(weights.preset.name)
    fields = {**weights.preset.network_options, "widths": options.widths or shipped.network_options["widths"]}
    preset = replace(weights.preset, network_options=fields)
    mixing = load_trainable(options.mixtures or preset.name, continued=True)
    wide, narrow = weights.network(), build(preset).eval()
    assert isinstance(wide, StereoUNet)
    assert isinstance(narrow, StereoUNet)
    tracks = Store.open(location(options.store)).tracks("train")
    learning, validation = split_for_validation(tracks, mixing.stems)
    start = options.folder / "start.pt"
    if not start.exists():
        source = example_source(options.store, learning, mixing, options.seed + 1)
        batches = [seen(source.batch(step), preset) for step in range(CHOOSING_BATCHES)]
        fit_narrower(wide, narrow, [patch for batch in batches for patch in batch.split(1)])
        save(narrow.state_dict(), start)
    narrow.load_state_dict(torch.load(start))
    held_source = example_source(options.store, validation, mixing, options.seed + 2)
    held = torch.cat([seen(held_source.batch(step), preset) for step in range(HELD_BATCHES)])
    device = torch.device(resolved_device(options.device))
    wide, narrow, held = wide.to(device), narrow.to(device, memory_format=torch.channels_last), held.to(device)  # type: ignore[call-overload]
    told = masks(wide, held)
    print(f"fitted: {agreement(told, masks(narrow, held), held):.2f} dB on held-out songs", flush=True)
    distiller = Distiller(wide, narrow, learning_rate=options.learning_rate, steps=options.steps)
    checkpoint = options.folder / "checkpoint.pt"
    if checkpoint.exists():
        distiller.restore(torch.load(checkpoint))
    average: Any = build(preset).eval().to(device)
    feed = Feed(options.store, learning, mixing, options.seed, workers=0, device=device.type)
    saved = time.monotonic()
    for batch in feed.batches(distiller.step, options.steps):
        distiller.learn(seen(batch, preset).to(device))
        last = distiller.step == options.steps
        if distiller.step % TOLD_EVERY == 0 or last:
            average.load_state_dict(distiller.average)
            agreed = agreement(told, masks(average, held), held)
            print(f"step {distiller.step} of {options.steps}: {agreed:.2f} dB on held-out songs", flush=True)
        if last or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save(distiller.state(), checkpoint)
            saved = time.monotonic()
    record = {**weights.record, "narrowed_from": options.weights.stem, "narrowing_steps": options.steps}
    tensors = {name: value.cpu() for name, value in distiller.average.items()}
    done = replace(weights, preset=preset, tensors=tensors, record=record)
    (options.folder / "narrow.safetensors").write_bytes(done.to_bytes(torch.float16))


def seen(batch: Batch, preset: Preset) -> torch.Tensor:
    """What the networks see of a batch's mixtures, (batch, seen channels, bins, frames)."""
    spectra = (analysis(mixture, preset.n_fft, preset.hop) for mixture in batch.stems.sum(1).cpu())
    return torch.stack([magnitudes(spectrum, mid_side=preset.mid_side) for spectrum in spectra]).transpose(-1, -2)


@torch.no_grad()
def masks(network: StereoUNet, held: torch.Tensor) -> list[torch.Tensor]:
    """A network's masks of mixtures (batch, seen channels, bins, frames), one by one."""
    return [network(each[None])[0] for each in held]


def agreement(told: list[torch.Tensor], given: list[torch.Tensor], held: torch.Tensor) -> float:
    """How closely masked mixtures agree with the wide network's, in dB, mean over mixtures."""
    each = []
    for wide, narrow, mixture in zip(told, given, held, strict=True):
        heard = mixture[: wide.shape[1]]
        missed = ((wide - narrow) * heard).square().sum()
        each.append(10 * torch.log10((wide * heard).square().sum() / missed.clamp(min=1e-12)).item())
    return float(np.mean(each))


def save(state: dict, target: Path) -> None:
    """Write a state so that it is there complete or not at all."""
    torch.save(state, target.with_suffix(".new"))
    os.replace(target.with_suffix(".new"), target)


if __name__ == "__main__":
    main()
