from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage.audio.writer import write
from storage.sources.datasets import discover
from storage.store import Store, StoreFormat
from tasks.ingest import ingest_batch
from tasks.training.spans import SpanPool, _Weighted
from tests.signals import noise


@pytest.fixture(scope="module")
def mostly_silent(tmp_path_factory):
    """A song of 60 s whose voice is a noise of -30 dB for its last 15 s and hiss of -74 dB before."""
    folder = tmp_path_factory.mktemp("silent")
    voice = noise(1, 60 * 16000) * 2e-3
    voice[:, 45 * 16000 :] *= 150
    write(folder / "songs" / "song" / "vocals.flac", voice, 16000)
    write(folder / "songs" / "song" / "accompaniment.flac", noise(1, 60 * 16000, 1) * 0.1, 16000)
    opened = Store.create(folder / "s.zarr", StoreFormat(sample_rate=16000, n_fft=1024, hop=256))
    ingest_batch(str(folder / "s.zarr"), discover(folder / "songs", kind="stems"))
    opened.consolidate()
    return str(folder / "s.zarr")


@pytest.mark.parametrize("spectra", [False, True])
def test_spans_in_which_the_voice_pauses_are_mostly_skipped(mostly_silent, spectra):
    length = 4 * 16000 // (256 if spectra else 1)
    tracks = Store.open(mostly_silent).tracks()
    pool = SpanPool(
        mostly_silent, tracks, 3, stems=("vocals", "accompaniment"), size=40, length=length, spectra=spectra
    )
    spans = pool.block(0, 0)[0]
    sounding = [np.abs(span.signal).max() > (0.1 if spectra else 0.01) for span in spans]
    assert np.mean(sounding) > 0.5  # a draw without a look at the level finds it in 3 of 10


def test_a_favoured_dataset_is_drawn_more_often(waveform_store):
    tracks = Store.open(Path(waveform_store)).tracks("train")
    renamed = [replace(tracks[0], dataset="rare"), replace(tracks[1], dataset="often")]
    rate = Store.open(Path(waveform_store)).format.sample_rate
    drawn = _Weighted(renamed, rate, {"rare": 1.0, "often": 3.0})
    random = np.random.default_rng(0)
    share = np.mean([drawn.draw(random).dataset == "often" for _ in range(2000)])
    weights = [factor * np.sqrt(track.samples) for factor, track in zip((1, 3), renamed, strict=True)]
    assert share == pytest.approx(weights[1] / sum(weights), abs=0.04)


def test_the_parts_of_a_backing_are_rearranged(waveform_store):
    tracks = Store.open(Path(waveform_store)).tracks("train")
    stems = ("vocals", "accompaniment")
    plain, other = (
        SpanPool(waveform_store, tracks, 0, stems=stems, size=2, length=20000, part_db=part_db).block(0, 0)[1][0].signal
        for part_db in ((0.0, 0.0), (-9.0, 3.0))
    )
    assert plain.shape == other.shape
    assert not np.allclose(plain, other)
