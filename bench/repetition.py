"""Fits what repetition counts beside the masks (model/separation/repetition.py), and says what it gains.

    python bench/repetition.py WEIGHTS.safetensors [BINS]

Takes musdb18_7s/train and two stretches of each song of real_stems from ../shared/data, mixed down to mono; nothing
that scores are judged on. The numbers minimise the mean error in dB of the vocals' masked spectrum, over BINS
(820) bins. The gain is of each half of the songs with numbers fitted to the other half. The network may have learned
from these songs, so its masks are surer here than on others; `bench/experiment.py` judges.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from calibrate import real_songs

from model.checkpoint import Weights
from model.preset import Preset
from model.separation.masking import Masker, padded
from model.separation.repetition import log_odds
from model.spectra.frontend import magnitudes, spectrogram

EDGES = (0, 12, 20, 30, 45, 70, 110, 170, 260, 400, 820)  # of the bands, in bins
_STEPS, _RATE, _SONGS = 80, 0.05, 12  # of Adam; songs per step


@dataclass(frozen=True)
class Song:
    """One mixture's lower bins, (frames, bins) each; `beyond` is the vocals' error in all other bins."""

    odds: torch.Tensor
    evidence: torch.Tensor
    mask: torch.Tensor
    power: torch.Tensor  # |X|²
    product: torch.Tensor  # Re V X*
    vocals: float  # Σ |V|²
    beyond: float

    def error(self, mask: torch.Tensor) -> torch.Tensor:
        """Σ |V − m X|²."""
        return (self.power * mask.square() - 2 * mask * self.product).sum() + self.vocals + self.beyond


def main(path: Path, bins: int) -> None:
    """Print what repetition gains, and the numbers.

    Args:
        path: The weights.
        bins: How many bins are changed.
    """
    torch.set_num_threads(1)
    weights = Weights.from_bytes(path.read_bytes(), path.name)
    masker = Masker(weights.preset, weights.network(), torch.device("cpu"), "float32")
    songs = [observed(masker, weights.preset, *stems, bins) for stems in material(weights.preset)]
    band = torch.bucketize(torch.arange(bins), torch.tensor(EDGES[1:-1]), right=True)
    half = len(songs) // 2
    parts = songs[:half], songs[half:]
    gained = torch.cat([gains(parts[k], fitted(parts[1 - k], band), band) for k in (0, 1)])
    print(
        f"{len(songs)} songs, each half with the other's numbers: {gained.mean():+.3f} dB in the mean, "
        f"median {gained.median():+.3f}, better on {(gained > 0).float().mean():.0%}, least {gained.min():+.2f}"
    )
    trust, weight, *constants = fitted(songs, band).tolist()
    print(f"trust {trust:.2f}, weight {weight:.2f}, constants")
    for edge, constant in zip(EDGES[1:], constants, strict=True):
        print(f"    ({edge}, {constant:.2f}),")


def material(preset: Preset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Vocals and the rest of each song, (1, samples) each at the preset's rate."""
    for _, stems, rate in real_songs(("vocals", "accompaniment"), seconds=10):
        vocals, rest = (
            torch.from_numpy(np.ascontiguousarray(soxr.resample(stem.mean(0), rate, preset.sample_rate), np.float32))
            for stem in (stems["vocals"], stems["accompaniment"])
        )
        if all(stem.square().mean() > 1e-7 for stem in (vocals, rest)):
            yield vocals[None], rest[None]


@torch.no_grad()
def observed(masker: Masker, preset: Preset, vocals: torch.Tensor, rest: torch.Tensor, bins: int) -> Song:
    """What masks and repetition say of one song, as one segment."""
    mixture, target = (spectrogram(signal, preset.front_end)[:, : preset.inference.core_frames]
                       for signal in (vocals + rest, vocals))  # fmt: skip
    context = preset.inference.context_frames
    seen = padded(magnitudes(mixture, mid_side=preset.mid_side), (0, 0, context, context))
    mask = masker.masks([seen], 1, 1)[0][0, 0].float()
    mixture, target = mixture[0], target[0]
    mask = mask.clone()  # what a network gives cannot be part of a graph
    odds, evidence = log_odds(mixture[:, :bins].abs()[None], mask[None, :, :bins])
    return Song(
        odds=odds[0], evidence=evidence[0], mask=mask[:, :bins], power=mixture[:, :bins].abs().square(),
        product=(target * mixture.conj()).real[:, :bins], vocals=float(target[:, :bins].abs().square().sum()),
        beyond=float((target - mask * mixture)[:, bins:].abs().square().sum()),
    )  # fmt: skip


def changed(song: Song, numbers: torch.Tensor, band: torch.Tensor) -> torch.Tensor:
    """The mask with what repetition says: numbers as `fitted` returns them."""
    return torch.sigmoid(numbers[0] * song.odds + numbers[1] * song.evidence + numbers[2:][band])


def gains(songs: list[Song], numbers: torch.Tensor, band: torch.Tensor) -> torch.Tensor:
    """How much less each song's vocals err, in dB, (songs,)."""
    return torch.stack(
        [10 * torch.log10(song.error(song.mask) / song.error(changed(song, numbers, band))) for song in songs]
    )


def fitted(songs: list[Song], band: torch.Tensor) -> torch.Tensor:
    """Trust in the mask, weight of the evidence, and a constant per band: (2 + bands,)."""
    numbers = torch.tensor([1.0, 0.25] + [-0.1] * (len(EDGES) - 1)).requires_grad_()
    adam = torch.optim.Adam([numbers], lr=_RATE)
    for step in range(_STEPS):
        adam.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
        drawn = np.random.default_rng(step).choice(len(songs), min(_SONGS, len(songs)), replace=False)
        adam.zero_grad()
        (-gains([songs[index] for index in drawn], numbers, band).mean()).backward()
        adam.step()
    return numbers.detach()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else EDGES[-1])
