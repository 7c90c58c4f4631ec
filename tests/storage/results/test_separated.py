"""Which separated tracks a run folder holds, from rows alone."""

import datetime

import pytest

from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import OK, StemRow
from storage.results.rows import AnalysisRow, write_rows
from storage.results.separated import separated_tracks, unanalysed_tracks

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def rows(track, stems, *, model="stereo-1", settings="s", minutes=0, **values):
    return [
        StemRow(model, track, f"{track}.wav", stem, OK, stem_path=f"stems/{track}/{stem}.flac", settings_hash=settings,
                source_fingerprint="f", finished_at=NOON + datetime.timedelta(minutes=minutes), **values)
        for stem in stems
    ]  # fmt: skip


@pytest.fixture
def out(tmp_path):
    layout = OutputLayout(tmp_path)
    metrics.write_part(layout, "r1", rows("a", ["vocals", "accompaniment"], predicted_sdr=7.0))
    metrics.write_part(layout, "r1", rows("b", ["vocals", "drums", "bass", "other"]))
    metrics.write_part(layout, "r1", rows("c", ["accompaniment"]))
    metrics.compact(layout, "r1")
    return layout


def test_tracks_with_vocals_and_another_stem_are_given_whole_and_in_order(out):
    a, b = separated_tracks(out)
    assert (a.track_id, b.track_id) == ("a", "b")
    assert [stem for stem, _ in b.stems] == ["bass", "drums", "other", "vocals"]
    assert dict(a.stems)["vocals"] == str(out.root / "stems/a/vocals.flac")
    assert a.predicted_sdr == 7.0


def test_asked_for_by_id_only_those_come(out):
    assert [track.track_id for track in separated_tracks(out, ["b", "nobody"])] == ["b"]
    assert list(separated_tracks(out, [])) == []


def test_stems_that_another_model_replaced_are_not_mixed_with_its_own(out):
    metrics.write_part(out, "r2", rows("a", ["vocals", "accompaniment"], model="hq-2", minutes=9))
    (track,) = separated_tracks(out, ["a"])
    assert track.model_id == "hq-2"


def test_what_was_analysed_as_it_is_now_is_not_analysed_again(out):
    assert [track.track_id for track in unanalysed_tracks(out)] == ["a", "b"]
    row = AnalysisRow("a", "a.wav", "stereo-1", "f", 1.0, 120.0, 1.0, 0, False, 1.0, 0.5, None, 0.1)
    write_rows(out, "m1", [row])
    assert [track.track_id for track in unanalysed_tracks(out)] == ["b"]
