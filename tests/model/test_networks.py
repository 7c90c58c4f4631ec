import pytest
import torch

from model.checkpoint import build
from model.networks import JanssonUNet, StereoUNet
from model.preset import load_preset, preset_names


def test_jansson_has_the_parameters_of_the_paper():
    assert sum(p.numel() for p in JanssonUNet().parameters()) == pytest.approx(9.82e6, rel=1e-3)


def test_jansson_is_the_published_stack():
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
    magnitude = torch.rand(2, preset.channels, preset.bins, 64) * 30
    mask = build(preset).eval()(magnitude)
    assert mask.shape == (2, len(preset.estimated), preset.channels, preset.bins, 64)
    assert mask.min() >= 0
    assert mask.max() <= 1


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
