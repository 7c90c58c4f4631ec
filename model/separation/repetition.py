"""What repeats: a bin is judged anew by what the song holds in frames that sound alike.

Accompaniment repeats: chords, riffs and drum patterns come back within seconds, mostly under other words. So a bin that
is louder than its accompaniment in similar frames holds something more, and one that is as loud holds nothing else
(REPET-SIM, Rafii & Pardo 2012). A voice repeats too, note by note. A network that sees some seconds through small
filters cannot look for another place where the same sounds; this can, since it compares all frames of a segment.

Of each stem, the mean over the other frames of its masked magnitude, weighted by their likeness (non-local means,
Buades, Coll & Morel 2005), says how much of it is to be expected. Its ratios to the mixture are two pieces of evidence,
which move the mask's log-odds. Their weights were fitted by `bench/repetition.py` on songs of the training half.
"""

import torch

# Frames this near are not compared: they sound alike because they overlap, or because a chord is held.
_GAP_REST, _GAP_VOICE = 12, 3
_SHARPNESS_REST, _SHARPNESS_VOICE = 100.0, 50.0  # of the softmax over cosines
_LOWEST = 8  # bins below, under 86 Hz, say little about likeness
_LEAST = 1e-3  # a mask nearer than this to 0 or 1 is certain
_TINY = 1e-9
_LIMITS = -6.0, 8.0  # of the evidence, in nepers of power: beyond, it says no more
_VOICE = 0.5  # weight of the voice's evidence against the accompaniment's
_TRUST = 0.4  # in the mask: factor on its log-odds
_WEIGHT = 0.6  # of the evidence
# Per band of bins: its upper edge, and what is added to the log-odds.
_CONSTANTS = (
    (12, -1.4), (20, -0.9), (30, -0.8), (45, -0.45), (70, -0.75), (110, -0.75), (170, -0.55), (260, -0.8), (400, -0.5),
    (820, -0.9),
)  # fmt: skip


def use_repetition(magnitude: torch.Tensor, masks: torch.Tensor, bins: int) -> None:
    """Change the masks of a segment by what repeats in it. The other stems keep their shares of what the first leaves.

    Args:
        magnitude: The mixture's |X|, (channels, frames, bins), of windows of about 93 ms every 23 ms.
        masks: Masks of all stems but the last, the first being the vocals', (stems − 1, channels, frames, bins); they
            are changed.
        bins: How many bins are changed, from the lowest on; 0 for none.
    """
    if not bins or magnitude.shape[1] <= 2 * _GAP_REST + 1:
        return
    voice = masks[0, ..., :bins]
    odds, evidence = log_odds(magnitude[..., :bins], voice)
    changed = odds.mul_(_TRUST).add_(evidence, alpha=_WEIGHT).add_(_constants(odds)).sigmoid_()
    changed = torch.where((voice - 0.5).abs() < 0.5 - _LEAST, changed, voice)  # what is certain stays so
    for mask in masks[1:, ..., :bins]:
        mask *= (1 - changed) / (1 - voice).clamp_(min=_LEAST)
    voice.copy_(changed)


def log_odds(magnitude: torch.Tensor, voice: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the mask says about every bin, and what repetition says.

    Args:
        magnitude: As for `use_repetition`.
        voice: The vocals' mask, (channels, frames, bins).

    Returns:
        The mask's log-odds and the evidence for vocals, (channels, frames, bins) each.
    """
    share = voice.clamp(_LEAST, 1 - _LEAST)
    sung = magnitude * share
    rest = magnitude - sung
    level = magnitude.square().add_(_TINY).log_()
    low, high = _LIMITS
    evidence = (level - _expected(rest, _GAP_REST, _SHARPNESS_REST)).clamp_(low, high)
    evidence += (_expected(sung, _GAP_VOICE, _SHARPNESS_VOICE) - level).clamp_(-high, -low).mul_(_VOICE)
    return torch.logit(share), evidence


def _expected(stem: torch.Tensor, gap: int, sharpness: float) -> torch.Tensor:
    """log of the power that a stem has in frames like this one, (channels, frames, bins)."""
    sound = stem.sum(0)[:, _LOWEST:].sqrt_()
    smooth = sound.clone()  # with the frames before and after; all are scaled to one length
    smooth[1:] += sound[:-1]
    smooth[:-1] += sound[1:]
    smooth /= smooth.norm(dim=1, keepdim=True) + _TINY
    likeness = (smooth @ smooth.t()).mul_(sharpness)
    frames = torch.arange(len(likeness), device=stem.device)
    likeness.masked_fill_((frames[:, None] - frames).abs() <= gap, -torch.inf)
    weights = likeness.softmax(1)
    return (weights @ stem).add_(_TINY).log_().mul_(2)


def _constants(like: torch.Tensor) -> torch.Tensor:
    """The bands' constants for every bin, (bins,)."""
    out = like.new_full(like.shape[-1:], _CONSTANTS[-1][1])
    start = 0
    for stop, constant in _CONSTANTS:
        out[start:stop] = constant
        start = stop
    return out
