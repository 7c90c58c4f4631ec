import numpy as np
import pytest
import torch

from model.checkpoint import Weights, pack, unpack
from model.learning import losses
from model.learning import trainer as training
from model.learning.losses import Spectra, magnitude_l1, mask_loss
from model.learning.trainer import Batch, Trainer
from model.preset import load_preset, preset_names
from model.spectra.frontend import analysis
from tests.signals import noise


def small(name, **training):
    return load_preset(name, batch_size=2, frames=64, warmup=0, **training)


def batch(preset, seed=0):
    samples = (preset.training.frames - 1) * preset.hop + preset.n_fft
    parts = [
        torch.from_numpy(np.stack([noise(preset.channels, samples, seed * 10 + 2 * i + j) for i in range(2)]))
        for j in range(len(preset.stems))
    ]
    return Batch(torch.stack(parts, 1), bandwidth=torch.tensor([22050.0, 8000.0]))


def spectra(seed=0):
    torch.manual_seed(seed)
    parts = torch.randn(2, 2, 1, 8, 16, dtype=torch.complex64)
    return parts, Spectra.of(parts.transpose(0, 1), masks=1)


def test_the_loss_is_least_at_the_best_real_mask():
    """|m·X − V| is least at Re(V/X), clipped; the mask that SDR wants."""
    (vocals, rest), target = spectra()
    ratio = (vocals / (vocals + rest)).transpose(-1, -2)
    best = ratio.real.clamp(0, 1)
    band = torch.ones(2, 1, 16, 1)
    loss = lambda mask: float(mask_loss(mask[:, None], target, band, compressed=0.0))  # noqa: E731
    assert loss(best) < min(
        loss((best + 0.1).clamp(0, 1)), loss((best - 0.1).clamp(0, 1)), loss(ratio.abs().clamp(0, 1))
    )


def test_the_loss_is_the_complex_distance():
    (vocals, rest), target = spectra()
    mask = torch.rand(2, 1, 16, 8)
    mixture = (vocals + rest).transpose(-1, -2)
    scale = mixture.abs().mean(dim=(1, 2, 3), keepdim=True)
    plain = ((mask * mixture - vocals.transpose(-1, -2)).abs() / scale).mean()
    ours = mask_loss(mask[:, None], target, torch.ones(2, 1, 16, 1), compressed=0.0)
    assert float(ours) == pytest.approx(float(plain), rel=1e-4)


@pytest.mark.parametrize(("squared", "best"), [(False, 0.0), (True, 0.3)])
def test_in_doubt_the_absolute_loss_takes_the_likelier_side_and_the_squared_one_the_chance(squared, best):
    """The same mixture ten times, three times all of it vocals and seven times none."""
    torch.manual_seed(0)
    mixture = torch.randn(1, 1, 8, 16, dtype=torch.complex64).expand(10, 1, 8, 16)
    vocal = (torch.arange(10) < 3)[:, None, None, None]
    target = Spectra.of(torch.stack([mixture * vocal, mixture * ~vocal], 1), masks=1)
    band = torch.ones(10, 1, 16, 1)
    tried = torch.linspace(0, 1, 21)
    losses = [
        float(mask_loss(torch.full((10, 1, 1, 16, 8), float(m)), target, band, compressed=0.0, squared=squared))
        for m in tried
    ]
    assert float(tried[int(np.argmin(losses))]) == pytest.approx(best, abs=0.01)


def test_bins_above_an_examples_band_do_not_count():
    _, target = spectra()
    band = torch.ones(2, 1, 16, 1)
    band[:, :, 8:] = 0
    mask = torch.rand(2, 1, 16, 8)
    changed = mask.clone()
    changed[:, :, 8:] = 0
    assert float(mask_loss(mask[:, None], target, band)) == float(mask_loss(changed[:, None], target, band))


def plain_mask_loss(masks, parts, band, squared):
    """The distance as its docstring says it, from complex spectra, for autograd to differentiate."""
    parts = parts.transpose(-1, -2)
    mixture = parts.sum(1)
    scale = 1 / mixture.abs().mean((1, 2, 3), keepdim=True)
    estimated, stems = masks.shape[1], parts.shape[1]
    missed = ((masks * mixture[:, None] - parts[:, :estimated]).abs() * scale[:, None]).square() + 1e-8
    complete = masks if estimated == stems else torch.cat([masks, (1 - masks.sum(1, keepdim=True)).clamp(min=0)], 1)
    roots = (complete + 1e-8).sqrt() * (mixture.abs() * scale).sqrt()[:, None] - (parts.abs() * scale[:, None]).sqrt()
    if squared:
        missed = missed / (mixture.abs() * scale).square().mean((1, 2, 3), keepdim=True)[:, None]
    else:
        missed, roots = missed.sqrt(), roots.abs().sqrt()
    each = missed.sum(1) / estimated + roots.square().sum(1) * 0.5 / stems
    return (each * band).sum() / (band.mean() * mixture.numel())


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("estimated", "stems"), [(1, 2), (2, 2), (3, 4), (4, 4)])
def test_the_loss_and_its_gradient_are_those_of_the_formula(estimated, stems, squared):
    torch.manual_seed(estimated)
    bins = 2 * losses._BINS + 3
    parts = torch.randn(2, stems, 2, losses._FRAMES + 3, bins, dtype=torch.complex128)
    band = torch.ones(2, 1, bins, 1, dtype=torch.float64)
    band[1, :, bins // 2 :] = 0
    masks = torch.rand(2, estimated, 2, bins, losses._FRAMES + 3, dtype=torch.float64)
    ours, theirs = masks.clone().requires_grad_(), masks.clone().requires_grad_()
    loss = 3 * mask_loss(ours, Spectra.of(parts, masks=estimated), band, squared=squared)
    plain = 3 * plain_mask_loss(theirs, parts, band, squared)
    torch.testing.assert_close(loss, plain, rtol=1e-9, atol=0)
    loss.backward()
    plain.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-12)


def test_gradients_stay_finite_at_closed_and_open_masks_and_in_silence():
    silent = Spectra.of(torch.zeros(2, 2, 1, 8, 16, dtype=torch.complex64), masks=1)
    for target in (silent, spectra()[1]):
        mask = torch.cat([torch.zeros(1, 1, 16, 8), torch.ones(1, 1, 16, 8)]).requires_grad_()
        mask_loss(mask[:, None], target, torch.ones(2, 1, 16, 1)).backward()
        assert torch.isfinite(mask.grad).all()
        magnitude_l1(mask[:, None], target).backward()


@pytest.mark.parametrize("name", preset_names())
def test_steps_on_one_batch_lower_its_loss(name):
    preset = small(name, learning_rate=1e-3)
    trainer = Trainer(preset, precision="float32")
    losses = [trainer.train(batch(preset)) for _ in range(6)]
    assert losses[-1] < losses[0]


def test_spectra_and_waveforms_are_the_same_training_data():
    preset = small("stereo")
    waves = batch(preset)
    frames = analysis(waves.stems, preset.n_fft, preset.hop)
    first = Trainer(preset, precision="float32").train(waves)
    second = Trainer(preset, precision="float32").train(Batch(frames, bandwidth=waves.bandwidth))
    assert first == pytest.approx(second, rel=1e-6)


def test_two_trainings_of_one_seed_have_the_same_weights():
    preset = small("stereo")
    trainers = [Trainer(preset, seed=4) for _ in range(2)]
    for trainer in trainers:
        for step in range(2):
            trainer.train(batch(preset, step))
    assert all(torch.equal(a, b) for a, b in zip(*(t.average.values() for t in trainers), strict=True))


@pytest.mark.parametrize("name", ["jansson", "stereo"])
def test_a_trainer_restored_from_a_file_goes_on_as_if_it_had_never_stopped(name):
    """A file keeps no memory format, and the fused optimiser asks for none."""
    preset = small(name)
    straight = Trainer(preset, seed=2)
    straight.train(batch(preset, 0))
    tensors, values = straight.state()
    saved = pack(tensors, values)
    after = [straight.train(batch(preset, step)) for step in (1, 2)]
    resumed = Trainer(preset, seed=9)
    resumed.restore(*unpack(saved, "checkpoint"))
    assert [resumed.train(batch(preset, step)) for step in (1, 2)] == after
    assert all(torch.equal(straight.average[name], resumed.average[name]) for name in straight.average)


def test_four_stems_begin_with_the_masks_of_the_two_that_they_start_from():
    small = {"network_options.widths": [8, 8, 8]}
    two = load_preset("stereo", **small, **{"network_options.exclusive": False, "network_options.unnamed": 0})
    four = load_preset("four-stem", **small)
    voice = Trainer(two, seed=1)
    torch.nn.init.normal_(voice.network.masks.bias)
    trainer = Trainer(four, seed=2)
    every = voice.network.state_dict()
    assert trainer.start_from(Weights(two, every, {})) == len(every)
    seen = torch.rand(2, 4, 2049, 16)
    with torch.no_grad():
        masks = trainer.network.eval()(seen)
        expected = voice.network.eval()(seen)
    torch.testing.assert_close(masks[:, :1], expected)
    torch.testing.assert_close(masks[:, 1:], (1 - expected).expand(-1, 3, -1, -1, -1) / 3)


def test_the_learning_rate_warms_up_and_comes_down():
    trainer = Trainer(load_preset("stereo", steps=100, warmup=10))
    rates = [trainer.learning_rate(step) for step in range(100)]
    assert rates[0] < rates[9] == pytest.approx(1e-3)
    assert rates[-1] < 0.02e-3 * 2
    assert Trainer(load_preset("stereo", schedule="constant")).learning_rate(5000) == 1e-3


def _plain(made):
    """A trainer's network and optimiser as PyTorch has them by default."""
    made.network = made.network.to(memory_format=torch.contiguous_format)
    made.optimiser = torch.optim.AdamW(
        made.network.parameters(),
        lr=made.settings.learning_rate,
        weight_decay=made.settings.weight_decay,
        foreach=False,
    )
    return made


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({}, 1e-4), ({"compiler": "aot_eager"}, 1e-4), ({"precision": "bfloat16"}, 0.05)],
    ids=["channels last, fused", "compiled", "bfloat16"],
)
def test_what_makes_steps_faster_changes_what_is_learned_by_rounding_alone(options, tolerance):
    preset = small("stereo", **{"network_options.rows": 32, "network_options.widths": (8, 12)})
    examples = [batch(preset, seed) for seed in range(4)]
    plain = _plain(Trainer(preset, precision="float32"))
    faster = Trainer(preset, **{"precision": "float32", **options})
    expected, losses_of_steps = ([each.train(example) for example in examples] for each in (plain, faster))
    assert losses_of_steps == pytest.approx(expected, rel=tolerance)
    assert expected[-1] != expected[0]


def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(caplog):
    def backend(graph, inputs):
        raise RuntimeError("no compiler here")

    preset = small("stereo", **{"network_options.rows": 32, "network_options.widths": (8, 12)})
    with caplog.at_level("WARNING", "unbraid.train"):
        failing = Trainer(preset, precision="float32", compiler=backend)
        loss = failing.train(batch(preset))
    assert loss == Trainer(preset, precision="float32").train(batch(preset))
    assert "cannot be compiled" in caplog.text
    assert failing._compiled is None


@pytest.mark.parametrize(
    ("triton", "steps", "compiled"), [(True, 5000, True), (True, 400, False), (False, 5000, False)]
)
def test_networks_are_compiled_where_triton_is_and_the_training_is_long(monkeypatch, triton, steps, compiled):
    monkeypatch.setattr(training, "_has_triton", lambda device: triton)
    monkeypatch.setattr(torch, "compile", lambda network, backend: (network, backend))
    preset = small("stereo", steps=steps, **{"network_options.rows": 32, "network_options.widths": (8, 12)})
    made = Trainer(preset)
    assert (made._compiled is not None) == compiled
    assert made._compiled is None or made._compiled == (made.network, "inductor")


@pytest.mark.parametrize("name", ["stereo", "four-stem", "jansson"])
def test_a_gpus_whole_batch_has_the_loss_of_a_cpus_examples_one_by_one(name, monkeypatch):
    preset = small(name)
    signals = batch(preset).stems
    parts = analysis(signals, preset.n_fft, preset.hop)[..., : preset.bins]
    band = (torch.arange(preset.bins) < preset.bins // 2).float()[None, None, :, None].repeat(2, 1, 1, 1)
    band[1] = 1
    masks = torch.rand(2, preset.masks, preset.channels, preset.bins, parts.shape[-2])

    def spectra_and_losses():
        target = Spectra.of(parts, masks=preset.masks, mid_side=preset.mid_side)
        return target, [float(mask_loss(masks, target, band, squared=squared)) for squared in (False, True)]

    one_by_one, expected = spectra_and_losses()
    monkeypatch.setattr(losses, "_parts", lambda batch: [slice(None)])
    monkeypatch.setattr(losses, "_pieces", lambda length, size, batch: [slice(None)])
    at_once, values = spectra_and_losses()
    for field in ("seen", "mixture", "stems", "along", "across"):
        torch.testing.assert_close(getattr(at_once, field), getattr(one_by_one, field), rtol=1e-6, atol=1e-7)
    assert values == pytest.approx(expected, rel=1e-5)
