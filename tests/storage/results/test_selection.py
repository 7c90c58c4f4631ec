"""Which tracks a condition chooses, and that it can do nothing but choose."""

import datetime

import pytest

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import FAILED, OK, StemRow
from storage.results.selection import check_condition, select_tracks

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
TRACKS = ("good", "bad", "broken", "scored")


def separated(track, predicted, *, model="stereo-1", minutes=0, seconds=90.0):
    return [
        StemRow(model, track, f"{track}.wav", stem, OK, stem_path=f"stems/{track}/{stem}.flac", settings_hash="s",
                source_fingerprint="f", predicted_sdr=value, duration_s=seconds,
                finished_at=NOON + datetime.timedelta(minutes=minutes))
        for stem, value in (("vocals", predicted), ("accompaniment", predicted + 5))
    ]  # fmt: skip


@pytest.fixture
def out(tmp_path):
    layout = OutputLayout(tmp_path)
    metrics.write_part(layout, "separate-1", separated("good", 8.0) + separated("bad", 2.0))
    failed = StemRow("stereo-1", "broken", "broken.wav", None, FAILED, "no audio", "DecodeError", settings_hash="s",
                     source_fingerprint="f", finished_at=NOON)  # fmt: skip
    metrics.write_part(layout, "separate-1", [failed])
    metrics.write_part(layout, "evaluate-2", [StemRow("floor:mixture", "scored", "scored", "vocals", OK, sdr=-5.0)])
    for run_id in ("separate-1", "evaluate-2"):
        metrics.compact(layout, run_id)
    return layout


def chosen(out, condition):
    selection = select_tracks(out.root, condition)
    tracks = [track for track in TRACKS if track in selection]
    assert len(tracks) == len(selection)
    return tracks


@pytest.mark.parametrize(
    ("condition", "tracks"),
    [
        ("predicted_sdr < 4", ["bad"]),
        ("predicted_sdr < 9", ["good", "bad"]),  # any stem's row will do
        ("stem = 'accompaniment' and predicted_sdr < 9 -- the rest", ["bad"]),
        ("status = 'failed'", ["broken"]),
        ("sdr < 0", []),  # what `unbraid evaluate` scored is no separation of the catalog
        ("predicted_sdr < (select median(predicted_sdr) from history where stem = 'vocals')", ["bad"]),
        ("predicted_sdr < 4 or (status = 'failed')", ["bad", "broken"]),
        ("false", []),
    ],
)
def test_a_condition_chooses_the_tracks_of_the_rows_that_fulfil_it(out, condition, tracks):
    assert chosen(out, condition) == tracks


def test_a_row_counts_as_long_as_its_stem_is_on_the_disk(out):
    metrics.write_part(out, "separate-3", separated("bad", 6.0, model="hq-2", minutes=9))
    metrics.compact(out, "separate-3")
    assert chosen(out, "predicted_sdr < 4") == []
    assert chosen(out, "predicted_sdr < 7") == ["bad"]


def test_the_selection_knows_how_long_its_tracks_are(out):
    selection = select_tracks(out.root, "predicted_sdr < 4 or status = 'failed'")
    assert selection.seconds("bad") == 90.0
    assert selection.seconds("broken") == 0.0
    with pytest.raises(KeyError):
        selection.seconds("good")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("predicted_sdt < 4", "predicted_sdr"),  # DuckDB's candidate
        ("predicted_sdr <", "does not work"),
        ("", "does not work"),
        ("true) union select 'good', 1 from history where (true", "does not work"),
        ("true; drop view metrics", "does not work"),
        ("exists (select * from read_csv('/etc/passwd'))", "does not work"),
        ("exists (select * from read_text('/etc/passwd'))", "disabled"),
        ("stem + 1 > 0", "does not work"),
    ],
)
def test_a_condition_that_does_not_work_is_a_sentence(out, condition, words):
    with pytest.raises(MetricsError, match=words) as caught:
        check_condition(out.root, condition)
        select_tracks(out.root, condition)
    assert "\n" not in str(caught.value)


def test_a_condition_over_an_output_without_rows_is_a_sentence(tmp_path):
    with pytest.raises(MetricsError, match="has no metrics"):
        check_condition(tmp_path, "true")
