"""Left and right together: stems that overlap in a bin but come from different places are told apart there.

A mask scales both channels of a bin nearly alike: with the voice in the middle it lets through what it lets through of
a guitar on the left. The multichannel Wiener filter does better (Duong, Vincent & Gribonval 2010, eq. 18; Nugraha,
Liutkus & Vincent 2016): stem j of a bin is m_j R_j (Σ_i m_i R_i)⁻¹ x, where x holds the two channels, m_j is the stem's
share of the bin, and R_j, the covariance of the stem's channels in that frequency, says where it is. Both come from the
masks: R_j is estimated from the masked frames of one segment. Where all stems come from one place, as in a mono song,
the filter is the mask.
"""

import torch

# R is estimated over so many bins on either side: a few frames alone would say little about a quiet stem.
_BINS = 2
# Share of R that has no direction, which keeps the matrix that is inverted well away from singular in float32.
_DIFFUSE = 1e-2
_FRAMES = 32  # are worked on at a time, since what fits into the processor's cache is several times as fast
_TINY = 1e-20


def stem_spectra(spectrum: torch.Tensor, masks: torch.Tensor, bins: int) -> torch.Tensor:
    """The stems' spectra in a segment: masked, and of two channels' lower bins filtered as this module says.

    Args:
        spectrum: The mixture, complex (channels, frames, bins); R_j is estimated from these frames.
        masks: Masks of all stems but the last, which is the rest, (stems − 1, channels, frames, bins).
        bins: How many bins are filtered, from the lowest on; 0 for none.

    Returns:
        Complex (stems − 1, channels, frames, bins).
    """
    stems = spectrum.new_empty(masks.shape)
    masked = slice(bins if len(spectrum) == 2 else 0, None)
    for part in _parts(spectrum):
        torch.mul(spectrum[:, part, masked], masks[:, :, part, masked], out=stems[:, :, part, masked])
    filter_together(spectrum, masks, bins, stems)
    return stems


def filter_together(spectrum: torch.Tensor, masks: torch.Tensor, bins: int, out: torch.Tensor) -> None:
    """Write the filtered stems of two channels' lower bins; nothing is done to other channel counts.

    Args:
        spectrum: As for `stem_spectra`.
        masks: As for `stem_spectra`.
        bins: As for `stem_spectra`.
        out: The stems, complex (stems − 1, channels, frames, bins), of which the lower bins are written.
    """
    if not bins or len(spectrum) != 2:
        return
    spectrum, masks, out = spectrum[..., :bins], masks[..., :bins], out[..., :bins]
    parts = _parts(spectrum)
    mixtures, shares = [], []
    sums = spectrum.real.new_zeros(4, len(masks) + 1, spectrum.shape[2])
    for part in parts:
        # Real and imaginary parts by themselves, (2, channels, frames, bins): torch computes with what is contiguous.
        mixture = torch.view_as_real(spectrum[:, part]).permute(3, 0, 1, 2).contiguous()
        share, of_part = _shares_and_covariances(mixture, masks[:, :, part])
        mixtures.append(mixture)
        shares.append(share)
        sums += of_part
    directions = _directions(sums)
    for part, mixture, share in zip(parts, mixtures, shares, strict=True):
        _filter(mixture, share, directions, out[:, :, part])


def _parts(spectrum: torch.Tensor) -> list[slice]:
    frames = spectrum.shape[1]
    step = _FRAMES if spectrum.device.type == "cpu" else max(1, frames)
    return [slice(start, start + step) for start in range(0, frames, step)]


def _shares_and_covariances(mixture: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each stem's share of a bin, and where it is.

    The share is one for both channels, and that of amplitudes: a mask that errs least is the chance of a bin being the
    stem's, not its square. Channels whose masks differ would else look like a stem in another place.

    Args:
        mixture: Real and imaginary parts, (2, channels, frames, bins).
        masks: (stems − 1, 2, frames, bins).

    Returns:
        Shares (stems, frames, bins), and of x, weighted with their squares, the sums over frames of |l|², |r|², Re l r*
        and Im l r*, (4, stems, bins).
    """
    (l_re, r_re), (l_im, r_im) = mixture
    left, right = mixture[0].square().addcmul_(mixture[1], mixture[1])
    l_size, r_size = left.sqrt().add_(_TINY), right.sqrt()
    of_both = torch.mul(masks[:, 0], l_size).addcmul_(masks[:, 1], r_size).div_(l_size.add_(r_size))
    shares = torch.cat([of_both, (1 - of_both.sum(0))[None].clamp_(min=0)])
    weights = shares.square()
    products = [left, right, torch.mul(l_re, r_re).addcmul_(l_im, r_im), torch.mul(l_im, r_re).sub_(l_re * r_im)]
    return shares, torch.stack([(weights * product).sum(1) for product in products])


def _directions(sums: torch.Tensor) -> torch.Tensor:
    """R_j of every bin, (4, stems, bins) as R_ll, R_rr, Re R_lr, Im R_lr, with a trace of 2."""
    sums = torch.nn.functional.avg_pool1d(sums, 2 * _BINS + 1, stride=1, padding=_BINS, count_include_pad=False)
    level = (sums[0] + sums[1]) / 2
    heard = sums / (level + _TINY)
    diffuse = torch.tensor([1.0, 1.0, 0.0, 0.0], device=sums.device)[:, None, None]
    return (1 - _DIFFUSE) * heard + _DIFFUSE * diffuse


def _filter(mixture: torch.Tensor, shares: torch.Tensor, directions: torch.Tensor, out: torch.Tensor) -> None:
    """Write m_j R_j (Σ_i m_i R_i)⁻¹ x of every stem but the last into `out`."""
    ll, rr, re, im = (_weighted_sum(shares, of_stems) for of_stems in directions)
    # (Σ_i m_i R_i)⁻¹ x but for the determinant
    turned = _product(rr, ll, re.neg(), im.neg(), mixture)
    determinant = ll.mul_(rr).addcmul_(re, re, value=-1).addcmul_(im, im, value=-1).clamp_(min=_TINY)
    for stem, share in enumerate(shares[:-1]):
        r_ll, r_rr, r_re, r_im = directions[:, stem]
        of_stem = _product(r_ll, r_rr, r_re, r_im, turned).mul_(share / determinant)
        torch.view_as_real(out[stem]).copy_(of_stem.permute(1, 2, 3, 0))


def _weighted_sum(shares: torch.Tensor, of_stems: torch.Tensor) -> torch.Tensor:
    """Σ over stems of a share (stems, frames, bins) times a number of each bin (stems, bins)."""
    total = shares[0] * of_stems[0]
    for share, of_stem in zip(shares[1:], of_stems[1:], strict=True):
        total.addcmul_(share, of_stem)
    return total


def _product(
    ll: torch.Tensor, rr: torch.Tensor, re: torch.Tensor, im: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    """Hermitian 2×2 matrices (their diagonals, and the element of row l and column r) times both channels.

    Args:
        ll, rr, re, im: Each of a shape that broadcasts to (frames, bins).
        signal: Real and imaginary parts, (2, channels, frames, bins), as is what is returned.
    """
    (l_re, r_re), (l_im, r_im) = signal
    out = torch.empty_like(signal)
    torch.mul(ll, l_re, out=out[0, 0]).addcmul_(re, r_re).addcmul_(im, r_im, value=-1)
    torch.mul(ll, l_im, out=out[1, 0]).addcmul_(re, r_im).addcmul_(im, r_re)
    torch.mul(rr, r_re, out=out[0, 1]).addcmul_(re, l_re).addcmul_(im, l_im)
    torch.mul(rr, r_im, out=out[1, 1]).addcmul_(re, l_im).addcmul_(im, l_re, value=-1)
    return out
