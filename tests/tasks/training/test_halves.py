"""bench/halves.py: the two stores that trainings without one half of the songs learn from."""

import sys
from pathlib import Path

import pytest

from storage.store import Store

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def halves(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    import halves

    return halves


def test_every_song_is_missing_in_one_of_the_two_stores_and_what_is_not_halved_in_none(
    halves, waveform_store, tmp_path, monkeypatch
):
    original = Store.open(Path(waveform_store))
    songs = {track.track_id for track in original.tracks()}
    (dataset,) = {track.dataset for track in original.tracks()}
    for halved in ((dataset,), ()):
        monkeypatch.setattr(halves, "HALVED", halved)
        kept = []
        for index in (0, 1):
            path = tmp_path / f"{len(halved)}{index}.zarr"
            halves.without(Path(waveform_store), path, index)
            Store.create(path, original.format).consolidate()
            kept.append({track.track_id for track in Store.open(path).tracks()})
        assert kept[0] | kept[1] == songs
        assert kept[0] & kept[1] == (set() if halved else songs)
        if halved:
            assert kept[0] == {song for song in songs if halves.half(song.split("/", 1)[1]) == 1}
    assert {track.track_id for track in Store.open(Path(waveform_store)).tracks()} == songs  # the original is as it was
