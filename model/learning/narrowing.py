"""A U-Net with fewer channels that computes what a wider one does.

Many channels of a trained network can be computed from the others. Which go is decided convolution by convolution, by
optimal brain surgeon over all weights of a channel (Hassibi and Stork, "Second order derivatives for network pruning:
optimal brain surgeon", 1993): the channel that is missed least once the weights of the others are fitted anew. Then,
from the input on, the weights of every narrow convolution are fitted to give, from the narrow network's activations,
what the wide one gives (He et al., "Channel pruning for accelerating very deep neural networks", 2017).
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from model.networks.int8 import as_phases
from model.networks.stereo import StereoUNet

# Of the mean of the squares of features: kept from where there are too few examples, and towards the wide weights.
_CHOOSING_RIDGE = 1e-3
_FITTING_RIDGE = 3e-3
_EXAMPLES = 6  # per feature, over all patches
_LEAST_EXAMPLES = 300  # per patch
# Convolutions of more features are not asked which of their inputs can go: it would take hours, and the decoder's
# convolution that sees the same channels has been asked.
_MOST_DOWN_FEATURES = 1600
_AT_ONCE = 8  # a share of the channels that are too many goes before the costs of the rest are computed again


@torch.no_grad()
def fit_narrower(wide: StereoUNet, narrow: StereoUNet, patches: Sequence[torch.Tensor]) -> None:
    """Give a network with fewer channels the weights with which it computes what a wider one does.

    Args:
        wide: The trained network, in evaluation mode.
        narrow: The other; its weights are written. It differs in its widths alone, none of which is larger.
        patches: What the wide network sees of music, magnitudes (1, seen channels, bins, frames).

    Raises:
        ValueError: The networks have another number of levels, or a level of `narrow` is the wider one.
    """
    before, after = _widths(wide), _widths(narrow)
    if len(before) != len(after) or any(few > many for few, many in zip(after, before, strict=True)):
        raise ValueError(f"levels of {after} channels are not a narrower form of {before}")
    wide.eval()
    narrow.eval()
    kept = _chosen(wide, narrow, patches)
    _copy(wide, narrow, kept)
    for name in _convolutions(wide):
        if name != "down.0":  # it sees what the wide one sees
            _fit(name, wide, narrow, kept, patches)


def _blocks(network: StereoUNet) -> dict[str, Any]:
    """The blocks of encoder and decoder by name, in the order of the data; each has a convolution and a batch norm."""
    down = {f"down.{level}": block for level, block in enumerate(network.down)}
    return down | {f"up.{step}": block for step, block in enumerate(network.up)}


def _widths(network: StereoUNet) -> list[int]:
    """Channels that each block gives."""
    return [block.conv.out_channels for block in _blocks(network).values()]


def _convolutions(network: StereoUNet) -> dict[str, Any]:
    """The convolutions by name, in the order of the data."""
    return {name: block.conv for name, block in _blocks(network).items()} | {"masks": network.masks}


def _sources(name: str, levels: int) -> list[str]:
    """The activations that a convolution sees, in the order of its channels: of blocks, or "seen"."""
    kind, _, number = name.partition(".")
    if kind == "masks":
        return [f"up.{levels - 1}", "seen"]
    if kind == "down":
        return [f"down.{int(number) - 1}"] if int(number) else ["seen"]
    step = int(number)
    return [f"up.{step - 1}", f"down.{levels - 1 - step}"] if step else [f"down.{levels - 1}"]


@dataclass
class _Sums:
    """The normal equations of a convolution as a least-squares problem: sums of products over examples, float64."""

    features: torch.Tensor  # (features, features), features being channels · taps
    both: torch.Tensor  # (features, targets)
    variance: float = 0.0  # of the targets, times the number of examples

    @classmethod
    def of(cls, examples: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> "_Sums":
        """The sums over batches of features (examples, features) and targets (examples, targets)."""
        sums, total, count = None, torch.zeros(()), 0
        for features, targets in examples:
            if sums is None:
                wanted = features.shape[1], targets.shape[1]
                products = [features.new_zeros(wanted[0], width, dtype=torch.float64) for width in wanted]
                sums = cls(products[0], products[1])
                total = targets.new_zeros(targets.shape[1], dtype=torch.float64)
            sums.features += features.t() @ features
            sums.both += features.t() @ targets
            sums.variance += float(targets.double().square().sum())
            total += targets.sum(0)
            count += len(targets)
        assert sums is not None
        sums.variance -= float(total.square().sum()) / count
        return sums

    def ridge(self, share: float) -> torch.Tensor:
        size = len(self.features)
        return torch.eye(size, dtype=torch.float64) * (self.features.diagonal().mean() * share)


class _Surgery:
    """A convolution whose input channels go one after the other, its other weights being fitted anew each time."""

    def __init__(self, sums: _Sums, taps: int) -> None:
        self._taps, self._variance = taps, sums.variance
        self._inverse = torch.linalg.inv(sums.features + sums.ridge(_CHOOSING_RIDGE))
        self._weights = self._inverse @ sums.both

    def costs(self) -> torch.Tensor:
        """Per channel, by what share of the outputs' variance the error would grow without it."""
        channels = len(self._inverse) // self._taps
        every = torch.arange(channels)
        own = self._inverse.view(channels, self._taps, channels, self._taps)[every, :, every]
        weights = self._weights.view(channels, self._taps, -1)
        return (weights * torch.linalg.solve(own, weights)).sum((1, 2)) / self._variance

    def remove(self, channel: int) -> None:
        group = slice(self._taps * channel, self._taps * (channel + 1))
        own = torch.linalg.inv(self._inverse[group, group])
        self._weights -= self._inverse[:, group] @ (own @ self._weights[group])
        self._inverse -= self._inverse[:, group] @ (own @ self._inverse[group])
        # From now on it costs nothing, and changes nothing.
        self._inverse[group] = self._inverse[:, group] = self._weights[group] = 0.0
        self._inverse[group, group] = torch.eye(self._taps, dtype=torch.float64)


def _chosen(wide: StereoUNet, narrow: StereoUNet, patches: Sequence[torch.Tensor]) -> dict[str, list[int]]:
    """Per block of the narrow network which of the wide one's channels it computes, ascending."""
    levels = len(wide.down)
    taken = {name: conv.out_channels for name, conv in _convolutions(narrow).items()}
    convolutions = _convolutions(wide)
    kept = {"seen": list(range(convolutions["down.0"].in_channels))}
    for name in [f"up.{step}" for step in range(levels)] + ["masks"]:
        sources = [source for source in _sources(name, levels) if source != "seen"]
        surgery = _surgery(name, wide, patches)
        # The encoder's next level sees the last source too.
        below = f"down.{levels - int(name[3:])}" if name.startswith("up.") and name != "up.0" else ""
        asked = below and convolutions[below].weight[0].numel() <= _MOST_DOWN_FEATURES
        other = _surgery(below, wide, patches) if asked else None
        counts = [convolutions[source].out_channels for source in sources]
        starts = [sum(counts[:index]) for index in range(len(counts))]
        left = {source: list(range(count)) for source, count in zip(sources, counts, strict=True)}
        while excess := sum(len(left[source]) - taken[source] for source in sources):
            costs = surgery.costs()
            if other is not None:
                costs[starts[-1] : starts[-1] + counts[-1]] += other.costs()
            going = max(1, excess // _AT_ONCE)
            for place in costs.argsort().tolist():
                index = max((i for i, start in enumerate(starts) if start <= place), default=0)
                source, channel = sources[index], place - starts[index]
                if not going or channel not in left[source] or len(left[source]) == taken[source]:
                    continue
                surgery.remove(place)
                if other is not None and index == len(sources) - 1:
                    other.remove(channel)
                left[source].remove(channel)
                going -= 1
        kept |= left
    return kept


def _surgery(name: str, wide: StereoUNet, patches: Sequence[torch.Tensor]) -> _Surgery:
    taps = 25 if name.startswith("down") else 9
    return _Surgery(_Sums.of(_examples(name, wide, wide, patches)), taps)


def _examples(
    name: str, wide: StereoUNet, network: StereoUNet, patches: Sequence[torch.Tensor], kept: list[int] | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What a convolution sees in `network` and what it gives in `wide`, at random places, patch by patch.

    Targets count as the batch norm scales them, so that no channel weighs more for its weights' size; `kept` are the
    channels that are targets.
    """
    generator = torch.Generator().manual_seed(0)
    scale = bias = None
    if name == "masks":
        bias = wide.masks.bias
    else:
        norm = _blocks(wide)[name].norm
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).abs()
    for patch in patches:
        inputs, outputs = _passing(name, wide, patch)
        if network is not wide:
            inputs, _ = _passing(name, network, patch)
        if bias is not None:
            outputs = outputs - bias[:, None, None]
        elif kept is None and scale is not None:
            outputs = outputs * scale[:, None, None]
        features, targets = _as_features(name, inputs), _as_targets(name, outputs[:, kept] if kept else outputs)
        wanted = max(_LEAST_EXAMPLES, _EXAMPLES * len(features) // len(patches))
        chosen = torch.randperm(features.shape[1], generator=generator)[:wanted]
        yield features[:, chosen].t(), targets[:, chosen].t()


class _Passed(Exception):
    """The convolution that was waited for has computed; what comes after it is not needed."""


def _passing(name: str, network: StereoUNet, patch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into a convolution of a network, and what comes out."""
    passed = []

    def take(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        passed.append((inputs[0], output))
        raise _Passed

    hook = _convolutions(network)[name].register_forward_hook(take)
    with contextlib.suppress(_Passed):
        network(patch)
    hook.remove()
    return passed[0]


def _as_features(name: str, inputs: torch.Tensor) -> torch.Tensor:
    """Per output of a convolution what it sees, (channels · taps, places); of one with stride ½, per four outputs."""
    size, stride = (5, 2) if name.startswith("down") else (3, 1)
    return functional.unfold(inputs, size, padding=size // 2, stride=stride)[0]


def _as_targets(name: str, outputs: torch.Tensor) -> torch.Tensor:
    """(channels, places), or (4 · channels, places): the outputs of the four phases of a convolution with stride ½."""
    return (functional.pixel_unshuffle(outputs, 2) if name.startswith("up") else outputs)[0].flatten(1)


def _copy(wide: StereoUNet, narrow: StereoUNet, kept: dict[str, list[int]]) -> None:
    """The wide network's weights between the channels that are kept, and all that belongs to no channel."""
    levels = len(wide.down)
    narrow.input_scale.copy_(wide.input_scale)
    narrow.input_shift.copy_(wide.input_shift)
    theirs, ours = _convolutions(wide), _convolutions(narrow)
    for name, conv in theirs.items():
        start, inputs = 0, []
        for source in _sources(name, levels):
            inputs += [start + channel for channel in kept[source]]
            start += len(kept["seen"]) if source == "seen" else theirs[source].out_channels
        outputs = kept.get(name, list(range(conv.out_channels)))
        crossed = (inputs, outputs) if name.startswith("up") else (outputs, inputs)
        ours[name].weight.copy_(conv.weight[crossed[0]][:, crossed[1]])
        if name == "masks":
            ours[name].bias.copy_(conv.bias)
            continue
        before, after = _blocks(wide)[name], _blocks(narrow)[name]
        for key in ("weight", "bias", "running_mean", "running_var"):
            getattr(after.norm, key).copy_(getattr(before.norm, key)[outputs])
        if name.startswith("down"):
            after.across.load_state_dict(before.across.state_dict())


def _fit(
    name: str, wide: StereoUNet, narrow: StereoUNet, kept: dict[str, list[int]], patches: Sequence[torch.Tensor]
) -> None:
    """Give a convolution of `narrow` the weights with which it comes closest to that of `wide`."""
    sums = _Sums.of(_examples(name, wide, narrow, patches, kept.get(name)))
    matrix = sums.features + sums.ridge(_FITTING_RIDGE)
    conv = _convolutions(narrow)[name]
    if not name.startswith("up"):
        start = conv.weight.flatten(1).t().double()
        fitted = start + torch.linalg.solve(matrix, sums.both - sums.features @ start)
        conv.weight.copy_(fitted.t().reshape_as(conv.weight))
        return
    phases = _as_four(conv.weight.double())  # (channels in · taps, channels out, phases)
    exists = _as_four(torch.ones_like(conv.weight))[:, 0] > 0
    both = sums.both.unflatten(1, (-1, 4))
    for phase in range(4):
        rows = exists[:, phase].nonzero()[:, 0]
        start = phases[rows, :, phase]
        rest = both[rows, :, phase] - sums.features[rows][:, rows] @ start
        phases[rows, :, phase] = start + torch.linalg.solve(matrix[rows][:, rows], rest)
    conv.weight.copy_(_from_four(phases, conv.weight.shape))


def _as_four(weight: torch.Tensor) -> torch.Tensor:
    """The weight of a transposed convolution as those of its phases, (channels in · 9, channels out, 4)."""
    before, after = weight.shape[:2]
    apart = as_phases(weight).unflatten(1, (2, after))  # rows' phase, columns' phase, out, in, 3, 3
    return apart.permute(3, 4, 5, 2, 0, 1).reshape(before * 9, after, 4)


def _from_four(phases: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """What `_as_four` was made of; the places that no tap has are ignored."""
    # Each tap has one place, so the taps' numbers, sent the same way, say where each went.
    taps = torch.arange(1, 26, dtype=torch.float64).view(1, 1, 5, 5)
    numbers = _as_four(taps)[:, 0].long()  # (9, 4)
    weight = phases.new_zeros(shape).flatten(2)
    apart = phases.unflatten(0, (shape[0], 9))  # in, 9, out, 4
    for place, phase in (numbers > 0).nonzero().tolist():
        weight[:, :, numbers[place, phase] - 1] = apart[:, place, :, phase]
    return weight.view(shape)
