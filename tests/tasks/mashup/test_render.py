"""A mash-up from stems on disk to its folder and row."""

import numpy as np
import pytest
import soundfile as sf

from storage.audio.writer import write
from storage.files.layout import OutputLayout
from storage.results.separated import SeparatedTrack
from tasks.demo.synthesiser import RATE, compose
from tasks.mashup.analysis import analyse_songs
from tasks.mashup.keys import key_table
from tasks.mashup.pairing import WEIGHTS
from tasks.mashup.render import MashupSettings, mash
from tests.signals import noise


def song_on_disk(root, name, vocals, accompaniment, rate=RATE):
    paths = []
    for stem, audio in (("accompaniment", accompaniment), ("vocals", vocals)):
        path = root / name / f"{stem}.flac"
        write(path, audio, rate, name="flac", depth="int24")
        paths.append((stem, str(path)))
    return SeparatedTrack(name, f"{name}.wav", "stereo-0", "f", tuple(paths))


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    made = {name: compose(seed, 26.0, tempo=tempo, tonic=tonic) for name, seed, tempo, tonic in
            (("a", 61, 108.0, 0), ("b", 62, 116.0, 3))}  # fmt: skip
    songs = {n: song_on_disk(root, n, s.stems["vocals"], s.mixture - s.stems["vocals"]) for n, s in made.items()}
    b = made["b"]
    halves = (x.mean(axis=0, keepdims=True)[:, ::2] for x in (b.stems["vocals"], b.mixture - b.stems["vocals"]))
    songs["mono"] = song_on_disk(root, "mono", *halves, rate=RATE // 2)
    silent = np.zeros_like(made["a"].mixture)
    songs["nobody"] = song_on_disk(root, "nobody", silent, made["a"].mixture)
    songs["noise"] = song_on_disk(root, "noise", made["a"].stems["vocals"], 0.1 * noise(2, silent.shape[1]))
    songs["short"] = song_on_disk(root, "short", *(0.1 * noise(2, RATE, i) for i in (1, 2)))
    return songs


def test_a_mash_up_is_a_mix_its_two_parts_a_picture_and_a_row(songs, tmp_path):
    row = mash(MashupSettings(out=str(tmp_path), bars=2), songs["a"], songs["b"])
    assert row.status == "ok", row.error
    folder = tmp_path / row.folder
    assert {p.name for p in folder.iterdir()} == {
        "mix.flac", "vocals.flac", "accompaniment.flac", "beats.png", "morph.flac", "crossfade.flac"
    }  # fmt: skip
    mix, vocals, rest = (sf.read(folder / f"{n}.flac", dtype="float64")[0] for n in ("mix", "vocals", "accompaniment"))
    np.testing.assert_allclose(mix, vocals + rest, atol=2**-23)
    assert np.abs(mix).max() < 1.0
    assert row.true_peak_db <= -0.9
    assert row.tempo_a == pytest.approx(108, rel=0.01)
    assert row.tempo_b == pytest.approx(116, rel=0.01)
    assert row.stretch_median == pytest.approx(116 / 108, rel=0.01)
    assert row.beat_distance_median <= 0.02
    assert row.beat_distance_p95 <= 0.06
    assert row.alignment_score > 0.7
    assert row.loudness_vocals - row.loudness_accompaniment == pytest.approx(-1.0, abs=0.5)
    assert (folder / "beats.png").read_bytes()[:4] == b"\x89PNG"
    # Where B plays and A sings there is sound of both.
    seconds = np.array_split(mix, int(row.duration_s))
    assert min(np.abs(second).max() for second in seconds[1:-1]) > 0.01


def test_the_same_pair_gives_the_same_bytes(songs, tmp_path):
    made = []
    for run in ("one", "two"):
        row = mash(MashupSettings(out=str(tmp_path / run)), songs["a"], songs["b"])
        made.append((tmp_path / run / row.folder / "mix.flac").read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(("a", "b"), [("a", "mono"), ("mono", "a")])
def test_mono_goes_with_stereo_and_one_rate_with_another(songs, tmp_path, a, b):
    row = mash(MashupSettings(out=str(tmp_path), loudness="frame", denoise="soft", key=False), songs[a], songs[b])
    assert row.status == "ok", row.error
    audio, rate = sf.read(tmp_path / row.folder / "mix.flac")
    assert rate == (RATE // 2 if b == "mono" else RATE)
    assert audio.shape[1] == 2
    assert row.semitones == 0


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("nobody", "b", "nobody has hardly any vocals"),
        ("a", "noise", "no beat could be tracked in the song of the accompaniment"),
        ("a", "short", "short is only 1.0 s long"),
        ("short", "b", "short is only 1.0 s long"),
    ],
)
def test_a_pair_that_does_not_fit_is_a_sentence_and_nothing_is_made(songs, tmp_path, a, b, why):
    row = mash(MashupSettings(out=str(tmp_path)), songs[a], songs[b])
    assert row.status == "misfit"
    assert why in row.error
    assert not OutputLayout(tmp_path).root.joinpath("mixes").exists()


def test_a_stem_that_cannot_be_read_is_a_failed_row(songs, tmp_path):
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"fLaC")
    song = SeparatedTrack("x", "x.wav", "m", "f", (("vocals", str(broken)), ("accompaniment", str(broken))))
    row = mash(MashupSettings(out=str(tmp_path)), song, songs["b"])
    assert row.status == "failed"
    assert "broken.flac" in row.error
    assert analyse_songs([song])[0].error


def test_the_best_pairs_are_those_of_near_tempi_and_keys_with_singing(tmp_path):
    from storage.results.mashup_rows import AnalysisRow
    from storage.results.pairs import rank_pairs
    from storage.results.rows import write_rows

    def row(name, tempo, tonic, activity=0.7):
        return AnalysisRow(name, f"{name}.wav", "m", "f", 200.0, tempo, 2.0, tonic, False, 0.5, activity, 8.0, 1.0)

    rows = [row("a", 120, 0), row("b", 121, 0), row("far", 96, 6), row("half", 60.2, 0), row("mute", 120, 0, 0.0)]
    write_rows(OutputLayout(tmp_path), "r", rows)
    pairs = rank_pairs(OutputLayout(tmp_path), key_table(), WEIGHTS, 50)
    assert {pairs[0].vocals_of, pairs[0].accompaniment_of} <= {"a.wav", "b.wav", "half.wav", "mute.wav"}
    assert not any(pair.vocals_of == "mute.wav" for pair in pairs)
    assert any({p.vocals_of, p.accompaniment_of} == {"a.wav", "half.wav"} and 0.95 < p.speed < 1.05 for p in pairs)
    assert not any("far.wav" in (p.vocals_of, p.accompaniment_of) and p.score > 0.2 for p in pairs)
    assert [p.rank for p in pairs] == list(range(1, len(pairs) + 1))
    assert [p.score for p in pairs] == sorted((p.score for p in pairs), reverse=True)
    # The join by buckets loses no pair within 15 %.
    tempi = {"a": 120, "b": 121, "far": 96, "half": 60.2, "mute": 120}
    fold = lambda x: (x + 0.5) % 1 - 0.5  # noqa: E731
    expected = {
        (f"{x}.wav", f"{y}.wav")
        for x in tempi
        for y in tempi
        if x != y and x != "mute" and abs(fold(np.log2(tempi[y] / tempi[x]))) <= 0.2
    }
    assert {(p.vocals_of, p.accompaniment_of) for p in pairs} == expected
