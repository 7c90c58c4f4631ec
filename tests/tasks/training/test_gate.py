import json

import numpy as np
import pytest

from tasks.training.gate import LEAST_SONGS, contest, decide, interval

SONGS = [f"song {i:02d}" for i in range(12)]
OLD = {song: {"vocals": 4.0 + i / 3, "drums": 3.0 + i / 4} for i, song in enumerate(SONGS)}


def rows(model, scores):
    return [
        {"model_id": model, "track_id": track, "stem": stem, "status": "ok", "sdr": sdr}
        for track, stems in scores.items()
        for stem, sdr in stems.items()
    ]


def decision(ours, theirs=OLD, **settings):
    return decide(
        "stereo", "new", "old", "test", contest(rows("new", ours) + rows("old", theirs), "new", "old"), **settings
    )


def changed(vocals=0.0, drums=0.0, songs=SONGS):
    """The champion's scores, each changed by a number or by one number per song."""
    by_song = zip(songs, np.broadcast_to(vocals, len(songs)), np.broadcast_to(drums, len(songs)), strict=True)
    return {s: {"vocals": OLD[s]["vocals"] + v, "drums": OLD[s]["drums"] + d} for s, v, d in by_song}


def noise(mean, spread, seed=0):
    return mean + spread * np.random.default_rng(seed).standard_normal(len(SONGS))


def test_a_challenger_that_is_better_on_most_songs_is_promoted_with_its_interval():
    verdict = decision(changed(vocals=noise(0.6, 0.3), drums=-0.09))
    assert verdict.promoted
    assert 0 < verdict.rise_low < verdict.rise < verdict.rise_high
    assert verdict.tracks == len(SONGS)
    assert json.loads(verdict.champion_medians)["vocals"] == pytest.approx(4.0 + 5.5 / 3)


def test_a_median_that_rose_by_luck_is_not_promoted():
    """Half of the songs fall by 2 dB, a little more than half rise by 0.3."""
    verdict = decision(changed(vocals=[-2.0] * 5 + [0.3] * 7))
    assert verdict.rise == pytest.approx(0.3)
    assert verdict.rise_low < 0
    assert not verdict.promoted
    assert "cannot be told from chance" in verdict.reason


@pytest.mark.parametrize("seed", range(8))
def test_noise_alone_is_hardly_ever_promoted(seed):
    promoted = [decision(changed(vocals=noise(0.0, 0.5, 100 * seed + i))).promoted for i in range(5)]
    assert sum(promoted) <= 1


@pytest.mark.parametrize(("least_rise", "promoted"), [(0.1, False), (0.01, True)])
def test_a_certain_rise_that_is_too_small_is_not_promoted(least_rise, promoted):
    verdict = decision(changed(vocals=noise(0.05, 0.01)), least_rise=least_rise)
    assert verdict.rise_low > 0
    assert verdict.promoted is promoted
    assert verdict.least_rise == least_rise


def test_equal_or_worse_vocals_are_not_promoted():
    assert not decision(changed()).promoted
    assert not decision(changed(vocals=-0.5)).promoted


def test_too_few_songs_never_promote_and_the_reason_says_so():
    few = SONGS[: LEAST_SONGS - 1]
    verdict = decision(changed(vocals=3.0, songs=few), {song: OLD[song] for song in few})
    assert not verdict.promoted
    assert "4 songs are too few" in verdict.reason
    assert verdict.rise_low is None
    assert verdict.rise == pytest.approx(3.0)
    enough = {song: OLD[song] for song in SONGS[:LEAST_SONGS]}
    assert decision(changed(vocals=3.0, songs=SONGS[:LEAST_SONGS]), enough).promoted


def test_a_stem_that_falls_too_far_stops_it_and_is_named():
    verdict = decision(changed(vocals=1.0, drums=-0.11))
    assert not verdict.promoted
    assert "drums falls by 0.11 dB" in verdict.reason


def test_songs_that_only_one_of_them_was_scored_on_do_not_count():
    easy = {f"easy {i}": {"vocals": 20.0, "drums": 20.0} for i in range(30)}
    assert not decision({**easy, **changed(vocals=-0.1)}).promoted


def test_a_challenger_that_fails_where_the_champion_does_not_is_stopped():
    ours = changed(vocals=2.0)
    del ours["song 07"]
    verdict = decision(ours)
    assert not verdict.promoted
    assert "fails on 1 tracks that the champion separates, e.g. song 07" in verdict.reason


def test_without_a_champion_the_challenger_is_promoted():
    assert decide("stereo", "new", None, "test", None).promoted


def test_the_champions_own_weights_again_are_not_promoted():
    assert not decide("stereo", "old", "old", "test", contest(rows("old", OLD), "old", "old")).promoted


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    """Of 60 draws of 21 songs from one distribution, about nine in ten intervals hold its median."""
    random = np.random.default_rng(5)
    covered = [low <= 0.3 <= high for low, high in (interval(random.normal(0.3, 0.6, 21)) for _ in range(60))]
    assert 0.78 <= np.mean(covered) < 1


def test_the_same_songs_have_the_same_interval():
    differences = noise(0.2, 0.4)
    assert interval(differences) == interval(differences.copy())


def test_the_decision_says_how_many_decisions_used_this_test_set():
    assert decision(changed(vocals=1.0), looks=4).looks == 4


def test_predicted_scores_promote_only_a_clear_rise_and_say_what_they_are():
    ours = changed(vocals=noise(0.3, 0.05))
    assert decision(ours).promoted
    verdict = decision(ours, predicted=True)
    assert not verdict.promoted
    assert verdict.least_rise == 0.5
    clear = decision(changed(vocals=noise(0.8, 0.05)), predicted=True)
    assert clear.promoted
    for each in (verdict, clear):
        assert each.score == "predicted"
        assert each.reason.endswith("predicted by the models from their own doubt, not measured")
    assert decision(ours).score == "measured"


def test_models_without_predictions_are_not_compared():
    silent = {song: {"vocals": None} for song in SONGS}
    verdict = decision(silent, silent, predicted=True)
    assert not verdict.promoted
    assert verdict.reason.startswith("there is no song whose vocals both models predict")
