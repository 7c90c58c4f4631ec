"""On real audio, where it lies beside the checkout."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.separate import separate
from storage.audio.reader import read
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from storage.sources.datasets import discover
from storage.store import Store
from tasks.loading import registry

pytestmark = [pytest.mark.real, pytest.mark.whole, pytest.mark.xdist_group("real")]


@pytest.fixture(scope="module")
def shipped():
    return next(model.model_id for model in registry().models() if model.shipped and model.preset == "stereo")


def test_opus_that_libsndfile_cannot_finish_is_read_to_its_end(shared_data):
    import soundfile as sf

    given_up = []
    for path in sorted(shared_data.glob("instrumentals/*.opus"))[:60]:
        signal, rate = read(path)
        assert 5 < signal.shape[1] / rate < 60
        assert np.isfinite(signal).all()
        try:
            sf.read(path)
        except sf.SoundFileError:
            given_up.append(path)
    assert given_up


def test_stem_mp4_is_five_streams_in_their_order(shared_data, tmp_path):
    summary = ingest(str(shared_data / "stems_mp4"), str(tmp_path / "s.zarr"), workers=1)
    assert (summary.done, summary.failures) == (2, ())
    store = Store.open(tmp_path / "s.zarr")
    for track in store.tracks():
        assert track.stems == ("bass", "drums", "mixture", "other", "vocals")
        mixture = store.waveform(track, "mixture")
        stems = sum(store.waveform(track, stem) for stem in track.stems if stem != "mixture")
        difference = 10 * np.log10(np.square(mixture - stems).sum() / np.square(mixture).sum())
        assert min(abs(difference + 31.6), abs(difference + 15.4)) < 0.1


def test_a_real_song_in_dsd100s_layout_is_ingested_completely(shared_data, tmp_path):
    from storage.audio.writer import write

    song = shared_data / "everythingisfree" / "ichbinsoftware - Francium"
    stems = {path.stem: read(path) for path in song.iterdir()}
    for stem, (audio, rate) in stems.items():
        write(tmp_path / "d" / "Sources" / "Dev" / f"001 - {song.name}" / f"{stem}.wav", audio[:, : 20 * rate], rate)
    mixture = sum(audio[:, : 20 * rate] for audio, rate in stems.values())
    write(tmp_path / "d" / "Mixtures" / "Dev" / f"001 - {song.name}" / "mixture.wav", mixture, rate, depth="float")
    summary = ingest(str(tmp_path / "d"), str(tmp_path / "s.zarr"), workers=1)
    assert (summary.done, summary.failures) == (1, ())
    (track,) = Store.open(tmp_path / "s.zarr").tracks("train")
    assert (track.artist, track.title, track.source_rate) == ("ichbinsoftware", "Francium", 48000)
    assert track.samples == 20 * 44100


def test_karaoke_pairs_have_their_singers_as_artists(shared_data):
    tracks = discover(shared_data / "mir1k")
    assert len(tracks) == 1000
    assert len({track.artist for track in tracks}) == 19


def test_a_real_song_comes_apart_and_adds_up(shared_data, shipped, tmp_path):
    song = shared_data / "songs" / "Jonathan Coulton - Not About You.mp3"
    shutil.copy(song, tmp_path / song.name)
    summary = separate(str(tmp_path / song.name), str(tmp_path / "out"), model=shipped)
    assert summary.exit_code == 0
    mixture, rate = read(song)
    stems = {}
    for row in read_all(OutputLayout(tmp_path / "out")).to_pylist():
        stems[row["stem"]], stem_rate = read(tmp_path / "out" / row["stem_path"])
        assert stem_rate == rate == row["sample_rate"]
        assert stems[row["stem"]].shape == mixture.shape
        assert row["activity"] > 0.3  # a voice and a band through much of the song
    total = stems["vocals"].astype(np.float64) + stems["accompaniment"]
    assert np.abs(total - mixture).max() <= 1 / 32768
    # The stems differ: neither is the mixture turned down.
    correlation = np.corrcoef(stems["vocals"].ravel(), stems["accompaniment"].ravel())[0, 1]
    assert abs(correlation) < 0.5


def test_the_floor_on_real_excerpts_is_the_known_one_and_we_are_above_it(shared_data, shipped, tmp_path):
    summary = evaluate(str(shared_data / "dsd100_dev_excerpts"), str(tmp_path / "out"), model=shipped)
    rows = [row for row in read_all(OutputLayout(tmp_path / "out")).to_pylist() if row["stem"] == "vocals"]
    scores = {}
    for row in rows:
        scores.setdefault(row["model_id"], []).append(row["sdr"])
    assert np.median(scores["floor:mixture"]) == pytest.approx(-3.2, abs=0.05)
    systems = [value for name, values in scores.items() if name.startswith("system:") for value in values]
    assert len(systems) == 45
    assert np.median(systems) == pytest.approx(3.2, abs=0.1)
    assert np.median(scores["floor:mixture"]) < np.median(scores[summary.model_id]) < np.median(scores["ceiling:irm"])


def test_nothing_of_the_shared_data_is_committed(shared_data):
    import subprocess

    root = Path(__file__).resolve().parents[2]
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=root, capture_output=True, text=True, check=True).stdout
    names = {Path(line.split("\t")[1]).name for line in listed.splitlines()}
    shared = {path.name for path in shared_data.rglob("*.opus")} | {path.name for path in shared_data.rglob("*.flac")}
    assert not names & shared
