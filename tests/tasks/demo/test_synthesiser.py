import librosa
import numpy as np
import pytest

from model.scoring.scores import usdr
from tasks.demo.synthesiser import RATE, compose


@pytest.fixture(scope="module")
def song():
    return compose(3, 12.0)


def test_a_seed_is_one_song(song):
    again, other = compose(3, 12.0), compose(4, 12.0)
    assert all(np.array_equal(song.stems[stem], again.stems[stem]) for stem in song.stems)
    assert not np.array_equal(song.mixture, other.mixture)


def test_every_player_plays_stereo_below_full_scale(song):
    assert set(song.stems) == {"vocals", "drums", "bass", "other"}
    for stem in song.stems.values():
        assert stem.shape == (2, 12 * RATE)
        assert np.sqrt(np.square(stem).mean()) > 0.005
    assert np.abs(song.mixture).max() < 1


def test_the_voice_sings_notes_of_the_key_with_vibrato(song):
    voice = song.stems["vocals"].mean(axis=0)
    pitch, voiced, _ = librosa.pyin(voice, fmin=100, fmax=900, sr=RATE, frame_length=4096)
    sung = librosa.hz_to_midi(pitch[voiced])
    assert voiced.mean() > 0.3
    scale = {(song.tonic + step) % 12 for step in ((0, 2, 3, 5, 7, 8, 10) if song.minor else (0, 2, 4, 5, 7, 9, 11))}
    inside = np.mean([round(float(note)) % 12 in scale for note in sung])
    assert inside > 0.8
    assert np.std(np.diff(sung)) > 0.01


def test_the_tempo_is_the_one_requested():
    song = compose(8, 20.0, tempo=120)
    tempo = float(np.atleast_1d(librosa.beat.beat_track(y=song.mixture.mean(0), sr=RATE)[0])[0])
    assert min(abs(tempo * f / 120 - 1) for f in (0.5, 1, 2)) < 0.05


def test_the_mixture_as_estimate_scores_badly(song):
    assert usdr(song.stems["vocals"], song.mixture) < 0
