"""bench/midi.py: a MIDI song as one file per stem, with every note in one of them and no voices."""

import struct
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from midi import STEMS, lumps, parts, save, songs

from storage.audio.reader import read
from storage.audio.writer import write
from storage.sources.datasets import discover

TICKS = 480

notes = st.tuples(
    st.integers(0, 15), st.integers(0, 127), st.integers(0, 127), st.integers(0, 4 * TICKS), st.integers(1, 2 * TICKS)
)


def a_song(drawn: list[tuple[int, int, int, int, int]]) -> mido.MidiFile:
    """Notes (channel, program before it, note, start, length in ticks) at 120 beats per minute."""
    timed = []
    for channel, program, note, start, length in drawn:
        timed.append((start, mido.Message("program_change", channel=channel, program=program)))
        timed.append((start, mido.Message("note_on", channel=channel, note=note, velocity=90)))
        timed.append((start + length, mido.Message("note_off", channel=channel, note=note)))
    track, before = mido.MidiTrack(), 0
    for at, message in sorted(timed, key=lambda pair: pair[0]):
        track.append(message.copy(time=at - before))
        before = at
    song = mido.MidiFile(ticks_per_beat=TICKS)
    song.tracks.append(track)
    return song


def struck(song: mido.MidiFile) -> list[tuple[int, int, int]]:
    """(tick, channel, note) of every note that begins."""
    tick, out = 0, []
    for message in mido.merge_tracks(song.tracks):
        tick += message.time
        if message.type == "note_on" and message.velocity:
            out.append((tick, message.channel, message.note))
    return out


@given(st.lists(notes, min_size=1, max_size=30))
def test_every_note_is_in_one_stem_and_drums_alone_in_theirs(drawn):
    song = a_song(drawn)
    made = parts(song, 100.0, 0)
    assert set(made) <= set(STEMS)
    assert sorted(note for part in made.values() for note in struck(part)) == sorted(struck(song))
    for stem, part in made.items():
        assert all((channel == 9) == (stem == "drums") for _, channel, _ in struck(part))


@given(st.lists(notes, min_size=1, max_size=30), st.integers(-3, 3))
def test_all_but_drums_are_transposed_and_nothing_sings(drawn, shift):
    plain, moved = parts(a_song(drawn), 100.0, 0), parts(a_song(drawn), 100.0, shift)
    for stem, part in plain.items():
        by = 0 if stem == "drums" else shift
        assert struck(moved[stem]) == [(t, c, min(127, max(0, note + by))) for t, c, note in struck(part)]
        programs = {m.program for m in part.tracks[0] if m.type == "program_change"}
        assert not programs & {52, 53, 54, 85, 91}


def test_a_note_that_the_cut_leaves_sounding_is_ended():
    song = a_song([(0, 0, 60, 0, 200 * TICKS)])
    (part,) = parts(song, 2.0, 0).values()
    ended = {(m.channel, m.control) for m in part.tracks[0] if m.type == "control_change"}
    assert {(0, 64), (0, 120), (0, 123)} <= ended
    assert part.length <= 2.0


def test_a_note_ends_in_the_stem_that_began_it_whatever_the_program_became():
    track = mido.MidiTrack()
    track.append(mido.Message("program_change", channel=0, program=33))
    track.append(mido.Message("note_on", channel=0, note=40, velocity=90))
    track.append(mido.Message("program_change", channel=0, program=0, time=10))
    track.append(mido.Message("note_off", channel=0, note=40, time=10))
    song = mido.MidiFile()
    song.tracks.append(track)
    made = parts(song, 10.0, 2)
    assert list(made) == ["bass"]
    assert [(m.type, m.note) for m in made["bass"].tracks[0] if "note" in m.type] == [("note_on", 42), ("note_off", 42)]


def test_songs_of_a_game_archive_and_of_a_folder_come_once_each(tmp_path):
    a_song([(0, 0, 60, 0, 10)]).save(tmp_path / "one.mid")
    data = (tmp_path / "one.mid").read_bytes()
    other = data + b"\0"
    body = b"noise" + other
    entries = struct.pack("<II8s", 12, 5, b"NOISE") + struct.pack("<II8s", 17, len(other), b"D_E1M1")
    wad = tmp_path / "game.wad"
    wad.write_bytes(struct.pack("<4sII", b"PWAD", 2, 12 + len(body)) + body + entries)
    assert list(lumps(wad)) == [("d_e1m1", other)]
    (tmp_path / "copy.mid").write_bytes(data)
    assert [name for name, _ in songs([tmp_path, wad])] == [f"{tmp_path.name}_copy", "game_d_e1m1"]


def test_stems_are_written_at_one_scale_and_silent_ones_not_at_all(tmp_path):
    random = np.random.default_rng(0)
    drums = random.uniform(-1, 1, (2, 4000)).astype(np.float32)
    bass = random.uniform(-2, 2, (2, 3000)).astype(np.float32)
    save({"drums": drums, "bass": bass, "other": np.zeros((2, 100), np.float32)}, tmp_path / "song")
    assert sorted(path.name for path in (tmp_path / "song").iterdir()) == ["bass.flac", "drums.flac"]
    back = {path.stem: read(path)[0] for path in (tmp_path / "song").iterdir()}
    assert back["drums"].shape == back["bass"].shape == (2, 4000)
    assert np.abs(back["drums"] + back["bass"]).max() == pytest.approx(0.9, abs=1e-3)
    scale = (back["drums"] * drums).sum() / (drums * drums).sum()
    assert np.abs(back["drums"] - scale * drums).max() < 1e-3
    assert np.abs(back["bass"][:, :3000] - scale * bass).max() < 1e-3


def test_a_run_killed_while_it_writes_leaves_no_song_to_ingest(tmp_path, monkeypatch):
    stems = {stem: np.full((2, 100), 0.1, np.float32) for stem in ("drums", "bass")}
    save(stems, tmp_path / "one")

    def killed(path, audio, rate):
        if path.stem == "bass":
            raise KeyboardInterrupt
        write(path, audio, rate)

    monkeypatch.setattr("midi.write", killed)
    with pytest.raises(KeyboardInterrupt):
        save(stems, tmp_path / "two")
    assert [track.name for track in discover(tmp_path)] == ["one"]
