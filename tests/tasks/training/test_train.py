import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Weights
from model.preset import load_preset
from storage.errors import StoreError
from storage.sources.datasets import discover
from storage.store import Store, StoreFormat
from tasks.ingest import ingest_batch
from tasks.training.examples import example_source
from tasks.training.train import TrainRequest, split_for_validation, train

SMALL = (("batch_size", 2), ("ema", 0.9), ("frames", 64), ("steps", 8), ("validate_every", 4), ("warmup", 0))


@pytest.fixture(scope="module")
def store(dsd100, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    opened = Store.create(path, StoreFormat())
    ingest_batch(str(path), discover(dsd100))
    opened.consolidate()
    return str(path)


def request(store, folder, **fields):
    return TrainRequest(
        store=store, folder=str(folder), preset="jansson", overrides=SMALL, device="cpu", threads=1, **fields
    )


def losses(folder):
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_weights_a_log_and_the_record_of_what_shaped_it(store, tmp_path):
    report = train(request(store, tmp_path / "run"))
    weights = Weights.from_bytes(Path(report.weights).read_bytes(), "best")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert report.steps == 8
    assert weights.record["best_step"] == report.best_step
    assert {"seed", "settings", "datasets", "training_digest", "versions", "device", "precision"} <= record.keys()
    assert record["datasets"]["".join(record["datasets"])]["tracks"] == 2
    assert not set(record["validation_tracks"]) & {t.track_id for t in Store.open(Path(store)).tracks("test")}
    assert [line["step"] for line in losses(tmp_path / "run") if "csdr" in line] == [4, 8]


def test_two_runs_of_one_seed_have_the_same_weights(store, tmp_path):
    one, two = (Path(train(request(store, tmp_path / name)).weights).read_bytes() for name in ("a", "b"))
    first, second = (Weights.from_bytes(data, "x").tensors for data in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_is_there_is_not_overwritten_by_accident(store, tmp_path):
    train(request(store, tmp_path / "run"))
    with pytest.raises(StoreError, match="--resume"):
        train(request(store, tmp_path / "run"))


def test_killed_and_resumed_it_ends_with_the_weights_of_a_run_that_was_not(store, tmp_path):
    """kill -9 in mid-run, then the same again with resume."""
    code = (
        "import sys, tasks.training.train as t; t._CHECKPOINT_SECONDS = 0.0\n"
        "from tests.tasks.test_train import request\n"
        "t.train(request(sys.argv[1], sys.argv[2], resume=True))"
    )
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, store, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment, cwd=root)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    limit = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "best.safetensors").exists() or losses(tmp_path / "killed")[-1]["step"] < 8
    subprocess.run(command, env=environment, cwd=root, check=True, timeout=240)
    whole = train(request(store, tmp_path / "whole"))
    tensors = [
        Weights.from_bytes(Path(p).read_bytes(), "x").tensors
        for p in (whole.weights, tmp_path / "killed" / "best.safetensors")
    ]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize("source", ["waveform", "spectrogram"])
def test_examples_depend_on_seed_and_number_alone(store, source):
    tracks = Store.open(Path(store)).tracks("train")
    preset = load_preset("stereo", batch_size=2, frames=64, source=source)
    straight = example_source(store, tracks, preset, 7)
    batches = [straight.batch(step) for step in range(4)]
    again = example_source(store, tracks, preset, 7).batch(3)
    assert torch.equal(batches[3].stems, again.stems)
    assert not torch.equal(batches[2].stems, again.stems)
    assert not torch.equal(example_source(store, tracks, preset, 8).batch(3).stems, again.stems)


def test_spectra_from_the_store_are_examples_of_the_right_shape_and_level(store):
    tracks = Store.open(Path(store)).tracks("train")
    preset = load_preset("stereo", batch_size=4, frames=64, source="spectrogram")
    batch = example_source(store, tracks, preset, 1).batch(0)
    assert batch.stems.shape == (4, 2, 2, 64, 2049)
    assert batch.stems.is_complex()
    assert (batch.stems[:, 1].abs().amax((1, 2, 3)) > 0).any()


def test_vocals_and_backing_of_an_example_come_from_different_songs_mostly(store):
    tracks = Store.open(Path(store)).tracks("train")
    batch = example_source(store, tracks, load_preset("stereo", batch_size=4, frames=64), 1).batch(0)
    assert batch.stems.shape == (4, 2, 2, 63 * 1024 + 4096)
    assert np.isfinite(batch.stems.numpy()).all()


def test_examples_of_four_stems_are_four_parts_at_levels_of_their_own(store):
    tracks = Store.open(Path(store)).tracks("train")
    batch = example_source(store, tracks, load_preset("four-stem", batch_size=4, frames=64), 1).batch(0)
    assert batch.stems.shape == (4, 4, 2, 63 * 1024 + 4096)
    assert (batch.stems.abs().amax((2, 3)) > 0).any(0).all()


def test_an_artist_is_wholly_in_training_or_in_validation(store):
    from dataclasses import replace

    track = Store.open(Path(store)).tracks("train")[0]
    many = [replace(track, artist=f"singer {i % 40}", track_id=f"x/{i}") for i in range(400)]
    training, validation = split_for_validation(many)
    assert not {t.artist for t in training} & {t.artist for t in validation}
    assert 0 < len(validation) < len(many) / 5
