"""What training minimises.

Spectra enter as magnitudes and one angle, computed once without gradients, so that only real
arithmetic on the mask is differentiated: half of a training step's time otherwise.
"""

from dataclasses import dataclass

import torch

EPSILON = 1e-8


@dataclass(frozen=True)
class Spectra:
    """A batch of mixtures and their vocals, each tensor (batch, channels, bins, frames).

    mixture, vocals, accompaniment: magnitudes |X|, |V|, |X − V|. along: the part of V in phase with X,
    Re(X* · V) / |X|; across: the part at right angles to it. So |m·X − V|² = (m·|X| − along)² + across².
    """

    mixture: torch.Tensor
    vocals: torch.Tensor
    accompaniment: torch.Tensor
    along: torch.Tensor
    across: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, vocals: torch.Tensor, accompaniment: torch.Tensor) -> "Spectra":
        """From complex spectra of the two stems, (batch, channels, frames, bins), time-major as the store has them."""
        mixture = vocals + accompaniment
        size = mixture.abs()
        turned = vocals * (mixture.conj() / torch.clamp(size, min=EPSILON))
        parts = (size, vocals.abs(), accompaniment.abs(), turned.real, turned.imag)
        return cls(*(part.transpose(-1, -2).contiguous() for part in parts))


def mask_loss(mask: torch.Tensor, spectra: Spectra, band: torch.Tensor, *, compressed: float = 0.5) -> torch.Tensor:
    """Distance between masked mixture and vocals, scalar.

    mask: (batch, channels, bins, frames) in 0…1. band: (batch, 1, bins, 1), 1 where the example has
    content at all and 0 above.

    Two parts. The complex part, |m·X − V| over the mixture's mean magnitude, is what SDR sees (by
    Parseval the error of the waveform) and, because X − m·X is the accompaniment, serves both stems.
    The compressed part, on square roots of magnitudes of both stems, weighs quiet partials as an ear
    does and keeps the mask from closing where phases disagree. `compressed` is its weight.
    """
    total = mask.new_zeros(())
    share = band.mean().clamp(min=EPSILON) * mask.numel()
    for item in range(len(mask)):  # one example's planes stay in the processor's cache
        m, b = mask[item], band[item]
        x, v, a = spectra.mixture[item], spectra.vocals[item], spectra.accompaniment[item]
        scale = 1 / torch.clamp(x.mean(), min=EPSILON)
        miss = (m * x - spectra.along[item]) * scale
        error = torch.sqrt(miss.square() + ((spectra.across[item] * scale).square() + EPSILON))
        root = torch.sqrt(x * scale)
        vocals = torch.sqrt(m + EPSILON) * root - torch.sqrt(v * scale)
        accompaniment = torch.sqrt(1 - m + EPSILON) * root - torch.sqrt(a * scale)
        total = total + ((error + compressed * 0.5 * (vocals.abs() + accompaniment.abs())) * b).sum()
    return total / share


def magnitude_l1(mask: torch.Tensor, spectra: Spectra) -> torch.Tensor:
    """‖ |V| − m·|X| ‖₁, the loss of Jansson et al. 2017, on magnitudes scaled by the patch's maximum."""
    scale = 1 / torch.clamp(spectra.mixture.amax(dim=(1, 2, 3), keepdim=True), min=EPSILON)
    return ((mask * spectra.mixture - spectra.vocals) * scale).abs().mean()
