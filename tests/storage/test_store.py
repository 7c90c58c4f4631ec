import shutil

import numpy as np
import pytest
import torch

from model.spectra.frontend import FrontEnd, spectrogram
from storage import store
from storage.errors import StoreError
from storage.sources.datasets import discover
from storage.store import Store, StoreFormat
from tasks.ingest import disk_need, ingest_batch
from tests.signals import noise


@pytest.fixture(scope="module")
def filled(dsd100, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    opened = Store.create(path, StoreFormat())
    tracks = discover(dsd100)
    opened.prepare({f"{t.split}/{t.dataset}" for t in tracks})
    records = ingest_batch(str(path), tracks)
    assert [r.status for r in records] == ["ok"] * 4
    opened.consolidate()
    return path


def test_waveforms_come_back_to_the_sample(filled, dsd100):
    from storage.audio.reader import read

    opened = Store.open(filled)
    sources = {t.track_id: t for t in discover(dsd100)}
    for track in opened.tracks():
        for stem in track.stems:
            original, _ = read(sources[track.track_id].stems[stem].path)
            np.testing.assert_allclose(opened.waveform(track, stem), original, atol=1e-4)
            np.testing.assert_allclose(opened.waveform(track, stem, 1000, 2000), original[:, 1000:2000], atol=1e-4)


def test_spectra_are_those_of_the_waveform_beside_them(filled):
    opened = Store.open(filled)
    track = opened.tracks("train")[0]
    waveform = torch.from_numpy(opened.waveform(track, "drums"))
    expected = spectrogram(waveform, FrontEnd(44100, 4096, 1024)).numpy()
    stored = opened.spectrogram(track, "drums")
    assert stored.shape == expected.shape
    assert np.abs(stored - expected).max() < 1e-3 * np.abs(expected).max()
    np.testing.assert_array_equal(opened.spectrogram(track, "drums", 10, 50), stored[:, 10:50])


def test_stored_spectra_add_up_to_the_mixtures(filled):
    """The STFT is linear: random track mixing needs no inverse transform."""
    opened = Store.open(filled)
    track = opened.tracks("train")[0]
    mixture = sum(opened.waveform(track, stem) for stem in track.stems)
    expected = spectrogram(torch.from_numpy(mixture), FrontEnd(44100, 4096, 1024)).numpy()
    total = sum(opened.spectrogram(track, stem) for stem in track.stems)
    assert np.abs(total - expected).max() < 1e-3 * np.abs(expected).max()


def test_splits_are_kept(filled):
    opened = Store.open(filled)
    assert [(t.split, t.title) for t in opened.tracks("test")] == [("test", "Song 3")]
    assert len(opened.tracks("train")) == 3


def test_all_metadata_is_in_the_root(filled, tmp_path):
    """Tracks are listed and read with every other metadata file gone."""
    copy = tmp_path / "s.zarr"
    shutil.copytree(filled, copy)
    for file in copy.rglob("zarr.json"):
        if file.parent != copy:
            file.unlink()
    opened, original = Store.open(copy), Store.open(filled)
    assert opened.tracks() == original.tracks()
    track = opened.tracks("train")[0]
    np.testing.assert_array_equal(opened.waveform(track, "vocals"), original.waveform(track, "vocals"))


def test_a_track_in_the_store_is_not_written_again(filled, dsd100):
    records = ingest_batch(str(filled), discover(dsd100))
    assert [record.status for record in records] == ["done"] * 4


def test_a_half_written_track_is_written_anew(tmp_path, dsd100):
    path = tmp_path / "s.zarr"
    opened = Store.create(path, StoreFormat(n_fft=0, hop=0))
    track = discover(dsd100)[0]
    group = opened.begin_track(store.group_path(track.split, track.track_id))
    store.write_waveform(
        group, "vocals", np.ones((10, 2), np.int16), rate=44100, scale=1.0
    )  # killed here: no commit mark
    assert Store.create(path, StoreFormat(n_fft=0, hop=0)).tracks() == []
    assert ingest_batch(str(path), [track])[0].status == "ok"
    assert opened.consolidate() == 1


def test_an_unfinished_track_is_removed_at_the_end(tmp_path):
    opened = Store.create(tmp_path / "s.zarr", StoreFormat())
    opened.begin_track("train/x/half")
    assert opened.consolidate() == 0
    assert not (tmp_path / "s.zarr/train/x/half").exists()


def test_loud_stems_keep_their_shape(tmp_path):
    from storage.audio.writer import write
    from storage.sources.datasets import DatasetTrack, Source

    loud = noise(2, 5000) * 30
    write(tmp_path / "loud.wav", loud, 44100, depth="float")
    opened = Store.create(tmp_path / "s.zarr", StoreFormat())
    track = DatasetTrack("x", "train", "loud", "x", "loud", {"vocals": Source(str(tmp_path / "loud.wav"))})
    assert ingest_batch(str(tmp_path / "s.zarr"), [track])[0].status == "ok"
    opened.consolidate()
    opened = Store.open(tmp_path / "s.zarr")
    np.testing.assert_allclose(opened.waveform(opened.tracks()[0], "vocals"), loud, atol=np.abs(loud).max() / 32000)


def test_a_track_that_cannot_be_read_is_a_failed_record(tmp_path):
    from storage.sources.datasets import DatasetTrack, Source

    Store.create(tmp_path / "s.zarr", StoreFormat())
    (tmp_path / "bad.wav").write_text("no")
    track = DatasetTrack("x", "train", "bad", "x", "bad", {"vocals": Source(str(tmp_path / "bad.wav"))})
    (record,) = ingest_batch(str(tmp_path / "s.zarr"), [track])
    assert record.status == "failed"
    assert "bad.wav" in record.error


def test_what_is_not_a_store_is_a_sentence(tmp_path):
    with pytest.raises(StoreError, match="unbraid ingest"):
        Store.open(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is not a store"):
        Store.create(tmp_path, StoreFormat())
    Store.create(tmp_path / "s.zarr", StoreFormat())
    with pytest.raises(StoreError, match="was made with"):
        Store.create(tmp_path / "s.zarr", StoreFormat(sample_rate=48000))


def test_xarray_opens_a_store_at_the_level_of_the_source_and_knows_its_axes(filled):
    xarray = pytest.importorskip("xarray")
    opened = Store.open(filled)
    track = opened.tracks("train")[0]
    with xarray.open_datatree(filled, engine="zarr") as tree:
        stem = tree[f"{track.group}/vocals"]
        assert stem["waveform"].dims == ("time", "channel")
        assert stem["spectrogram"].dims == ("frame", "channel", "frequency", "part")
        np.testing.assert_allclose(stem["waveform"].values.T, opened.waveform(track, "vocals"), atol=1e-6)
        assert stem["waveform"].attrs["axis_time"]["step"] == 1 / 44100
        assert stem["spectrogram"].attrs["axis_frequency"]["step"] == 44100 / 4096


def test_the_middle_of_a_frame_is_where_its_attributes_say():
    click = torch.zeros(1, 44100)
    click[0, 20000] = 1.0
    loudest = int(spectrogram(click, FrontEnd(44100, 4096, 1024)).abs().square().sum(-1).argmax())
    step = 1024 / 44100
    middle = loudest * step + step - 4096 / 2 / 44100
    assert abs(middle - 20000 / 44100) <= step / 2


@pytest.mark.parametrize("form", [StoreFormat(), StoreFormat(n_fft=0, hop=0)])
def test_the_disk_that_was_announced_is_enough_and_not_four_times_too_much(dsd100, tmp_path, form):
    opened = Store.create(tmp_path / "s.zarr", form)
    tracks = discover(dsd100)
    need = disk_need(tracks, form)
    opened.prepare({f"{t.split}/{t.dataset}" for t in tracks})
    ingest_batch(str(tmp_path / "s.zarr"), tracks)
    taken = sum(file.stat().st_size for file in (tmp_path / "s.zarr").rglob("*") if file.is_file())
    assert need.least <= taken <= need.bytes + 100_000
    assert need.hours == pytest.approx(4 * 8 / 3600)
