import hashlib
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
from model.separation.fitting import LEAST_SONGS
from storage.audio.writer import write
from storage.errors import StoreError
from storage.sources.datasets import discover
from storage.store import Store, StoreFormat
from tasks.ingest import ingest_batch
from tasks.pages.training import _CURVES, curves, read_log
from tasks.training import train as training_run
from tasks.training.examples import example_source
from tasks.training.feed import Feed
from tasks.training.train import TrainRequest, train
from tests.model.separation.test_prediction import observed

SMALL = (("batch_size", 2), ("ema", 0.9), ("frames", 64), ("steps", 8), ("validate_every", 4), ("warmup", 0))


@pytest.fixture(scope="module")
def store(dsd100, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    opened = Store.create(path, StoreFormat())
    ingest_batch(str(path), discover(dsd100))
    opened.consolidate()
    return str(path)


def request(store, folder, settings=(), **fields):
    overrides = tuple(sorted({**dict(SMALL), **dict(settings)}.items()))
    where = {"store": store, "folder": str(folder), "device": "cpu", "threads": 1, "readers": 0}
    return TrainRequest(preset="jansson", overrides=overrides, **where, **fields)


def losses(folder):
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


@pytest.mark.proof
def test_two_runs_of_one_seed_have_the_same_weights(store, tmp_path):
    one, two = (Path(train(request(store, tmp_path / name)).weights).read_bytes() for name in ("a", "b"))
    first, second = (Weights.from_bytes(data, "x").tensors for data in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_existing_run_is_not_overwritten_by_accident(store, tmp_path):
    train(request(store, tmp_path / "run"))
    with pytest.raises(StoreError, match="--resume"):
        train(request(store, tmp_path / "run"))


@pytest.mark.proof
def test_killed_and_resumed_it_ends_with_the_weights_of_a_run_that_was_not(store, tmp_path):
    """kill -9 in mid-run, then the same again with resume."""
    code = (
        "import sys, tasks.training.train as t; t._CHECKPOINT_SECONDS = 0.0\n"
        "from tests.tasks.training.test_train import request\n"
        "t.train(request(sys.argv[1], sys.argv[2], resume=True))"
    )
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, store, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment, cwd=root)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    limit = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "best.safetensors").exists() or losses(tmp_path / "killed")[-1]["step"] < 8
    subprocess.run(command, env=environment, cwd=root, check=True, timeout=240)
    uninterrupted = train(request(store, tmp_path / "whole"))
    tensors = [
        Weights.from_bytes(Path(p).read_bytes(), "x").tensors
        for p in (uninterrupted.weights, tmp_path / "killed" / "best.safetensors")
    ]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.fixture
def never_better(monkeypatch):
    """Validation that finds the same score every time."""
    monkeypatch.setattr(training_run, "validation_scores", lambda separator, stems, rate: [(1.0, 1.0)])


def test_a_run_that_ended_for_patience_is_finished_and_resumed_does_nothing(store, tmp_path, never_better):
    training = request(store, tmp_path / "run", {"patience": 1, "validate_every": 1}, resume=True)
    first = train(training)
    assert (first.steps, first.stopped) == (2, "no improvement")
    files = contents(tmp_path / "run")
    assert train(training) == first
    assert contents(tmp_path / "run") == files
    more = request(store, tmp_path / "run", {"patience": 1, "validate_every": 1, "steps": 12}, resume=True)
    assert train(more) == first


def test_a_run_killed_before_its_calibration_is_calibrated_when_it_is_resumed(
    store, tmp_path, never_better, monkeypatch
):
    seen = [observed(song, doubt, doubt) for song, doubt in enumerate(np.linspace(-5, 12, 2 * LEAST_SONGS))]
    killed_by = iter([KeyboardInterrupt()])

    def observing(separator, songs, remixes):
        for kill in killed_by:
            raise kill
        return seen

    monkeypatch.setattr(training_run, "LEAST_SONGS", 1)
    monkeypatch.setattr(training_run, "observations", observing)
    training = request(store, tmp_path / "run", {"steps": 1, "validate_every": 1}, resume=True)
    with pytest.raises(KeyboardInterrupt):
        train(training)
    best = tmp_path / "run" / "best.safetensors"
    before = Weights.from_bytes(best.read_bytes(), "best")
    assert not before.calibrations
    report = train(training)
    after = Weights.from_bytes(best.read_bytes(), "best")
    assert after.calibrations["jansson"]["stems"]
    assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in after.tensors.items())
    assert report.model_id.endswith(hashlib.sha256(best.read_bytes()).hexdigest()[:8])
    files = contents(tmp_path / "run")
    assert train(training) == report
    assert contents(tmp_path / "run") == files


def test_a_run_without_songs_enough_for_a_calibration_is_not_read_again_for_one(
    store, tmp_path, never_better, monkeypatch
):
    training = request(store, tmp_path / "run", {"steps": 1, "validate_every": 1}, resume=True)
    report = train(training)
    monkeypatch.setattr(training_run, "validation_mixtures", lambda *_: pytest.fail("the songs are read again"))
    assert train(training) == report


def test_a_run_that_did_all_its_steps_is_lengthened_by_more_of_them(store, tmp_path, never_better):
    short = train(request(store, tmp_path / "run", {"steps": 2}))
    assert (short.steps, short.stopped) == (2, "all steps done")
    assert train(request(store, tmp_path / "run", {"steps": 2}, resume=True)) == short
    assert train(request(store, tmp_path / "run", {"steps": 3}, resume=True)).steps == 3
    with pytest.raises(StoreError, match=r"other settings \(training.steps\)"):
        train(request(store, tmp_path / "run", {"steps": 2}, resume=True))


def test_a_run_is_resumed_only_with_the_seed_start_settings_and_tracks_it_was_started_with(
    store, dsd100, tmp_path, never_better
):
    short = {"steps": 1, "validate_every": 1}
    begun = train(request(store, tmp_path / "run", short))
    for changed, sentence in (
        ({"seed": 1}, "another seed"),
        ({"start": begun.weights}, "another start"),
        ({"settings": {**short, "learning_rate": 0.5}}, "other settings .training.learning_rate"),
    ):
        with pytest.raises(StoreError, match=sentence):
            train(request(store, tmp_path / "run", **{"settings": short, "resume": True, **changed}))
    fewer = Store.create(tmp_path / "fewer.zarr", StoreFormat(n_fft=0, hop=0))
    ingest_batch(str(tmp_path / "fewer.zarr"), [track for track in discover(dsd100) if track.split == "train"][:2])
    fewer.consolidate()
    with pytest.raises(StoreError, match="other tracks"):
        train(request(str(tmp_path / "fewer.zarr"), tmp_path / "run", short, resume=True))


def test_a_loss_that_is_not_finite_ends_the_run_with_a_sentence_and_the_last_good_weights(
    store, tmp_path, never_better, monkeypatch
):
    from model.learning import trainer

    loss, calls = trainer.magnitude_l1, []

    def breaking(masks, spectra):
        calls.append(1)
        return loss(masks, spectra) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(trainer, "magnitude_l1", breaking)
    report = train(request(store, tmp_path / "run", {"validate_every": 2}))
    assert report.diverged
    assert "not finite at step 4" in report.stopped
    assert (report.steps, report.best_step) == (3, 2)
    weights = Weights.from_bytes(Path(report.weights).read_bytes(), "best")
    assert all(torch.isfinite(tensor).all() for tensor in weights.tensors.values())
    assert train(request(store, tmp_path / "run", {"validate_every": 2}, resume=True)) == report


def test_a_worker_that_takes_over_resumes_without_the_flag(store, tmp_path, never_better):
    """Dask sends a request to another worker when the first one dies."""
    training = request(store, tmp_path / "run", {"steps": 1}, attempt="this command")
    report = train(training)
    assert train(training) == report
    with pytest.raises(StoreError, match="--resume"):
        train(request(store, tmp_path / "run", {"steps": 1}, attempt="another command"))


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


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Five songs, each with its frequency for the voice and for the backing."""
    folder = tmp_path_factory.mktemp("tones")
    time_ = np.arange(44100 * 4) / 44100
    for song in range(5):
        for stem, hertz in (("vocals", 500 + 100 * song), ("accompaniment", 2500 + 100 * song)):
            write(
                folder / "songs" / f"song {song}" / f"{stem}.wav", 0.3 * np.sin(2 * np.pi * hertz * time_)[None], 44100
            )
    opened = Store.create(folder / "s.zarr", StoreFormat(n_fft=0, hop=0))
    ingest_batch(str(folder / "s.zarr"), discover(folder / "songs", kind="stems"))
    opened.consolidate()
    return str(folder / "s.zarr")


def songs_of(stems, preset, lowest):
    """The song, (examples, stems), that the loudest tone of each stem says: 100 Hz each above the stem's lowest."""
    hertz = np.fft.rfftfreq(stems.shape[-1], 1 / preset.sample_rate)
    peaks = hertz[np.abs(np.fft.rfft(stems[:, :, 0].numpy() * np.hanning(stems.shape[-1]))).argmax(-1)]
    return np.round((peaks - lowest) / 100)


@pytest.mark.parametrize(("same_track", "least", "most"), [(0.0, 0.05, 0.4), (1.0, 1.0, 1.0)])
def test_voice_and_backing_come_from_one_song_by_chance_or_as_often_as_set(tones, same_track, least, most):
    plain = {f"mixing.{name}": 0.0 for name in ("speed", "equalise", "without_vocals", "without_backing")}
    preset = load_preset("jansson", batch_size=60, frames=16, **{**plain, "mixing.same_track": same_track})
    stems = example_source(tones, Store.open(Path(tones)).tracks("train"), preset, 1).batch(0).stems
    songs = songs_of(stems, preset, [500, 2500])
    assert set(songs.ravel()) == set(range(5))
    assert least <= (songs[:, 0] == songs[:, 1]).mean() <= most


@pytest.mark.parametrize(("same_track", "least", "most"), [(0.0, 0.0, 0.2), (1.0, 1.0, 1.0)])
def test_the_parts_of_a_backing_come_from_one_song_by_chance_or_as_often_as_set(tmp_path, same_track, least, most):
    """Four voices without a backing, and five backings in parts without a voice, each song with its frequencies."""
    lowest = {"vocals": 500, "drums": 1500, "bass": 2500, "other": 3500}
    time_ = np.arange(44100 * 4) / 44100
    for song in range(9):
        for stem in ["vocals"] if song > 4 else ["drums", "bass", "other"]:
            tone = 0.3 * np.sin(2 * np.pi * (lowest[stem] + 100 * song) * time_)[None]
            write(tmp_path / "songs" / f"song {song}" / f"{stem}.wav", tone, 44100)
    store = Store.create(tmp_path / "s.zarr", StoreFormat(n_fft=0, hop=0))
    ingest_batch(str(tmp_path / "s.zarr"), discover(tmp_path / "songs", kind="stems"))
    store.consolidate()
    plain = {f"mixing.{name}": 0.0 for name in ("speed", "distort", "second_backing", "without_backing")}
    preset = load_preset("four-stem", batch_size=60, frames=16, **{**plain, "mixing.same_track": same_track})
    stems = example_source(str(tmp_path / "s.zarr"), store.tracks("train"), preset, 1).batch(0).stems[:, 1:]
    songs = songs_of(stems, preset, [1500, 2500, 3500])
    assert set(songs.ravel()) == set(range(5))
    assert least <= (songs == songs[:, :1]).all(1).mean() <= most


def test_examples_of_four_stems_have_sound_in_each(store):
    tracks = Store.open(Path(store)).tracks("train")
    batch = example_source(store, tracks, load_preset("four-stem", batch_size=4, frames=64), 1).batch(0)
    assert batch.stems.shape == (4, 4, 2, 63 * 1024 + 4096)
    assert (batch.stems.abs().amax((2, 3)) > 0).any(0).all()


def test_snapshots_of_the_average_are_kept_on_the_way(store, tmp_path, never_better):
    train(request(store, tmp_path / "run", {"snapshot_every": 3}))
    kept = sorted((tmp_path / "run" / "snapshots").iterdir())
    assert [path.name for path in kept] == ["00003.safetensors", "00006.safetensors"]
    third = Weights.from_bytes(kept[0].read_bytes(), "third").record
    assert third["best_step"] == 3
    assert third["seconds"] > 0


def test_worker_processes_make_the_batches_that_one_process_makes(store):
    tracks = Store.open(Path(store)).tracks("train")
    preset = load_preset("jansson", batch_size=4, frames=64)
    alone, together = (Feed(store, tracks, preset, 7, workers=workers) for workers in (0, 2))
    batches = [list(feed.batches(3, 6)) for feed in (alone, together)]
    assert len(batches[0]) == len(batches[1]) == 3
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.stems, other.stems)
        assert torch.equal(one.bandwidth, other.bandwidth)


def test_the_log_says_how_fast_examples_come_and_for_how_long_the_network_waits(
    store, tmp_path, never_better, monkeypatch
):
    monkeypatch.setattr(training_run, "_REPORT_EVERY", 2)
    train(request(store, tmp_path / "run", {"steps": 4, "schedule": "constant", "warmup": 0}))
    lines = [line for line in losses(tmp_path / "run") if "loss" in line]
    assert {2, 4} <= {line["step"] for line in lines}
    assert all(line["examples_per_second"] > 0 and 0 <= line["waiting"] <= 1 for line in lines)
    constant = load_preset("jansson").training.learning_rate
    assert all(line["learning_rate"] == constant for line in lines)
    assert all(line["gradient_norm"] > 0 for line in lines)
    titles = {chart.title for chart in curves(read_log(tmp_path / "run" / "log.jsonl"))}
    assert titles == {title for _, title, _ in _CURVES}  # the page has a chart of everything that a training logs
