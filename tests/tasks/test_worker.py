"""A worker process with several tracks at a time, as a GPU has it."""

import datetime
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from flows.settings import SeparateOptions
from model.checkpoint import build
from model.errors import DeviceLostError
from model.preset import load_preset
from model.separation.stream import Separator
from storage.audio.reader import read
from storage.audio.writer import write
from storage.errors import ModelLost
from storage.sources.catalog import CatalogTrack
from tasks import worker
from tasks.separate import separate_batch, separate_track
from tasks.separation import SeparateSettings
from tasks.settings import ModelRequest
from tests.signals import noise


@pytest.fixture
def as_worker(monkeypatch):
    monkeypatch.setattr(worker, "_is_worker", True)
    monkeypatch.setattr(worker, "_resident", {})


def _settings(out, **more):
    return SeparateSettings(
        out=str(out), model_id="tiny", stems=("vocals", "accompaniment"), device="cpu", precision="float32", **more
    )


def _separator(*_, **__):
    preset = load_preset(
        "stereo",
        **{"network_options.rows": 64, "network_options.widths": (8, 12, 16)},
        **{"inference.core_frames": 24, "inference.context_frames": 8},
    )
    torch.manual_seed(1)
    return Separator(preset, build(preset).eval(), model_id="other-1", precision="float32", batch=4)


def test_the_first_of_several_deadlines_ends_the_process(as_worker, monkeypatch):
    armed = []
    monkeypatch.setattr(worker.faulthandler, "dump_traceback_later", lambda after, **_: armed.append(after))
    monkeypatch.setattr(worker.faulthandler, "cancel_dump_traceback_later", lambda: armed.append(None))
    with ExitStack() as later:
        with ExitStack() as sooner:
            later.enter_context(worker.deadline(50.0))
            sooner.enter_context(worker.deadline(5.0))
            later.enter_context(worker.deadline(70.0))
        # The one of 5 s is over, the others are not.
        assert [after and round(after) for after in armed] == [50, 5, 5, 50]
    assert armed[-1] is None
    assert not worker._ends


def test_tracks_of_one_process_load_its_separator_once(as_worker, monkeypatch):
    loaded = []

    def load(name, **_):
        time.sleep(0.05)
        loaded.append(name)
        return object()

    monkeypatch.setattr("tasks.loading.load_separator", load)
    with ThreadPoolExecutor(4) as pool:
        separators = list(pool.map(worker.resident_separator, [ModelRequest()] * 4))
    assert len(loaded) == 1
    assert len(set(map(id, separators))) == 1
    worker.resident_separator(ModelRequest(model="hq"))
    worker.resident_separator(ModelRequest(model="hq"))
    assert loaded == ["stereo", "hq"]


def test_tracks_side_by_side_in_one_process_are_what_they_are_one_by_one(as_worker, monkeypatch, tmp_path):
    """Files of several rates, channels and lengths through shared batches, one of them damaged: rows and bytes."""
    monkeypatch.setattr("tasks.loading.load_separator", _separator)
    kinds = [(44100, 2, 2.5), (48000, 2, 1.9), (44100, 1, 1.3), (44100, 2, 0.2), (22050, 2, 2.0), (44100, 2, 3.1)]
    for number, (rate, channels, seconds) in enumerate(kinds):
        write(tmp_path / f"{number}.flac", noise(channels, int(rate * seconds), seed=number), rate, name="flac")
    damaged = (tmp_path / "5.flac").read_bytes()
    (tmp_path / "5.flac").write_bytes(damaged[: len(damaged) // 2])
    tracks = [CatalogTrack(f"{n}", f"{n}.flac", str(tmp_path / f"{n}.flac")) for n in range(len(kinds))]
    alone = [separate_track(_settings(tmp_path / "alone"), track) for track in tracks]
    beside = _settings(tmp_path / "beside")
    with ThreadPoolExecutor(len(tracks)) as pool:
        together = list(pool.map(lambda track: separate_batch(beside, [track]), tracks))
    when = datetime.datetime.now(datetime.UTC)

    def timeless(rows):
        return [replace(row, seconds=None, finished_at=when) for row in rows]

    for one, other in zip(alone, together, strict=True):
        assert timeless(one) == timeless(other)
    assert [rows[0].status for rows in together] == ["ok"] * 5 + ["failed"]
    for rows in together[:5]:
        for row in rows:
            expected, rate = read(tmp_path / "alone" / row.stem_path)
            signal, _ = read(tmp_path / "beside" / row.stem_path)
            np.testing.assert_array_equal(signal, expected)


def test_a_track_is_never_separated_by_another_model_than_its_run_began_with(as_worker, monkeypatch, tmp_path):
    """Weights that are overwritten or deleted, or another champion, while a worker starts anew: no song's fault."""
    write(tmp_path / "a.flac", noise(2, 4410), 44100, name="flac")
    track = CatalogTrack("a", "a.flac", str(tmp_path / "a.flac"))
    settings = _settings(tmp_path / "out", model=str(tmp_path / "x.safetensors"), run_id="separate-1")
    with pytest.raises(ModelLost, match="is not there"):
        separate_batch(settings, [track])
    (tmp_path / "x.safetensors").write_bytes(b"half a file")
    with pytest.raises(ModelLost, match="not a complete unbraid checkpoint"):
        separate_batch(settings, [track])
    monkeypatch.setattr("tasks.loading.load_separator", _separator)
    with pytest.raises(ModelLost, match="has become other-1, and the run began with tiny"):
        separate_batch(settings, [track])
    assert not (tmp_path / "out").exists()


def test_the_workers_model_is_named_by_its_id_where_it_is_registered(tmp_path, untrained):
    from flows.separate import separate as flow
    from tasks.loading import registry

    (tmp_path / "a.wav").touch()
    for name, lasting in (("stereo", registry().find("stereo").model_id), (str(untrained), str(untrained))):
        settings, _ = flow.check(SeparateOptions(source=str(tmp_path), out=str(tmp_path / "out"), model=name))
        assert settings.model == lasting


def test_a_worker_whose_gpu_has_failed_ends_so_that_another_takes_its_place(as_worker, monkeypatch, tmp_path):
    class Lost:
        stems, device, precision, calibration = ("vocals", "accompaniment"), torch.device("cuda"), "float32", None

        def stream(self, rate, channels):
            raise DeviceLostError("the GPU failed")

    class Ended(BaseException):
        pass

    def end(status):
        raise Ended

    monkeypatch.setattr("tasks.loading.load_separator", lambda *_, **__: Lost())
    write(tmp_path / "a.flac", noise(2, 44100), 44100, name="flac")
    track = CatalogTrack("a", "a.flac", str(tmp_path / "a.flac"))
    monkeypatch.setattr(worker.os, "_exit", end)
    with pytest.raises(Ended):
        separate_track(_settings(tmp_path / "out"), track)
    monkeypatch.setattr(worker, "_is_worker", False)
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(DeviceLostError):  # a user's own process is not ended
        separate_track(_settings(tmp_path / "out"), track)
