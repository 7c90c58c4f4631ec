"""What training minimises.

Spectra enter as magnitudes and one angle, computed once without gradients, so that only real
arithmetic on the masks is differentiated: half of a training step's time otherwise.
"""

from dataclasses import dataclass

import torch

EPSILON = 1e-8


@dataclass(frozen=True)
class Spectra:
    """A batch of mixtures X and their stems S, as real tensors.

    seen: what the network sees, (batch, seen channels, bins, frames). mixture: |X| (batch, channels, bins,
    frames). stems: |S| (batch, stems, channels, bins, frames). along: the part of S in phase with X,
    Re(X* · S) / |X|; across: the part at right angles to it; both for the first `masks` stems. So
    |m·X − S|² = (m·|X| − along)² + across².
    """

    seen: torch.Tensor
    mixture: torch.Tensor
    stems: torch.Tensor
    along: torch.Tensor
    across: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, stems: torch.Tensor, *, masks: int, mid_side: bool = False) -> "Spectra":
        """The spectra of a batch, from complex ones.

        In real arithmetic: torch's complex absolute value guards against overflow at four times the cost.

        Args:
            stems: Complex (batch, stems, channels, frames, bins), time-major as the store has them; they add up to X.
            masks: How many masks the network gives (`Preset.masks`); `along` and `across` are of that many stems.
            mid_side: Whether the network also sees mid and side of a stereo mixture.
        """
        kept: list[list[torch.Tensor]] = [[], [], [], [], []]
        for part in _parts(stems):
            real, imaginary = (plane.transpose(-1, -2).contiguous() for plane in (stems[part].real, stems[part].imag))
            whole_real, whole_imaginary = real.sum(1), imaginary.sum(1)
            size = _size(whole_real, whole_imaginary)
            over = 1 / torch.clamp(size, min=EPSILON)
            turn_real, turn_imaginary = (whole_real * over)[:, None], (whole_imaginary * over)[:, None]
            seen = size
            if mid_side and size.shape[1] == 2:
                (left, right), (left_i, right_i) = whole_real.unbind(1), whole_imaginary.unbind(1)
                middle, side = _size(left + right, left_i + right_i), _size(left - right, left_i - right_i)
                seen = torch.cat([size, torch.stack([middle, side], dim=1) * 0.5], dim=1)
            some_real, some_imaginary = real[:, :masks], imaginary[:, :masks]
            along = (some_real * turn_real).addcmul_(some_imaginary, turn_imaginary)
            across = (some_imaginary * turn_real).addcmul_(some_real, turn_imaginary, value=-1)
            for values, value in zip(kept, (seen, size, _size(real, imaginary), along, across), strict=True):
                values.append(value)
        return cls(*(torch.cat(values) for values in kept))


def _parts(batch: torch.Tensor) -> list[slice]:
    """A batch's examples as they are computed: on a CPU one by one, so that an example's planes stay in its cache; on a
    GPU all at once, where each operation costs its launch.
    """
    if batch.device.type == "cpu":
        return [slice(item, item + 1) for item in range(len(batch))]
    return [slice(None)]


def _size(real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
    return (real * real).addcmul_(imaginary, imaginary).sqrt_()


def mask_loss(
    masks: torch.Tensor, spectra: Spectra, band: torch.Tensor, *, compressed: float = 0.5, squared: bool = False
) -> torch.Tensor:
    """Distance between the masked mixture and the stems.

    Two parts. The complex part, the mean over masks of |m·X − S| over the mixture's mean magnitude, is what
    SDR measures (by Parseval the error of the waveform); of two stems one is enough, since X − m·X is the
    other. The compressed part, on square roots of magnitudes of all stems, weighs quiet partials as an ear
    does and keeps a mask from closing where phases disagree.

    With `squared` a network in doubt learns the chance itself: the absolute error is least at the likelier of all
    and nothing, the squared one in between, at the chance; and SDR counts squares.

    Args:
        masks: (batch, masks, channels, bins, frames) in 0…1, of all stems or of all but the last, whose mask is
            then what the others leave.
        spectra: The mixtures and their true stems.
        band: (batch, 1, bins, 1), 1 where the example has content and 0 above.
        compressed: Weight of the compressed part.
        squared: Whether to take squares in both parts, the complex one as a share of the mixture's energy.

    Returns:
        A scalar.
    """
    total = masks.new_zeros(())
    share = band.mean().clamp(min=EPSILON) * spectra.mixture.numel()
    estimated, stems = masks.shape[1], spectra.stems.shape[1]
    for part in _parts(masks):
        b, x = band[part], spectra.mixture[part]
        scale = 1 / torch.clamp(x.mean((1, 2, 3), keepdim=True), min=EPSILON)
        root = torch.sqrt(x * scale)
        energy = torch.clamp((x * scale).square().mean((1, 2, 3), keepdim=True), min=EPSILON)
        error: torch.Tensor | int = 0
        roots: torch.Tensor | int = 0
        planes = (values[part].unbind(1) for values in (masks, spectra.along, spectra.across))
        for m, along, across in zip(*planes, strict=True):
            miss = (m * x - along) * scale
            power = miss.square() + ((across * scale).square() + EPSILON)
            error = error + (power / energy if squared else torch.sqrt(power))
        for m, stem in zip(complete(masks[part], stems), spectra.stems[part].unbind(1), strict=True):
            difference = torch.sqrt(m + EPSILON) * root - torch.sqrt(stem * scale)
            roots = roots + (difference.square() if squared else difference.abs())
        weighted = error / estimated + roots * (compressed / stems)
        total = total + (weighted * b).sum()
    return total / share


def complete(masks: torch.Tensor, stems: int) -> list[torch.Tensor]:
    """The masks of all stems, of (batch, masks, …): the last one's is what the others leave where there is none."""
    given = list(masks.unbind(1))
    return given if len(given) == stems else [*given, torch.clamp(1 - masks.sum(1), min=0)]


def magnitude_l1(masks: torch.Tensor, spectra: Spectra) -> torch.Tensor:
    """‖ |V| − m·|X| ‖₁, the loss of Jansson et al. 2017, on magnitudes scaled by the patch's maximum.

    Args:
        masks: (batch, masks, channels, bins, frames) in 0…1; the first is that of the vocals.
        spectra: The mixtures and their true stems, the vocals first.

    Returns:
        A scalar, the mean over bins.
    """
    scale = 1 / torch.clamp(spectra.mixture.amax(dim=(1, 2, 3), keepdim=True), min=EPSILON)
    return ((masks[:, 0] * spectra.mixture - spectra.stems[:, 0]) * scale).abs().mean()


def cross_entropy(masks: torch.Tensor, spectra: Spectra, band: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between P(vocal) and the ideal binary mask.

    A bin is vocal where the vocals are louder than the rest (Wang, "On ideal binary mask as the
    computational goal of auditory scene analysis", 2005). Bins weigh by the root of their magnitude: silent
    ones, which are the most, have no class worth learning.

    Args:
        masks: P(vocal), (batch, 1, channels, bins, frames).
        spectra: The mixtures and their true stems, the vocals first.
        band: (batch, 1, bins, 1), 1 where the example has content and 0 above.

    Returns:
        A scalar.
    """
    vocal = (spectra.stems[:, 0] > spectra.stems[:, 1:].sum(1)).float()
    scale = 1 / torch.clamp(spectra.mixture.mean(dim=(1, 2, 3), keepdim=True), min=EPSILON)
    weight = torch.sqrt(spectra.mixture * scale) * band
    probability = masks[:, 0].clamp(1e-6, 1 - 1e-6)
    entropy = torch.nn.functional.binary_cross_entropy(probability, vocal, reduction="none")
    return (entropy * weight).sum() / torch.clamp(weight.sum(), min=EPSILON)
