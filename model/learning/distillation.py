"""A narrow network learns the masks of a wide one.

What it is told needs no true stems, so any music will do, and nothing about songs is learned by heart: the wide
network's answers are to be had for as many mixtures as there is time for.

Source: Hinton et al., "Distilling the knowledge in a neural network", 2015.
"""

import math

import torch

from model.learning.losses import complete
from model.learning.trainer import cosine_rate, follow
from model.networks import int8
from model.networks.stereo import StereoUNet

_EPSILON = 1e-8
_COMPRESSED = 0.25  # weight of the part on square roots
_CLIP = 5.0


class Distiller:
    """A narrow network, its optimiser and the moving average of its weights, advanced step by step.

    Batch norms keep the statistics that they have: those of the wide network's channels, which the narrow one's follow
    (`model.learning.narrowing`).

    Args:
        wide: The network to learn from. On a processor that has them it computes in 8-bit integers from now on.
        narrow: The network that learns; its input is scaled as that of `wide` and stays so.
        learning_rate: At its highest.
        steps: How many are planned; the rate falls to a hundredth by then, as a cosine.
        warmup: Steps over which the rate rises.
        ema: Decay of the moving average.

    Attributes:
        step: Steps done.
        average: The moving average, a state dict.
    """

    def __init__(
        self, wide: StereoUNet, narrow: StereoUNet, *, learning_rate: float, steps: int, warmup: int = 20,
        ema: float = 0.995,
    ) -> None:  # fmt: skip
        self.step = 0
        self._wide, self._narrow = wide.eval().requires_grad_(False), narrow.eval()
        if next(wide.parameters()).device.type == "cpu" and int8.supported():
            wide.quantise()
        self._rate, self._steps, self._warmup, self._ema = learning_rate, steps, warmup, ema
        narrow.input_scale.requires_grad_(False)
        narrow.input_shift.requires_grad_(False)
        self.average = {name: value.detach().clone() for name, value in narrow.state_dict().items()}
        learning = [each for each in narrow.parameters() if each.requires_grad]
        self._optimiser = torch.optim.AdamW(learning, lr=learning_rate, weight_decay=1e-4, fused=True)
        self._bins_to_rows = narrow.spread.weights.t().contiguous()

    def learn(self, magnitude: torch.Tensor) -> float:
        """One step.

        Args:
            magnitude: Mixtures as the networks see them, (batch, seen channels, bins, frames).

        Returns:
            How closely the masked mixtures agreed before the step, in dB: the energy of the wide network's over that of
            the difference.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = cosine_rate(self._rate, self.step, warmup=self._warmup, steps=self._steps)
        with torch.no_grad():
            rows = self._wide.rows(magnitude)
            # One by one: 8-bit integers have one scale per batch.
            told = torch.cat([self._wide.masks_of(self._wide.logits(row[None])) for row in rows])
            heard = magnitude[:, : self._narrow.channels]
            energy, size = self._relative(heard.square()), self._relative(heard)
        given = self._narrow.masks_of(self._narrow.logits(rows))
        parts = told.shape[1] + 1  # the masks, and what they leave
        missed = ((given - told).square() * energy).mean()
        roots = [
            (torch.sqrt(mine + _EPSILON) - torch.sqrt(its + _EPSILON)).square() * size[:, 0]
            for mine, its in zip(complete(given, parts), complete(told, parts), strict=True)
        ]
        loss = missed + _COMPRESSED * torch.stack([root.mean() for root in roots]).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._narrow.parameters(), _CLIP)
        self._optimiser.step()
        follow(self.average, self._narrow, self._ema, self.step)
        self.step += 1
        agreed = float((told.square() * energy).mean()) / max(_EPSILON**2, float(missed.detach()))
        return 10 * math.log10(max(_EPSILON, agreed))

    def state(self) -> dict:
        """What `restore` goes on from, for `torch.save`."""
        return {
            "step": self.step, "network": self._narrow.state_dict(), "average": self.average,
            "optimiser": self._optimiser.state_dict(),
        }  # fmt: skip

    def restore(self, state: dict) -> None:
        """Go on from `state()`."""
        self._narrow.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.average, self.step = state["average"], state["step"]

    def _relative(self, bins: torch.Tensor) -> torch.Tensor:
        """Bins (batch, channels, bins, frames) as weights of rows, (batch, 1, channels, rows, frames), mean 1."""
        rows = torch.matmul(self._bins_to_rows, bins)
        return (rows / rows.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12))[:, None]
