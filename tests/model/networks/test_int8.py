import pytest
import torch
from torch import nn

from model.errors import ModelError
from model.networks import int8
from model.networks.int8 import Int8Conv2d, Int8Up, Quantised, Scale, as_phases, beside, columns_apart, joined, phased
from model.networks.jansson import JanssonUNet
from model.networks.stereo import StereoUNet
from model.separation.arithmetic import separating_precision

CPU = torch.device("cpu")
needs_vnni = pytest.mark.skipif(not int8.supported(), reason="this processor has no VNNI")


def signal_to_noise(exact: torch.Tensor, close: torch.Tensor) -> float:
    return float(10 * torch.log10(exact.square().sum() / (exact - close).square().sum()))


def values(x: Quantised) -> torch.Tensor:
    return (x.levels.float() - x.scale.zero) * x.scale.step


def trained(**options) -> StereoUNet:
    """A small network whose batch norms have seen something and whose bottlenecks do something."""
    torch.manual_seed(0)
    network = StereoUNet(bins=257, rows=64, widths=(8, 16, 24), **options)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 2, 257, 64))
    return network.eval()


@needs_vnni
def test_quantising_keeps_nothing_for_gradients():
    network = trained()
    network.quantise()
    assert network._int8 is not None
    held = [value for module in network._int8.modules() for value in vars(module).values() if torch.is_tensor(value)]
    assert held
    assert not any(tensor.requires_grad and tensor.grad_fn is not None for tensor in held)


@torch.inference_mode()
def test_a_transposed_convolution_is_two_for_its_even_and_odd_rows():
    torch.manual_seed(0)
    transposed = nn.ConvTranspose2d(6, 3, 5, stride=2, padding=2, output_padding=1)
    x = torch.randn(2, 6, 7, 9)
    even, odd = as_phases(transposed.weight)
    assert not odd[:, :, 0].any()
    halves = [nn.functional.conv2d(x, half, transposed.bias.repeat(2), padding=1) for half in (even, odd)]
    nothing = Quantised(torch.empty(2, 0, 14, 18), Scale(1.0, 0))
    torch.testing.assert_close(beside(halves, nothing).levels, transposed(x))


@torch.inference_mode()
def test_a_convolution_in_phases_is_the_convolution():
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 3, 3, padding=1)
    x = torch.randn(2, 5, 14, 18)
    wide, bias = phased(conv.weight), conv.bias.repeat(4)
    torch.testing.assert_close(joined(nn.functional.conv2d(x, wide, bias, stride=2, padding=1)), conv(x))
    # The same from even rows and odd rows, whose even and odd columns are channels.
    even, odd = (torch.cat([x[:, :, parity::2, 0::2], x[:, :, parity::2, 1::2]], dim=1) for parity in (0, 1))
    of_even = nn.functional.conv2d(even, columns_apart(wide[:, :, 1::2]), bias, padding=1)[:, :, 1:]
    of_odd = nn.functional.conv2d(odd, columns_apart(wide[:, :, 0::2]), padding=1)[:, :, :-1]
    torch.testing.assert_close(joined(of_even + of_odd), conv(x))


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_levels_are_the_nearest_and_zero_has_one(shift):
    torch.manual_seed(0)
    x = torch.randn(1, 5, 16, 16) + shift
    quantised = Quantised.of(x)
    assert (values(quantised) - x).abs().max() <= 0.501 * quantised.scale.step
    assert 0 <= quantised.scale.zero <= 255


def test_silence_stays_silence():
    assert not values(Quantised.of(torch.zeros(1, 2, 8, 8))).any()


@needs_vnni
@pytest.mark.parametrize("louder", [0.1, 1.0, 5.0])
@torch.inference_mode()
def test_what_comes_up_joins_the_skip_on_its_scale_and_is_cut_off_at_its_end(louder):
    torch.manual_seed(0)
    skip = Quantised.of(torch.randn(1, 3, 16, 16), highest=4.0)
    conv = nn.ConvTranspose2d(6, 4, 5, stride=2, padding=2, output_padding=1)
    below = Quantised.of(torch.randn(1, 6, 8, 8) * louder)
    up = Int8Up(conv.weight, conv.bias, size=8)
    both = beside(up(below, skip.scale), skip)
    assert torch.equal(both.levels[:, 4:], skip.levels)
    highest = (255 - skip.scale.zero) * skip.scale.step
    exact = torch.relu(conv(values(below))).clamp(max=highest)
    torch.testing.assert_close(values(both)[:, :4], exact, rtol=0, atol=skip.scale.step + 0.02 * louder)


@needs_vnni
@pytest.mark.parametrize("stride", [1, 2])
@torch.inference_mode()
def test_a_convolution_of_integers_is_that_of_the_values_they_encode(stride):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 32, 5, stride=stride, padding=2)
    # Weights that are levels already, so that nothing is lost and only rounding of the sums is left.
    scale = conv.weight.abs().amax((1, 2, 3), keepdim=True) / 127
    conv.weight.copy_((conv.weight / scale).round() * scale)
    x = Quantised.of(torch.randn(1, 6, 24, 24))
    exact = conv(values(x))
    torch.testing.assert_close(Int8Conv2d(conv.weight, conv.bias, stride=stride, padding=2, size=24)(x), exact)


@needs_vnni
@pytest.mark.parametrize("options", [{}, {"estimated": 4, "exclusive": True}, {"exclusive": True, "unnamed": 3}])
@torch.inference_mode()
def test_masks_in_integers_are_near_those_in_float(options):
    network, other = trained(**options), trained(**options)
    magnitude = torch.rand(1, 2, 257, 64) ** 4
    exact = network(magnitude)
    other.quantise()
    assert signal_to_noise(exact - exact.mean(), other(magnitude) - exact.mean()) > 25


@needs_vnni
@torch.inference_mode()
def test_masks_in_integers_are_the_same_with_any_number_of_threads():
    network = trained()
    network.quantise()
    magnitude = torch.rand(1, 2, 257, 64)
    threads = torch.get_num_threads()
    try:
        given = []
        for count in (1, 2):
            torch.set_num_threads(count)
            given.append(network(magnitude))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*given)


@pytest.mark.parametrize("network", [JanssonUNet(), trained()], ids=["jansson", "stereo"])
def test_the_fastest_precision_is_one_that_network_and_processor_have(network, monkeypatch):
    monkeypatch.setattr(int8, "supported", lambda: True)
    able = isinstance(network, StereoUNet)
    assert (separating_precision("auto", CPU, network) == "int8") == able
    assert separating_precision("auto", torch.device("mps"), network) == "float32"
    assert separating_precision("float32", CPU, network) == "float32"
    monkeypatch.setattr(int8, "supported", lambda: False)
    assert separating_precision("auto", CPU, network) != "int8"
    with pytest.raises(ModelError, match="VNNI"):
        separating_precision("int8", CPU, network)
