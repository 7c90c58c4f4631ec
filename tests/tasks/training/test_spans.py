import numpy as np
import pytest

from storage.audio.writer import write
from storage.sources.datasets import discover
from storage.store import Store, StoreFormat
from tasks.ingest import ingest_batch
from tasks.training.spans import SpanPool
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
def test_spans_in_which_the_voice_rests_are_mostly_passed_over(mostly_silent, spectra):
    length = 4 * 16000 // (256 if spectra else 1)
    tracks = Store.open(mostly_silent).tracks()
    pool = SpanPool(
        mostly_silent, tracks, 3, stems=("vocals", "accompaniment"), size=40, length=length, spectra=spectra
    )
    spans = pool.block(0)[0]
    sounding = [np.abs(span.signal).max() > (0.1 if spectra else 0.01) for span in spans]
    assert np.mean(sounding) > 0.5  # a draw without a look at the level finds it in 3 of 10
