"""Everything that lies on disk lies as well in a bucket: s3:// over HTTP, on a server of this process."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from storage import runs
from storage.audio.reader import read
from storage.audio.writer import write
from storage.errors import AudioError, CatalogError, RegistryError, StorageError
from storage.files.atomic import replacing, write_bytes
from storage.files.fingerprint import fingerprint
from storage.files.layout import OutputLayout
from storage.files.location import absolute, is_url, local_file, location, scratch_folder, sweep_scratch
from storage.registry import Registry
from storage.results import metrics
from storage.results.done import Target, done_tracks
from storage.results.query import query
from storage.sources.catalog import list_catalog
from storage.store import Store, StoredTrack, StoreFormat, write_waveform
from tests.objects import object_store
from tests.signals import noise

pytestmark = pytest.mark.xdist_group("objects")


@pytest.fixture(scope="module")
def bucket():
    with object_store("catalog") as url:
        yield url


def put(url, seconds=0.1):
    data = io.BytesIO()
    sf.write(data, noise(2, round(8000 * seconds)).T, 8000, format="WAV")
    write_bytes(location(url), data.getvalue())


def test_a_prefix_lists_its_audio_objects_with_their_state(bucket):
    for name in ("a/x.wav", "b/c/Y.WAV", "z.wav", "cover.jpg", ".hidden.wav"):
        put(f"{bucket}/songs/{name}")
    tracks = list_catalog(f"{bucket}/songs")
    assert [track.path for track in tracks] == ["a/x.wav", "b/c/Y.WAV", "z.wav"]
    assert [track.source for track in tracks] == [f"{bucket}/songs/{track.path}" for track in tracks]
    assert all(track.state.fingerprint == fingerprint(track.source) for track in tracks)
    before = tracks[0].state.fingerprint
    put(tracks[0].source, seconds=0.2)
    assert list_catalog(f"{bucket}/songs")[0].state.fingerprint != before


def test_globs_single_objects_and_manifests_work_in_a_bucket(bucket, tmp_path):
    for name in ("m/a/one.wav", "m/b/two.wav", "n/three.wav"):
        put(f"{bucket}/{name}")
    assert [t.path for t in list_catalog(f"{bucket}/m/*/*.wav")] == ["a/one.wav", "b/two.wav"]
    assert [t.path for t in list_catalog(f"{bucket}/n/three.wav")] == ["three.wav"]
    write_bytes(location(f"{bucket}/m/list.csv"), f"path,track_id\na/one.wav,first\n{bucket}/n/three.wav,\n".encode())
    first, third = list_catalog(f"{bucket}/m/list.csv")
    assert (first.track_id, first.source) == ("first", f"{bucket}/m/a/one.wav")
    assert (third.path, third.source) == ("catalog/n/three.wav", f"{bucket}/n/three.wav")
    local = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": [f"{bucket}/n/three.wav"]}), local)
    assert [t.source for t in list_catalog(local)] == [f"{bucket}/n/three.wav"]


def test_what_is_not_in_the_bucket_is_a_sentence(bucket):
    with pytest.raises(CatalogError, match=f"{bucket}/nothing is not there"):
        list_catalog(f"{bucket}/nothing")
    with pytest.raises(CatalogError, match="nothing matches"):
        list_catalog(f"{bucket}/nothing/*.wav")
    with pytest.raises(CatalogError, match="no-such-bucket"):
        list_catalog("s3://no-such-bucket/songs")
    with pytest.raises(StorageError, match=f"{bucket}/gone.wav is not there"):
        read(f"{bucket}/gone.wav")
    with pytest.raises(StorageError, match="no installed package knows nonsense://"):
        location("nonsense://somewhere/x")


def test_audio_in_a_bucket_is_named_by_its_url_and_leaves_nothing_here(bucket):
    audio = noise(2, 5000)
    write(f"{bucket}/stems/x.flac", audio, 44100, name="flac")
    again, rate = read(f"{bucket}/stems/x.flac")
    assert rate == 44100
    assert np.abs(again - audio).max() <= 2**-15
    write_bytes(location(f"{bucket}/stems/broken.flac"), b"no flac at all")
    with pytest.raises(AudioError, match=f"{bucket}/stems/broken.flac is not audio"):
        read(f"{bucket}/stems/broken.flac")
    with local_file(location(f"{bucket}/stems/x.flac")) as copy:
        assert copy.is_file()
    assert not copy.parent.exists()


def test_an_object_appears_complete_or_not_at_all(bucket):
    target = location(f"{bucket}/whole.bin")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert not target.exists()
    with replacing(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert not temporary.exists()


def test_metrics_are_written_compacted_planned_from_and_queried_in_a_bucket(bucket):
    out = OutputLayout(location(f"{bucket}/out"))
    runs.begin(out, "run-1", {})
    for name in ("a", "b"):
        row = metrics.StemRow("m-00000000", name, name, "vocals", metrics.OK, source_fingerprint="f", settings_hash="s",
                              stem_path=f"stems/{name}/vocals.flac")  # fmt: skip
        metrics.write_part(out, "run-1", [row])
        write_bytes(out.stems / name / "vocals.flac", b"")
    assert len(metrics.row_files(out)) == 2
    assert metrics.compact(out, "run-1").name == "metrics.parquet"
    assert len(metrics.row_files(out)) == 1
    done = done_tracks(out, Target("m-00000000", ("s",), ("vocals",)))
    assert (len(done), done.ended("a", "f"), done.ended("b", "f")) == (2, True, True)
    assert query(out.root, "select count(*) as n from metrics").to_pylist() == [{"n": 2}]
    runs.end(out, "run-1", runs.COMPLETED, {})
    assert runs.read(out, "run-1")["state"] == runs.COMPLETED
    assert runs.close_abandoned(out) == []


def test_a_store_in_a_bucket_gives_back_what_was_written(bucket):
    store = Store.create(f"{bucket}/train.zarr", StoreFormat(n_fft=0, hop=0))
    store.prepare({"train/made"})
    waveform = np.random.default_rng(0).integers(-(2**15), 2**15, (3000, 2)).astype(np.int16)
    checksum = write_waveform(store.begin_track("train/made/one"), "vocals", waveform, rate=44100, scale=1.0)
    track = StoredTrack("made/one", "made", "train", "x", "one", "x-one", 3000, ("vocals",), {"vocals": 1.0},
                        {"vocals": 2}, {"vocals": 22050.0}, "f", {"vocals": checksum}, 44100)  # fmt: skip
    store.finish_track(track)
    assert store.consolidate() == 1
    opened = Store.open(f"{bucket}/train.zarr")
    assert opened.tracks("train") == [track]
    assert np.array_equal(np.round(opened.waveform(track, "vocals") * 32768).T, waveform)


def test_models_are_registered_promoted_and_rolled_back_in_a_bucket(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("UNBRAID_MODELS", f"{bucket}/models")
    registry = Registry(tmp_path)
    first, second = registry.add("small", b"one", "card one"), registry.add("small", b"two", "card two", champion=True)
    assert registry.champions()["small"] == second
    assert registry.read("small") == (second, b"two")
    assert registry.rollback("small") == first
    with pytest.raises(RegistryError, match=f"{first} has become champion of small in the meantime"):
        registry.promote(second, instead_of=second)
    assert {model.model_id: model.card for model in Registry(tmp_path).models()} == {
        first: "card one",
        second: "card two",
    }
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda n: registry.add(f"preset{n}", b"weights", "", champion=True), range(4)))
    assert {registry.champions()[f"preset{n}"] for n in range(4)} == set(ids)


def test_local_paths_are_paths_and_urls_are_not(tmp_path):
    assert location(tmp_path) == tmp_path
    assert not is_url("C:/songs")
    assert not is_url(tmp_path)
    assert absolute("s3://bucket/x") == "s3://bucket/x"
    assert absolute(tmp_path / "x" / ".." / "y") == str(tmp_path / "y")


def test_scratch_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as mine:
        dead = tmp_path / "unbraid-scratch-4194305-x"  # above the largest process number there is
        shutil.copytree(mine, dead)
        sweep_scratch()
        assert mine.exists()
        assert not dead.exists()
