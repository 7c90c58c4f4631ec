"""Beats, keys and alignment on songs whose tempo, key and bars are known."""

import numpy as np
import pytest

from tasks.demo.synthesiser import RATE, compose
from tasks.mashup.align import align, tempo_factor
from tasks.mashup.beats import track_beats
from tasks.mashup.chroma import chromagram
from tasks.mashup.errors import Misfit
from tasks.mashup.keys import Key, distance, fewest_semitones, find_key
from tests.signals import noise

pytestmark = pytest.mark.xdist_group("beats")  # its songs are made and followed once

SECONDS = 40.0
SONGS = {
    (300 + i): (tempo, tonic)
    for i, (tempo, tonic) in enumerate([(83.5, 0), (97.2, 3), (104.0, 7), (118.7, 10), (128.3, 5), (141.9, 8)])
}


@pytest.fixture(scope="module")
def songs():
    return {seed: compose(seed, SECONDS, tempo=tempo, tonic=tonic) for seed, (tempo, tonic) in SONGS.items()}


@pytest.fixture(scope="module")
def grids(songs):
    return {seed: track_beats(song.mixture, RATE) for seed, song in songs.items()}


def true_beats(song):
    return np.arange(-400, 800) * 60 / song.tempo


@pytest.mark.parametrize("seed", SONGS)
def test_the_tempo_is_within_one_percent_and_bars_begin_where_they_do(songs, grids, seed):
    song, grid = songs[seed], grids[seed]
    assert grid.tempo == pytest.approx(song.tempo, rel=0.01)
    bar = 240 / song.tempo
    into_bar = (grid.beats[grid.downbeat] + bar / 8) % bar
    assert into_bar < bar / 4


def test_keys_are_right_in_at_least_five_of_six_songs_and_never_far_off(songs):
    backings = [song.stems["other"] + song.stems["bass"] + song.stems["drums"] for song in songs.values()]
    keys = [find_key(chromagram(backing, RATE)) for backing in backings]
    true = [Key(song.tonic, song.minor) for song in songs.values()]
    right = [(a.tonic, a.minor) == (b.tonic, b.minor) for a, b in zip(keys, true, strict=True)]
    assert sum(right) >= 5
    assert all(distance(a, b) <= 1 for a, b in zip(keys, true, strict=True))


@pytest.mark.parametrize(("a", "b"), [(300, 301), (302, 303), (304, 302), (305, 304), (301, 303)])
def test_after_alignment_true_beats_lie_on_true_beats_and_bars_on_bars(songs, grids, a, b):
    alignment = align(grids[a], grids[b], np.ones(len(grids[a].beats), bool))
    assert alignment.factor == 1.0
    mapped = alignment.time(np.arange(0, SECONDS, 60 / songs[a].tempo))
    mapped = mapped[(mapped > 0) & (mapped < SECONDS)]
    distances = np.abs(mapped[:, None] - true_beats(songs[b])[None]).min(axis=1)
    assert np.median(distances) <= 0.020
    assert np.percentile(distances, 95) <= 0.060
    bars = alignment.time(np.array(songs[a].downbeats))
    assert np.median(np.abs(bars[:, None] - true_beats(songs[b])[None, ::4]).min(axis=1)) <= 0.020


def test_a_song_of_half_the_tempo_is_counted_double(grids):
    assert tempo_factor(70, 141) == 2.0
    assert tempo_factor(160, 82) == 0.5
    half = grids[304].halved()
    assert half.tempo == pytest.approx(64.15, rel=0.01)
    alignment = align(half, grids[303], np.ones(len(half.beats), bool))
    assert alignment.factor == 2.0
    assert np.median(alignment.time.speeds()) == pytest.approx(118.7 / 128.3, rel=0.01)
    alignment = align(grids[304], grids[303].halved(), np.ones(len(grids[304].beats), bool))
    assert alignment.factor == 0.5
    assert np.median(alignment.time.speeds()) == pytest.approx(118.7 / 128.3, rel=0.01)


def test_tempi_too_far_apart_are_a_misfit(songs):
    slow, fast = (track_beats(compose(9, 20.0, tempo=t).mixture, RATE) for t in (90.0, 128.0))
    with pytest.raises(Misfit, match="too far apart"):
        align(slow, fast, np.ones(len(slow.beats), bool))


@pytest.mark.parametrize("audio", [noise(2, RATE * 20), np.zeros((2, RATE * 20), np.float32)])
def test_noise_and_silence_have_no_beat(audio, grids):
    with pytest.raises(Misfit, match="no beat could be tracked in the song of the vocals"):
        align(track_beats(audio, RATE), grids[300], np.zeros(0, bool))


def test_a_sustained_tone_has_no_beat():
    tone = np.sin(2 * np.pi * 220 * np.arange(RATE * 15) / RATE)[None].astype(np.float32)
    assert not len(track_beats(tone, RATE).beats)


@pytest.mark.parametrize("minor_a", [False, True])
@pytest.mark.parametrize("minor_b", [False, True])
def test_the_shift_is_the_fewest_semitones_that_make_keys_compatible(minor_a, minor_b):
    """Against a plain search over all shifts, with compatibility written out: same, relative, fifth."""
    for tonic_a in range(12):
        for tonic_b in range(12):
            shift = fewest_semitones(Key(tonic_a, minor_a), Key(tonic_b, minor_b))
            assert abs(shift) <= 4

            def fits(by, tonic_a=tonic_a, tonic_b=tonic_b):
                if minor_a == minor_b:
                    return (tonic_a + by - tonic_b) % 12 in (0, 5, 7)
                return (tonic_a + by - tonic_b) % 12 == (9 if minor_a else 3)

            possible = [by for by in range(-4, 5) if fits(by)]
            if possible:
                assert fits(shift)
                assert abs(shift) == min(map(abs, possible))
