from dataclasses import dataclass

import pytest

from tasks.training.validation import mean_score, split_for_validation


@dataclass(frozen=True)
class Track:
    """What the split looks at of a stored track."""

    dataset: str
    artist: str
    title: str
    stems: tuple[str, ...] = ("vocals", "accompaniment")

    @property
    def track_id(self):
        return f"{self.dataset}/{self.artist} - {self.title}"


def test_all_songs_of_an_artist_are_in_training_or_all_in_validation():
    many = [Track("x", f"singer {i % 40}", f"song {i}") for i in range(400)]
    training, validation = split_for_validation(many)
    assert not {t.artist for t in training} & {t.artist for t in validation}
    assert 0 < len(validation) < len(many) / 5


def test_a_song_that_two_datasets_share_is_on_one_side_of_the_split():
    """DSD100 and MUSDB18 share songs, some in another spelling."""
    ours = [Track("dsd100", f"Band {i}", f"A Song {i}") for i in range(60)]
    theirs = [Track("musdb18", f"band {i}", f"A song, {i}") for i in range(20, 80)]
    training, validation = split_for_validation(ours + theirs)
    plain = lambda track: track.artist.lower()  # noqa: E731
    assert not {plain(t) for t in training} & {plain(t) for t in validation}
    assert {t.dataset for t in validation} == {"dsd100", "musdb18"}


def test_an_artist_whose_songs_lie_in_two_datasets_is_on_one_side_of_the_split():
    ours = [Track("dsd100", f"Band {i}", f"First {i}") for i in range(100)]
    theirs = [Track("medley", f"band {i}", f"Second {i}") for i in range(100)]
    training, validation = split_for_validation(ours + theirs)
    assert not {t.artist.lower() for t in training} & {t.artist.lower() for t in validation}
    assert {t.dataset for t in validation} == {"dsd100", "medley"}


@pytest.mark.parametrize("artist", ["Solo", "loose"])
def test_a_dataset_of_one_artist_is_split_by_song(artist):
    """An artist named like the dataset is one that the dataset does not tell."""
    training, validation = split_for_validation([Track("loose", artist, f"take {i}") for i in range(100)])
    assert 0 < len(validation) < 20
    assert len(training) + len(validation) == 100


def test_what_a_small_store_keeps_for_validation_is_in_training_under_no_other_name():
    tracks = [Track("a", "One", "First"), Track("a", "Two", "Last"), Track("b", "Two!", "last")]
    training, validation = split_for_validation(tracks)
    assert [t.title for t in training] == ["First"]
    assert validation
    assert {t.title.lower() for t in validation} == {"last"}


def test_the_same_tracks_are_always_split_alike():
    many = [Track("x", f"singer {i % 40}", f"song {i}") for i in range(400)]
    assert set(split_for_validation(many)[1]) == set(split_for_validation(many[::-1])[1])


def test_one_stem_that_is_nearly_silent_does_not_decide_which_weights_are_better():
    """A nearly silent voice falls by more than all others rise together."""
    before, after = [5.0] * 20 + [29.3], [5.5] * 20 + [-6.2]
    assert sum(before) > sum(after)
    assert mean_score(before) < mean_score(after)


def test_the_mean_of_few_scores_is_that_of_all_that_there_are():
    assert mean_score([1.0, None, 2.0, -6.0]) == pytest.approx(-1.0)
    assert mean_score([None]) < -1e6
