"""Narrower networks: one whose channels repeat each other loses the repetitions and nothing else."""

import copy
from typing import Any

import pytest
import torch

from model.learning import narrowing
from model.learning.distillation import Distiller
from model.learning.narrowing import fit_narrower
from model.networks.stereo import StereoUNet

SIZES: dict[str, Any] = {"bins": 65, "rows": 32, "channels": 2, "mid_side": True}
FEW, MANY = (4, 6, 8), (7, 10, 12)


def patches(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 4, 65, 32, generator=generator).square() for _ in range(count)]


def network(widths: tuple[int, ...], *, exclusive: bool = False) -> StereoUNet:
    """A network with weights, statistics and frequency bottlenecks that do something."""
    torch.manual_seed(3)
    made = StereoUNet(**SIZES, widths=widths, estimated=3 if exclusive else 1, exclusive=exclusive)
    for name, value in made.named_parameters():
        if "expand" in name:
            torch.nn.init.normal_(value, std=0.1)
    made.train()
    with torch.no_grad():
        for _ in range(30):
            made(torch.cat(patches(4)))
    return made.eval()


@torch.no_grad()
def with_repeated_channels(few: Any, widths: tuple[int, ...]) -> StereoUNet:
    """A wider network that computes the same: its further channels are copies, and who sees them halves its weights."""
    many: Any = StereoUNet(**SIZES, widths=widths, estimated=few.estimated, exclusive=few.exclusive).eval()
    many.input_scale.copy_(few.input_scale)
    many.input_shift.copy_(few.input_shift)
    down = [torch.arange(after.conv.out_channels) % before.conv.out_channels
            for before, after in zip(few.down, many.down, strict=True)]  # fmt: skip
    up = [torch.arange(after.conv.out_channels) % before.conv.out_channels
          for before, after in zip(few.up, many.up, strict=True)]  # fmt: skip
    seen = torch.arange(4)

    def shared(weight: torch.Tensor, sources: list[torch.Tensor], axis: int) -> torch.Tensor:
        parts, start = [], 0
        for source in sources:
            count = int(source.max()) + 1
            times = torch.bincount(source)[source].float()
            part = weight.narrow(axis, start, count).index_select(axis, source)
            parts.append(part / times.view([-1 if at == axis else 1 for at in range(4)]))
            start += count
        return torch.cat(parts, dim=axis)

    def widen(before, after, outputs: torch.Tensor) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            getattr(after.norm, key).copy_(getattr(before.norm, key)[outputs])

    levels = len(widths)
    for level, (before, after) in enumerate(zip(few.down, many.down, strict=True)):
        inputs = down[level - 1] if level else seen
        after.conv.weight.copy_(shared(before.conv.weight, [inputs], 1)[down[level]])
        widen(before, after, down[level])
        after.across.load_state_dict(before.across.state_dict())
    for step, (before, after) in enumerate(zip(few.up, many.up, strict=True)):
        inputs = [up[step - 1], down[levels - 1 - step]] if step else [down[-1]]
        after.conv.weight.copy_(shared(before.conv.weight, inputs, 0)[:, up[step]])
        widen(before, after, up[step])
    many.masks.weight.copy_(shared(few.masks.weight, [up[-1], seen], 1))
    many.masks.bias.copy_(few.masks.bias)
    return many


@torch.no_grad()
def disagreement(one: StereoUNet, other: StereoUNet) -> float:
    """RMS of the difference of masks over the RMS of their deviation from their mean, on patches of their own."""
    x = torch.cat(patches(6, seed=9))
    masks, others = one(x), other(x)
    return float((masks - others).square().mean().sqrt() / masks.std())


@pytest.mark.parametrize("exclusive", [False, True])
def test_channels_that_repeat_others_go_without_a_trace(exclusive):
    few = network(FEW, exclusive=exclusive)
    many = with_repeated_channels(few, MANY)
    assert disagreement(many, few) < 1e-4  # the test's own network is what it says
    narrow = StereoUNet(**SIZES, widths=FEW, estimated=few.estimated, exclusive=exclusive)
    fit_narrower(many, narrow, patches(24))
    assert disagreement(many, narrow) < 0.03


def test_what_is_left_is_fitted_to_stand_in_for_what_goes(monkeypatch):
    many = with_repeated_channels(network(FEW), MANY)
    fitted, cut = (StereoUNet(**SIZES, widths=FEW) for _ in range(2))
    fit_narrower(many, fitted, patches(24))
    monkeypatch.setattr(narrowing, "_fit", lambda *arguments: None)
    fit_narrower(many, cut, patches(24))  # the same channels, their weights as they were
    assert disagreement(many, fitted) < 0.3 * disagreement(many, cut)


def test_a_network_of_the_same_widths_stays_what_it_is():
    many = network(FEW)
    same = StereoUNet(**SIZES, widths=FEW)
    fit_narrower(many, same, patches(8))
    assert disagreement(many, same) < 1e-3


@pytest.mark.parametrize("widths", [(8, 6, 8), (4, 6), (4, 6, 8, 8)])
def test_a_network_that_is_not_narrower_is_refused(widths):
    with pytest.raises(ValueError, match="not a narrower form"):
        fit_narrower(network(FEW), StereoUNet(**SIZES, widths=widths), patches(2))


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_narrow_network_learns_the_masks_of_a_wide_one(exclusive):
    wide, narrow = network(MANY, exclusive=exclusive), network(FEW, exclusive=exclusive)
    reference, start = copy.deepcopy(wide), disagreement(wide, narrow)
    distiller = Distiller(wide, narrow, learning_rate=3e-3, steps=100, warmup=5)
    agreed = [distiller.learn(torch.cat(patches(4, seed=100 + step))) for step in range(100)]
    narrow.load_state_dict(distiller.average)
    assert disagreement(reference, narrow) < 0.6 * start
    assert agreed[-1] > agreed[0] + 3  # and it says so


def test_a_distillation_that_was_interrupted_goes_on_as_if_it_had_not_been():
    def begun() -> Distiller:
        torch.manual_seed(1)
        return Distiller(network(MANY), StereoUNet(**SIZES, widths=FEW), learning_rate=1e-3, steps=6)

    def learn(distiller: Distiller, steps: range) -> None:
        for step in steps:
            distiller.learn(torch.cat(patches(2, seed=step)))

    whole, first, second = begun(), begun(), begun()
    learn(whole, range(6))
    learn(first, range(3))
    second.restore(copy.deepcopy(first.state()))
    learn(second, range(3, 6))
    assert second.step == 6
    for name, value in whole.average.items():
        torch.testing.assert_close(second.average[name], value, rtol=1e-4, atol=1e-6)
