"""What training minimises.

Spectra enter as magnitudes and one angle, computed once without gradients, so that only real
arithmetic on the masks is differentiated: half of a training step's time otherwise.
"""

from dataclasses import dataclass

import torch

EPSILON = 1e-8
_BINS, _FRAMES = 128, 16  # are computed at a time on a CPU


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
        examples, sources, channels, frames, bins = stems.shape
        plane = stems.real.new_empty
        seen = plane(examples, 4 if mid_side and channels == 2 else channels, bins, frames)
        sizes = plane(examples, sources, channels, bins, frames)
        along = plane(examples, min(masks, sources), channels, bins, frames)
        across = torch.empty_like(along)
        for part in _parts(stems):
            for some in _pieces(frames, _FRAMES, stems):
                piece = stems[part, ..., some, :]
                real, imaginary = (each.transpose(-1, -2).contiguous() for each in (piece.real, piece.imag))
                whole_real, whole_imaginary = real.sum(1), imaginary.sum(1)
                size = _size(whole_real, whole_imaginary)
                seen[part, :channels, :, some] = size
                if seen.shape[1] > channels:
                    (left, right), (left_i, right_i) = whole_real.unbind(1), whole_imaginary.unbind(1)
                    seen[part, 2, :, some] = _size(left + right, left_i + right_i).mul_(0.5)
                    seen[part, 3, :, some] = _size(left - right, left_i - right_i).mul_(0.5)
                sizes[part, ..., some] = _size(real, imaginary)
                over = size.clamp_(min=EPSILON).reciprocal_()
                turn_real, turn_imaginary = whole_real.mul_(over)[:, None], whole_imaginary.mul_(over)[:, None]
                real, imaginary = real[:, :masks], imaginary[:, :masks]
                along[part, ..., some] = (real * turn_real).addcmul_(imaginary, turn_imaginary)
                across[part, ..., some] = (imaginary * turn_real).addcmul_(real, turn_imaginary, value=-1)
        return cls(seen, seen[:, :channels], sizes, along, across)


def _parts(batch: torch.Tensor) -> list[slice]:
    """A batch's examples as they are computed: on a CPU one by one, so that an example's planes stay in its cache; on a
    GPU all at once, where each operation costs its launch.
    """
    if batch.device.type == "cpu":
        return [slice(item, item + 1) for item in range(len(batch))]
    return [slice(None)]


def _pieces(length: int, size: int, batch: torch.Tensor) -> list[slice]:
    """An axis in pieces of `size` on a CPU, so that their planes stay in a core's cache; whole on a GPU."""
    size = size if batch.device.type == "cpu" else length
    return [slice(start, start + size) for start in range(0, length, size)]


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
    return _MaskLoss.apply(masks, spectra, band, compressed, squared)


class _MaskLoss(torch.autograd.Function):
    """`mask_loss` and its gradient in one pass, a few bins of an example at a time: autograd would write each of some
    thirty intermediate planes to memory and read it back.
    """

    @staticmethod
    def forward(
        ctx, masks: torch.Tensor, spectra: Spectra, band: torch.Tensor, compressed: float, squared: bool
    ) -> torch.Tensor:
        total = masks.new_zeros(())
        gradient = torch.empty_like(masks)
        for part in _parts(masks):
            x = spectra.mixture[part]
            scale = 1 / torch.clamp(x.mean((1, 2, 3), keepdim=True), min=EPSILON)
            weight = scale / masks.shape[1]
            share = torch.sqrt(scale) * (compressed / spectra.stems.shape[1])
            if squared:
                energy = x.square().mean((1, 2, 3), keepdim=True) * scale.square()
                weight, share = weight * scale / torch.clamp(energy, min=EPSILON), share * torch.sqrt(scale)
            for bins in _pieces(masks.shape[-2], _BINS, masks):
                each = (part, slice(None), slice(None), bins)
                planes = (values[each] for values in (masks, spectra.stems, spectra.along, spectra.across))
                value, slopes = _distance(
                    x[:, :, bins], *planes, weight=weight, share=share, least=EPSILON / scale.square(), squared=squared
                )
                total += value.mul_(band[part, :, bins]).sum()
                for number, slope in enumerate(slopes):
                    torch.mul(slope, band[part, :, bins], out=gradient[part, number, :, bins])
        over = band.mean().clamp(min=EPSILON) * spectra.mixture.numel()
        ctx.save_for_backward(gradient, over)
        return total / over

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grown: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        gradient, over = ctx.saved_tensors
        return gradient * (grown / over), None, None, None, None


def _distance(
    x: torch.Tensor,
    masks: torch.Tensor,
    stems: torch.Tensor,
    along: torch.Tensor,
    across: torch.Tensor,
    *,
    weight: torch.Tensor,
    share: torch.Tensor,
    least: torch.Tensor,
    squared: bool,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Each bin's loss and its derivative by each mask, all of shape (batch, channels, bins, frames).

    Args:
        x: |X|, of that shape.
        masks: (batch, masks, channels, bins, frames), as for `mask_loss`.
        stems: |S|, (batch, stems, channels, bins, frames).
        along: As in `Spectra`, of the masks' shape.
        across: The same.
        weight: Of the complex part, (batch, 1, 1, 1).
        share: Of the compressed part, (batch, 1, 1, 1).
        least: Added to the error's square, whose root has no derivative at 0, (batch, 1, 1, 1).
        squared: As for `mask_loss`.
    """
    value, slopes = torch.zeros_like(x), []
    for m, right, wrong in zip(*(v.unbind(1) for v in (masks, along, across)), strict=True):
        miss = (m * x).sub_(right)
        error = (miss * miss).addcmul_(wrong, wrong).add_(least)
        slope = miss.mul_(x).mul_(weight)
        slopes.append(slope.mul_(2) if squared else slope.div_(error.sqrt_()))
        value.addcmul_(error, weight)
    root = torch.sqrt(x)
    for number, (m, stem) in enumerate(zip(complete(masks, stems.shape[1]), stems.unbind(1), strict=True)):
        half = torch.sqrt(m + EPSILON)
        difference = (half * root).sub_(torch.sqrt(stem))
        if squared:
            slope = difference * share
            value.addcmul_(slope, difference)
        else:
            value.addcmul_(difference.abs(), share)
            slope = difference.sign_().mul_(share / 2)
        slope.mul_(root).div_(half)
        if number < len(slopes):
            slopes[number].add_(slope)
        else:
            slope.mul_(masks.sum(1) <= 1)  # where the others leave nothing, the last mask stays closed
            for other in slopes:
                other.sub_(slope)
    return value, slopes


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
