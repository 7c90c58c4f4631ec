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
    stems = spectrum * masks
    filter_together(spectrum, masks, bins, stems)
    return stems


def filter_together(spectrum: torch.Tensor, masks: torch.Tensor, bins: int, out: torch.Tensor) -> None:
    """Replace the masked stems of two channels' lower bins by filtered ones; nothing is done to other channel counts.

    Args:
        spectrum: As for `stem_spectra`.
        masks: As for `stem_spectra`.
        bins: As for `stem_spectra`.
        out: The masked stems, complex (stems − 1, channels, frames, bins), which are changed.
    """
    if not bins or len(spectrum) != 2:
        return
    spectrum, masks, out = spectrum[..., :bins], masks[..., :bins], out[..., :bins]
    step = _FRAMES if spectrum.device.type == "cpu" else spectrum.shape[1]
    parts = [slice(start, start + step) for start in range(0, spectrum.shape[1], step)]
    shares = []
    sums = spectrum.real.new_zeros(4, len(masks) + 1, spectrum.shape[2])
    for part in parts:
        share, of_part = _shares_and_covariances(spectrum[:, part], masks[:, :, part])
        shares.append(share)
        sums += of_part
    directions = _directions(sums)
    for part, share in zip(parts, shares, strict=True):
        _filter(spectrum[:, part], share, directions, out[:, :, part])


def _shares_and_covariances(mixture: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each stem's share of a bin, and where it is.

    The share is one for both channels, and that of amplitudes: a mask that errs least is the chance of a bin being the
    stem's, not its square. Channels whose masks differ would else look like a stem in another place.

    Args:
        mixture: Complex (2, frames, bins).
        masks: (stems − 1, 2, frames, bins).

    Returns:
        Shares (stems, frames, bins), and of x, weighted with their squares, the sums over frames of |l|², |r|², Re l r*
        and Im l r*, (4, stems, bins).
    """
    (l_re, l_im), (r_re, r_im) = (channel.unbind(-1) for channel in torch.view_as_real(mixture))
    products = [l_re.square() + l_im.square(), r_re.square() + r_im.square()]
    amplitude = products[0].sqrt().add_(_TINY), products[1].sqrt()
    of_both = (masks[:, 0] * amplitude[0] + masks[:, 1] * amplitude[1]) / (amplitude[0] + amplitude[1])
    shares = torch.cat([of_both, (1 - of_both.sum(0))[None].clamp_(min=0)])
    weights = shares.square()
    products += [l_re * r_re + l_im * r_im, l_im * r_re - l_re * r_im]
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
    ll, rr, lr_re, lr_im = ((shares * each[:, None]).sum(0) for each in directions)
    scale = (ll * rr - lr_re.square() - lr_im.square()).clamp_(min=_TINY).reciprocal_()
    lr = torch.complex(lr_re * scale, lr_im * scale)
    left, right = mixture
    z_left = (rr * scale) * left - lr * right
    z_right = (ll * scale) * right - lr.conj() * left
    for stem, share in enumerate(shares[:-1]):
        r_ll, r_rr, r_re, r_im = directions[:, stem]
        r_lr = torch.complex(r_re, r_im)
        out[stem, 0] = share * (r_ll * z_left + r_lr * z_right)
        out[stem, 1] = share * (r_rr * z_right + r_lr.conj() * z_left)
