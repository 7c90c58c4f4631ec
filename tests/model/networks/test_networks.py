import pytest
import torch

from model.checkpoint import build
from model.networks import BinClassifier, JanssonUNet, RecurrentRefiner, StereoUNet
from model.preset import load_preset, preset_names


def test_jansson_has_the_parameters_of_the_paper():
    assert sum(p.numel() for p in JanssonUNet().parameters()) == pytest.approx(9.82e6, rel=1e-3)


def test_jansson_has_the_published_layers():
    network = JanssonUNet()
    assert [block[0].out_channels for block in network.down] == [16, 32, 64, 128, 256, 512]
    assert all(block[0].kernel_size == (5, 5) and block[0].stride == (2, 2) for block in network.down)
    assert all(block[2].negative_slope == 0.2 for block in network.down)
    assert [block[0].out_channels for block in network.up] == [256, 128, 64, 32, 16, 1]
    dropouts = [[m.p for m in block if isinstance(m, torch.nn.Dropout)] for block in network.up]
    assert dropouts == [[0.5], [0.5], [0.5], [], [], []]


@pytest.mark.parametrize("name", preset_names())
def test_masks_have_the_input_shape_and_stay_between_nothing_and_all(name):
    preset = load_preset(name)
    magnitude = torch.rand(2, preset.channels + 2 * preset.mid_side, preset.bins, 64) * 30
    mask = build(preset).eval()(magnitude)
    assert mask.shape == (2, preset.masks, preset.channels, preset.bins, 64)
    assert mask.min() >= 0
    assert mask.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", ["four-stem", "crnn"])
def test_masks_of_all_stems_sum_to_one(name):
    preset = load_preset(name)
    masks = build(preset).eval()(torch.rand(1, preset.channels + 2 * preset.mid_side, preset.bins, 64))
    torch.testing.assert_close(masks.sum(1), torch.ones_like(masks[:, 0]), atol=1e-5, rtol=0)


def test_a_network_asked_for_the_vocals_alone_gives_the_mask_that_one_of_all_stems_gives_them():
    options = {"network_options.widths": [8, 8, 8]}
    every = build(load_preset("four-stem", **options)).eval()
    alone = build(load_preset("stereo", **options)).eval()
    alone.load_state_dict(every.state_dict())
    seen = torch.rand(2, 4, 2049, 16)
    assert torch.equal(alone(seen), every(seen)[:, :1])


def test_the_classifiers_mask_is_its_probability_or_the_decision_on_it():
    torch.manual_seed(0)
    soft = BinClassifier(bins=65, dense=16).eval()
    magnitude = torch.rand(1, 1, 65, 32)
    threshold = float(soft(magnitude).detach().median())
    binary = BinClassifier(bins=65, dense=16, mask="binary", threshold=threshold).eval()
    binary.load_state_dict(soft.state_dict())
    assert torch.equal(binary(magnitude), (soft(magnitude) > threshold).float())
    assert 0 < float(binary(magnitude).mean()) < 1


def test_the_classifier_sees_frames_of_zero_mean_and_unit_variance():
    network = BinClassifier(bins=65, dense=16)
    for seed in range(160):
        torch.manual_seed(seed)
        network(torch.rand(8, 1, 65, 64) * torch.linspace(0.1, 3, 65)[:, None])
    level = torch.rand(8, 1, 65, 64) * torch.linspace(0.1, 3, 65)[:, None]
    x = torch.log1p(level / level.mean(dim=(1, 2, 3), keepdim=True))[:, 0]
    standard = network.eval().standardise(x)
    assert float(standard.mean((0, 2)).abs().max()) < 0.2
    assert float((standard.std((0, 2)) - 1).abs().max()) < 0.2


@pytest.mark.parametrize(("changing", "watching"), [(slice(56, 64), slice(0, 20)), (slice(0, 8), slice(44, 64))])
def test_the_recurrence_sees_the_complete_segment_in_both_directions(changing, watching):
    """Frames beyond the convolutions' reach are put in another order: the mean stays, only the LSTMs can tell."""
    torch.manual_seed(0)
    network = RecurrentRefiner(bins=65, rows=32, hidden=16, width=4).eval()
    for name, bias in network.recurrence.named_parameters():
        if name.startswith("bias_ih"):
            bias.data[16:32] = 4.0  # forget gates open, as training leaves them: what is drawn at random forgets
    magnitude = torch.rand(1, 2, 65, 64) * torch.linspace(0.1, 3, 64)
    changed = magnitude.clone()
    changed[..., changing] = magnitude[..., changing].flip(-1)

    def difference():
        return float((network(magnitude) - network(changed))[..., watching].detach().abs().max())

    seen = difference()
    network.recurrence = _Blind(network.recurrence)
    assert difference() < 1e-6
    assert seen > 1e-5


class _Blind(torch.nn.Module):
    """A recurrence that gives nothing."""

    def __init__(self, recurrence):
        super().__init__()
        self.hidden = recurrence.hidden_size

    def forward(self, x):
        return x.new_zeros(*x.shape[:2], 2 * self.hidden), None


@pytest.mark.parametrize("network", [JanssonUNet(), StereoUNet()])
def test_a_louder_file_gets_the_same_mask(network):
    network = network.eval()
    channels = 1 if isinstance(network, JanssonUNet) else 2
    magnitude = torch.rand(1, channels, network.bins, 64)
    torch.testing.assert_close(network(magnitude), network(magnitude * 0.01), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("network", [JanssonUNet(), StereoUNet()])
def test_silence_makes_no_nan(network):
    channels = 1 if isinstance(network, JanssonUNet) else 2
    assert torch.isfinite(network.eval()(torch.zeros(1, channels, network.bins, 64))).all()
