"""Segments of several files in shared batches: what a GPU does, here on a CPU."""

import contextlib
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.checkpoint import build
from model.errors import DeviceLostError, ModelError
from model.preset import load_preset
from model.separation import shared_batch
from model.separation.shared_batch import Shape, Together
from model.separation.stream import Separator
from tests.signals import noise

_BATCH = 4
# Segments of half a second and small networks: many batches in little time.
_SMALL = {"inference.core_frames": 24, "inference.context_frames": 8}
_NETWORKS = {
    "stereo": {"network_options.rows": 64, "network_options.widths": (8, 12, 16)},
    "hq": {"network_options.rows": 64, "network_options.widths": (8, 12, 16)},
    "four-stem": {"network_options.rows": 64, "network_options.widths": (8, 12, 16)},
    "crnn": {"network_options.rows": 32, "network_options.hidden": 16, "network_options.width": 4},
    "jansson": {"network_options.width": 4, "network_options.levels": 3},
}
# Files that differ in everything: (rate, channels, seconds). The first has the most segments, 8 of them.
_FILES = [
    (44100, 2, 4.3), (44100, 2, 2.0), (48000, 2, 2.1), (44100, 1, 1.2), (44100, 2, 0.4), (22050, 1, 3.0),
    (96000, 3, 0.9),
]  # fmt: skip


def _separator(name="stereo", batch=None, network=None):
    preset = load_preset(name, **_SMALL, **_NETWORKS[name])
    torch.manual_seed(7)
    return Separator(preset, network or build(preset).eval(), precision="float32", batch=batch)


def _audio(index):
    rate, channels, seconds = _FILES[index]
    return noise(channels, int(rate * seconds), seed=index), rate


def _in_blocks(separator, audio, rate, size=30_000):
    """Through a stream as a worker feeds it, its stems whole."""
    stream = separator.stream(rate, audio.shape[0])
    pieces = []
    for start in range(0, audio.shape[1], size):
        pieces += stream.push(audio[:, start : start + size])
    pieces += stream.finish()
    return {stem: np.concatenate([piece.stems[stem] for piece in pieces], axis=1) for stem in separator.stems}, stream


@pytest.mark.parametrize("name", ["stereo", "four-stem", "crnn", "jansson", "hq"])
def test_a_file_beside_others_is_the_file_alone_to_the_bit(name):
    shared = _separator(name, _BATCH)
    alone = [_in_blocks(shared, *_audio(index)) for index in range(len(_FILES))]
    with ThreadPoolExecutor(len(_FILES)) as pool:
        together = list(pool.map(lambda index: _in_blocks(shared, *_audio(index)), range(len(_FILES))))
    for (stems, stream), (stems_alone, stream_alone), (rate, channels, seconds) in zip(
        together, alone, _FILES, strict=True
    ):
        for stem, signal in stems.items():
            assert signal.shape == (channels, int(rate * seconds))
            np.testing.assert_array_equal(signal, stems_alone[stem])
        np.testing.assert_array_equal(stream.evidence.sums, stream_alone.evidence.sums)


@pytest.mark.parametrize("name", ["stereo", "four-stem"])
def test_shared_batches_differ_from_one_segment_at_a_time_by_the_last_step_of_24_bits_at_most(name):
    """Kernels for several segments may add up in another order; the last stem gets a step from each of the others."""
    one, several = _separator(name), _separator(name, _BATCH)
    for index in (0, 2, 3, 6):
        audio, rate = _audio(index)
        (stems, stream), (expected, expected_stream) = (_in_blocks(each, audio, rate) for each in (several, one))
        steps = {stem: np.abs(stems[stem] - expected[stem]).max() * 2**23 for stem in expected}
        last = several.stems[-1]
        assert all(count <= 1 for stem, count in steps.items() if stem != last)
        assert steps[last] <= len(steps) - 1
        np.testing.assert_allclose(stream.evidence.sums, expected_stream.evidence.sums, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("place", range(_BATCH))
def test_a_segment_is_the_same_in_every_place_of_a_batch(place):
    separator = _separator(batch=_BATCH)
    together = Together(separator.preset, separator._masker, torch.device("cpu"), _BATCH)
    shape = Shape(2, 4096, 1024, 40)
    mine = torch.from_numpy(noise(2, shape.samples, seed=1))
    alone = torch.zeros(_BATCH, 2, shape.samples)
    alone[0] = mine
    among = torch.from_numpy(np.stack([noise(2, shape.samples, seed=2 + row) for row in range(_BATCH)]))
    among[place] = mine
    expected, sums = together.estimates(alone, shape, [24])
    signals, all_sums = together.estimates(among, shape, [24] * _BATCH)
    assert torch.equal(signals[place], expected[0])
    assert torch.equal(all_sums[place], sums[0])


def test_full_segments_share_a_batch_and_a_files_shorter_last_one_is_alone():
    sizes = []
    separator = _separator(batch=_BATCH)
    separator._masker._network.register_forward_pre_hook(lambda network, inputs: sizes.append(tuple(inputs[0].shape)))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda index: _in_blocks(separator, noise(2, 44100 * 3, seed=index), 44100), range(3)))
    full = [shape for shape in sizes if shape[-1] == 40]
    assert {shape[0] for shape in full} == {_BATCH}
    assert len(full) < 3 * 5  # five of each file; alone each would be a batch
    assert [shape[0] for shape in sizes if shape[-1] < 40] == [1, 1, 1]


def test_files_of_more_channels_or_a_higher_rate_go_fewer_at_a_time():
    separator = _separator(batch=8)
    together = Together(separator.preset, separator._masker, torch.device("cpu"), 8)
    assert together.size(Shape(2, 4096, 1024, 40)) == 8
    assert together.size(Shape(1, 4096, 1024, 40)) == 8
    assert together.size(Shape(8, 4096, 1024, 40)) == 1
    assert together.size(Shape(2, 8960, 2240, 40)) == 3
    assert together.size(Shape(2, 4096, 1024, 32)) == 1


class _Failing(torch.nn.Module):
    """Passes everything on, but raises for a batch in which a segment is loud."""

    def __init__(self, error=None):
        super().__init__()
        self.error, self.calls = error, 0

    def forward(self, magnitude):
        self.calls += 1
        if self.error is not None and magnitude.max() > 1e3:
            raise self.error
        return torch.ones_like(magnitude[:, :2])[:, None]


def test_a_decoder_that_fails_and_a_stream_that_is_left_harm_no_other_file():
    separator = _separator(batch=_BATCH)
    audio, rate = _audio(0)
    expected = _in_blocks(separator, audio, rate)[0]["vocals"]

    def damaged(_):
        stream = separator.stream(rate, 2)
        list(stream.push(audio[:, :70_000]))
        raise ValueError("damaged")

    with ThreadPoolExecutor(4) as pool:
        failing = [pool.submit(damaged, index) for index in range(2)]
        good = [pool.submit(_in_blocks, separator, audio, rate) for _ in range(2)]
    assert all(isinstance(future.exception(), ValueError) for future in failing)
    for future in good:
        np.testing.assert_array_equal(future.result()[0]["vocals"], expected)


def test_samples_that_are_no_numbers_stay_in_their_file():
    separator = _separator(batch=_BATCH)
    audio, rate = _audio(0)
    expected = _in_blocks(separator, audio, rate)[0]["vocals"]
    with ThreadPoolExecutor(2) as pool:
        broken = pool.submit(_in_blocks, separator, np.full_like(audio, np.nan), rate)
        good = pool.submit(_in_blocks, separator, audio, rate)
    with pytest.raises(ModelError, match="samples that are no numbers"):
        broken.result()
    np.testing.assert_array_equal(good.result()[0]["vocals"], expected)


@pytest.mark.parametrize(
    ("error", "raised", "sentence", "calls"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried"), ModelError, "too little memory.*--workers", 2),
        (torch.cuda.AcceleratorError("CUDA error: illegal access"), DeviceLostError, "the GPU failed.*illegal", 1),
        (ZeroDivisionError("what"), ZeroDivisionError, "what", 1),
    ],
)
def test_a_batch_that_cannot_be_computed_ends_its_files_and_the_next_one_is_computed(error, raised, sentence, calls):
    network = _Failing(error)
    separator = _separator(batch=2, network=network)
    with pytest.raises(raised, match=sentence):
        separator.separate(1e6 * noise(2, 20_000), 44100)
    assert network.calls == calls  # memory may be there the second time
    audio = noise(2, 20_000)
    np.testing.assert_allclose(separator.separate(audio, 44100)["vocals"], audio, atol=2e-6)


def test_what_waits_is_bounded_by_the_files_and_not_by_their_length():
    """A stream is at most a batch ahead of what it has handed out, however slow the device is."""
    network = _Failing()
    network.register_forward_pre_hook(lambda module, inputs: time.sleep(0.01))
    separator = _separator(batch=2, network=network)
    waiting = separator._shared._waiting
    seen = []

    def watched(shape, segment, put=waiting.put):
        seen.append(1 + sum(map(len, waiting._entries.values())))
        return put(shape, segment)

    waiting.put = watched
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda index: _in_blocks(separator, noise(2, 44100 * 10), 44100), range(3)))
    assert len(seen) > 3 * 15
    assert max(seen) <= 3 * (separator.side_by_side + 2)  # a file's end begins two segments at once


def test_the_threads_end_with_the_separator():
    before = set(threading.enumerate())  # of which those of earlier tests may be ending
    separator = _separator(batch=2)
    separator.separate(noise(2, 20_000), 44100)
    serving = [each for each in threading.enumerate() if each not in before and each.name.startswith("shared-batch")]
    assert len(serving) == 2
    del separator
    gc.collect()
    for thread in serving:
        thread.join(10)
    assert not any(thread.is_alive() for thread in serving)


def test_integers_of_8_bits_have_one_scale_per_batch_and_share_none():
    preset = load_preset("stereo")
    from model.networks import int8

    if not int8.supported():
        pytest.skip("this processor has no VNNI")
    with pytest.raises(ModelError, match="int8 has one scale per batch"):
        Separator(preset, build(preset), precision="int8", batch=2)


def test_on_a_gpu_copies_and_arithmetic_are_queued_in_order_on_streams_of_their_own(monkeypatch):
    """torch.cuda replaced by a record of what it is told: no GPU is needed, and no kernel is looked at."""
    told = []

    class Stream:
        count = 0

        def __init__(self, device):
            Stream.count += 1
            self.name = ("inwards", "arithmetic", "outwards")[Stream.count - 1]

        def wait_stream(self, other):
            told.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def stream(entered):
        told.append(f"on {entered.name}")
        yield

    class Event:
        def __init__(self, blocking):
            assert blocking  # the thread that waits must leave its core to a decoder

        def record(self, on):
            told.append(f"event on {on.name}")

        def synchronize(self):
            told.append("waited")

    fake = SimpleNamespace(Stream=Stream, stream=stream, Event=Event)
    monkeypatch.setattr(shared_batch.torch, "cuda", fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, on: told.append(f"kept for {on.name}"))
    empty = torch.empty
    monkeypatch.setattr(shared_batch.torch, "empty", lambda *a, pin_memory, **k: empty(*a, **k))

    def compute(samples):
        told.append("computed")
        assert not torch.backends.cudnn.benchmark
        assert not torch.backends.cudnn.allow_tf32
        return (samples * 2,)

    results = shared_batch._Cuda(torch.device("cpu")).run(torch.ones(3), compute)
    assert told == [
        "on inwards", "arithmetic waits for inwards", "kept for arithmetic", "on arithmetic", "computed",
        "outwards waits for arithmetic", "on outwards", "kept for outwards", "event on outwards",
    ]  # fmt: skip
    assert torch.equal(results()[0], torch.full((3,), 2.0))
    assert told[-1] == "waited"
