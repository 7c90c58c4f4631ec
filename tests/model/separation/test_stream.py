from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint import build
from model.preset import load_preset
from model.separation.stream import Separator
from tests.signals import noise


@pytest.fixture(scope="module")
def jansson():
    torch.manual_seed(1)
    preset = load_preset("jansson")
    return Separator(preset, build(preset))


class Passing(torch.nn.Module):
    """A network whose mask is one everywhere: the vocals must be the mixture, to the sample."""

    def forward(self, magnitude):
        return torch.ones_like(magnitude)[:, None]


def blocks(stream, audio, sizes):
    pieces, start = [], 0
    while start < audio.shape[1]:
        size = next(sizes)
        pieces += stream.push(audio[:, start : start + size])
        start += size
    pieces += stream.finish()
    return np.concatenate([piece.stems["vocals"] for piece in pieces], axis=1)


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (44100, 1), (48000, 2), (8000, 1), (96000, 3)])
def test_shape_is_kept_and_stems_add_up_exactly(separator, jansson, rate, channels):
    audio = noise(channels, int(rate * 2.3))
    for model in (separator, jansson):
        stems = model.separate(audio, rate)
        assert set(stems) == {"vocals", "accompaniment"}
        assert all(stem.shape == audio.shape and stem.dtype == np.float32 for stem in stems.values())
        np.testing.assert_array_equal(stems["vocals"] + stems["accompaniment"], audio)


def test_a_file_in_blocks_is_the_file_in_one_piece(separator):
    """Across a group's border: more than 1792 frames of 1024."""
    audio = noise(2, 44100 * 46)
    at_once = separator.separate(audio, 44100)["vocals"]
    sizes = np.random.default_rng(3).integers(1, 200_000, size=100_000)
    np.testing.assert_array_equal(blocks(separator.stream(44100, 2), audio, iter(sizes.tolist())), at_once)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 192000])
@pytest.mark.parametrize("name", ["stereo", "jansson", "hq"])
def test_a_mask_of_one_gives_the_mixture_back_at_every_rate(name, rate):
    model = Separator(load_preset(name), Passing())
    audio = noise(2, int(rate * (60 if rate < 50000 else 12)))
    np.testing.assert_allclose(model.separate(audio, rate)["vocals"], audio, atol=2e-6)


def test_several_views_give_the_same_samples_in_blocks_and_at_once(separator):
    """hq's three views move over the file at different paces; blocks and the complete file agree all the same."""
    preset = load_preset("hq")
    torch.manual_seed(2)
    model = Separator(preset, build(preset))
    audio = noise(2, 44100 * 44)
    at_once = model.separate(audio, 44100)
    np.testing.assert_array_equal(at_once["vocals"] + at_once["accompaniment"], audio)
    sizes = np.random.default_rng(3).integers(1, 400_000, size=10_000)
    np.testing.assert_array_equal(blocks(model.stream(44100, 2), audio, iter(sizes.tolist())), at_once["vocals"])


@pytest.mark.parametrize("name", ["four-stem", "crnn"])
@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (22050, 1), (48000, 3)])
def test_four_stems_add_up_to_the_mixture(name, rate, channels):
    torch.manual_seed(3)
    preset = load_preset(name)
    audio = noise(channels, rate * 2)
    stems = Separator(preset, build(preset)).separate(audio, rate)
    assert list(stems) == ["vocals", "drums", "bass", "other"]
    np.testing.assert_allclose(np.sum(list(stems.values()), axis=0, dtype=np.float64), audio, atol=1e-6)


def test_a_network_of_mid_and_side_hears_a_mono_file_as_its_stereo_double(separator):
    audio = noise(1, 44100 * 2)
    mono = separator.separate(audio, 44100)["vocals"]
    stereo = separator.separate(np.repeat(audio, 2, axis=0), 44100)["vocals"]
    np.testing.assert_allclose(mono[0], stereo.mean(axis=0), atol=2e-3)


@settings(deadline=None, max_examples=12)
@given(samples=st.integers(0, 6000))
def test_short_files_come_back_at_full_length(separator, samples):
    audio = noise(1, samples)
    stems = separator.separate(audio, 44100)
    assert stems["vocals"].shape == (1, samples)
    np.testing.assert_array_equal(stems["vocals"] + stems["accompaniment"], audio)


def test_the_same_input_gives_the_same_bytes(separator):
    audio = noise(2, 44100 * 3)
    first, second = (separator.separate(audio, 44100)["vocals"] for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", ["stereo", "jansson"])
def test_threads_and_batches_change_no_byte(name):
    """A song alone has all cores, in a catalog one; a GPU takes four segments at a time. 22 s are three segments."""
    torch.manual_seed(4)
    preset = load_preset(name)
    weights = build(preset).state_dict()
    audio = noise(2, 44100 * 22)

    def vocals(threads, batch):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            network = build(preset)
            network.load_state_dict(weights)
            model = Separator(preset, network)
            model.batch = batch
            return model.separate(audio, 44100)["vocals"]
        finally:
            torch.set_num_threads(before)

    alone = vocals(1, 1)
    np.testing.assert_array_equal(vocals(2, 1), alone)
    np.testing.assert_array_equal(vocals(1, 4), alone)
    np.testing.assert_array_equal(vocals(2, 3), alone)


def test_a_segment_has_one_thread_however_many_torch_has():
    """With two, sums are cut up otherwise, which the bytes of a made song show only now and then."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        model = Separator(load_preset("stereo"), Passing())

        def threads():
            torch.ones(1 << 20).sum()  # where a thread takes the process's number over
            return torch.get_num_threads()

        assert [model._threads.submit(threads).result() for _ in range(6)] == [1] * 6
    finally:
        torch.set_num_threads(before)


def test_a_separator_leaves_other_threads_their_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        model = Separator(load_preset("stereo"), Passing())
        model.separate(noise(2, 44100), 44100)
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_a_one_dimensional_mixture_gives_one_dimensional_stems(separator):
    assert separator.separate(noise(1, 5000)[0], 44100)["vocals"].shape == (5000,)


def test_memory_of_a_stream_does_not_grow_with_the_file(separator):
    """What is held between pushes never exceeds a group of segments, its context and one push."""
    stream = separator.stream(44100, 2)
    inference, push = separator.preset.inference, 44100 * 5
    held = []
    for index in range(40):
        list(stream.push(noise(2, push, seed=index)))
        held.append(stream._views[0]._buffer.shape[1])
    group = (inference.core_frames * separator.batch + 2 * inference.context_frames) * 1024 + 4096
    assert max(held) <= group + push


def test_a_short_file_is_not_padded_to_a_full_segment():
    """A sample of a second costs the network a second and its context, and comes out at full length."""
    preset = load_preset("stereo")
    model = Separator(preset, build(preset))
    seen = []
    model._masker._network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].shape[-1]))
    audio = noise(2, 44100)
    stems = model.separate(audio, 44100)
    assert seen == [128]  # 46 frames, 32 of context at either end, in multiples of 64
    assert np.array_equal(sum(stems.values()), audio)
    seen.clear()
    model.separate(noise(2, 44100 * 22), 44100)
    assert seen == [512, 512, 128]


def test_no_click_where_segments_meet():
    """A steady tone through a mask that differs from segment to segment's middle only by context."""
    preset = load_preset("stereo")
    torch.manual_seed(5)
    model = Separator(preset, build(preset))
    rate = 44100
    time = np.arange(rate * 50) / rate
    audio = np.repeat((0.3 * np.sin(2 * np.pi * 440 * time))[None], 2, 0).astype(np.float32)
    vocals = model.separate(audio, rate)["vocals"][0]
    # A click is wide-band: a jump in the second difference where segments meet, against elsewhere.
    bend = np.abs(np.diff(vocals, n=2))
    hop, lead = 1024, 3 * 1024
    seams = [k * preset.inference.core_frames * hop - lead for k in range(1, 5)]
    usual = np.quantile(bend[rate:-rate], 0.999)
    for seam in seams:
        assert bend[seam - 2048 : seam + 2048].max() < 3 * usual
