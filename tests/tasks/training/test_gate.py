import json

from tasks.training.gate import contest, decide


def rows(model, scores):
    return [
        {"model_id": model, "track_id": track, "stem": stem, "status": "ok", "sdr": sdr}
        for track, stems in scores.items()
        for stem, sdr in stems.items()
    ]


def decision(ours, theirs):
    found = contest(rows("new", ours) + rows("old", theirs), "new", "old")
    return decide("stereo", "new", "old", "test", found)


OLD = {"a": {"vocals": 4.0, "drums": 3.0}, "b": {"vocals": 6.0, "drums": 5.0}, "c": {"vocals": 5.0, "drums": 4.0}}


def changed(vocals=0.0, drums=0.0):
    return {t: {"vocals": s["vocals"] + vocals, "drums": s["drums"] + drums} for t, s in OLD.items()}


def test_a_challenger_whose_vocals_rise_and_whose_drums_hold_is_promoted():
    found = decision(changed(vocals=0.2, drums=-0.09), OLD)
    assert found.promoted
    assert found.challenger_vocals == 5.2
    assert found.tracks == 3
    assert json.loads(found.champion_medians) == {"vocals": 5.0, "drums": 4.0}


def test_equal_vocals_are_no_rise():
    assert not decision(changed(), OLD).promoted
    assert "does not rise" in decision(changed(vocals=-0.5), OLD).reason


def test_a_stem_that_falls_too_far_stops_it_and_is_named():
    found = decision(changed(vocals=1.0, drums=-0.11), OLD)
    assert not found.promoted
    assert "drums falls by 0.11 dB" in found.reason


def test_medians_are_over_the_tracks_that_both_were_scored_on():
    more = {**OLD, "easy": {"vocals": 20.0, "drums": 20.0}, "easier": {"vocals": 30.0, "drums": 20.0}}
    assert not decision({**more, **changed(vocals=-0.1)}, OLD).promoted


def test_a_challenger_that_fails_where_the_champion_does_not_is_stopped():
    ours = changed(vocals=2.0)
    del ours["c"]
    found = decision(ours, OLD)
    assert not found.promoted
    assert "fails on 1 tracks that the champion does, c first" in found.reason


def test_without_a_champion_there_is_nobody_to_beat():
    assert decide("stereo", "new", None, "test", None).promoted


def test_the_champions_own_weights_again_are_not_promoted():
    assert not decide("stereo", "old", "old", "test", contest(rows("old", OLD), "old", "old")).promoted
