import numpy as np
import pytest
import soundfile as sf

from storage.errors import DatasetError
from storage.sources.datasets import discover, leaks, recognise
from tests import plugins


def touch(path, samples=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros((samples, 1)), 8000)


def test_dsd100_keeps_its_halves_as_splits(dsd100):
    tracks = discover(dsd100)
    assert [(t.split, t.artist, t.title) for t in tracks] == [
        ("test", "The Synthetics", "Song 3"), *(("train", "The Synthetics", f"Song {n}") for n in range(3))
    ]  # fmt: skip
    assert all(set(t.stems) == {"vocals", "drums", "bass", "other"} and t.mixture for t in tracks)


def test_musdb_hq_folders_are_train_and_test(tmp_path):
    for split in ("train", "test"):
        for stem in ("mixture", "vocals", "drums", "bass", "other"):
            touch(tmp_path / split / f"Artist - {split} song" / f"{stem}.wav")
    tracks = discover(tmp_path)
    assert recognise(tmp_path) == "musdb18hq"
    assert {(t.split, t.title) for t in tracks} == {("train", "train song"), ("test", "test song")}


def test_a_folder_of_stems_may_lack_some_and_have_other_systems_beside(tmp_path):
    touch(tmp_path / "A - One" / "vocals.wav")
    touch(tmp_path / "A - One" / "Drums.wav")
    touch(tmp_path / "A - One" / "systems" / "XYZ.wav")
    (track,) = discover(tmp_path)
    assert set(track.stems) == {"vocals", "drums"}
    assert [name for name, _ in track.systems] == ["XYZ"]
    assert track.mixture is None


def test_pairs_join_files_of_the_same_name_and_name_the_singer(tmp_path):
    for folder in ("voice", "music"):
        touch(tmp_path / folder / "amy_1_01.wav")
        touch(tmp_path / folder / "leon_1_01.wav")
    tracks = discover(tmp_path, test_artists=["leon"])
    assert {(t.artist, t.split) for t in tracks} == {("amy", "train"), ("leon", "test")}
    assert all(set(t.stems) == {"vocals", "accompaniment"} for t in tracks)
    touch(tmp_path / "voice" / "lonely_1.wav")
    with pytest.raises(DatasetError, match="no partner.*lonely_1"):
        discover(tmp_path)


def test_loose_files_are_one_stem_each(tmp_path):
    touch(tmp_path / "deep" / "a.wav")
    (track,) = discover(tmp_path, stem="vocals")
    assert track.name == "deep__a"
    assert set(track.stems) == {"vocals"}


def test_a_folder_that_is_not_a_dataset_is_a_sentence_that_names_the_layouts(tmp_path):
    with pytest.raises(DatasetError, match="neither Mixtures/ and Sources/"):
        discover(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        discover(tmp_path / "absent")
    with pytest.raises(DatasetError, match="no track .* is by nobody"):
        touch(tmp_path / "A - One" / "vocals.wav")
        discover(tmp_path, test_artists=["nobody"])


def test_a_song_in_two_splits_is_found_through_its_spelling(tmp_path):
    def song(split, name):
        return discover(folder(split, name), split=split)[0]

    def folder(split, name):
        touch(tmp_path / split / name / "vocals.wav")
        return tmp_path / split

    one, other = song("train", "041 - ANiMAL - Clinic A"), song("test", "Animal - Clinic A!")
    assert one.song == other.song
    assert leaks((t.song, t.title, t.split) for t in (one, other)) == ["Clinic A"]
    assert leaks((t.song, t.title, t.split) for t in (one, one)) == []


def test_an_installed_package_adds_a_layout(tmp_path, monkeypatch):
    source = """
from storage.sources.datasets import DatasetTrack, Layout, Source

def tracks(root, dataset, split):
    for path in sorted(root.glob("*.voice")):
        yield DatasetTrack(dataset, split, path.stem, "A", path.stem, {"vocals": Source(str(path))})

THING = Layout(lambda root: any(root.glob("*.voice")), tracks)
"""
    (tmp_path / "package").mkdir()
    (tmp_path / "songs").mkdir()
    for name in ("b.voice", "a.voice"):
        (tmp_path / "songs" / name).touch()
    with pytest.raises(DatasetError, match="is not a dataset"):
        recognise(tmp_path / "songs")
    plugins.install(tmp_path / "package", monkeypatch, "unbraid.datasets", "voices", source)
    assert recognise(tmp_path / "songs") == "voices"
    assert [(t.split, t.name) for t in discover(tmp_path / "songs", split="test")] == [("test", "a"), ("test", "b")]
    with pytest.raises(DatasetError, match=r"choose one of dsd100, .*voices, loose"):
        discover(tmp_path / "songs", kind="absent")
