"""What predictions come to over a catalog, and from run to run."""

import datetime

import pytest

from storage import runs
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import OK, StemRow
from storage.results.predictions import RunMedian, catalog_predictions, drift_sentence, predicted_scores, run_medians
from tasks.training.gate import contest

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def run(out, day, tracks, *, model="stereo-1", kind="separate", root="stems"):
    """A finished run with a row of vocals and one of accompaniment per (path, predicted SDR, genre)."""
    run_id = f"{kind}-202601{day:02}T000000-aaaaaa"
    runs.begin(out, run_id, {})
    rows = [
        StemRow(model, path, path, stem, OK, predicted_sdr=sdr + more, predicted_low=sdr - 1, predicted_high=sdr + 1,
                stem_path=f"{root}/{path}/{stem}.flac", settings_hash="s", source_fingerprint="f", genre=genre,
                finished_at=NOON + datetime.timedelta(days=day))
        for path, sdr, genre in tracks
        for stem, more in (("vocals", 0.0), ("accompaniment", 6.0))
    ]  # fmt: skip
    metrics.write_part(out, run_id, rows)
    metrics.compact(out, run_id)
    return run_id


@pytest.fixture
def out(tmp_path):
    layout = OutputLayout(tmp_path)
    run(layout, 1, [("rock/a", 1.0, "Rock"), ("rock/b", 3.0, "Rock"), ("jazz/c", 8.0, "Jazz"), ("d", 6.0, None)])
    run(layout, 2, [("jazz/e", 10.0, "Jazz"), ("rock/a", 2.0, "Rock")], model="hq-2")
    return layout


def test_predictions_are_summed_up_by_folder_and_genre_the_worst_first(out):
    predictions = catalog_predictions(out)
    assert (predictions.stem, predictions.tracks, sum(predictions.counts)) == ("vocals", 5, 5)
    assert predictions.quantiles[1] == 6.0
    assert [(track["path"], track["model_id"], track["sdr"]) for track in predictions.worst[:2]] == [
        ("rock/a", "hq-2", 2.0),  # the other model's row is of stems that are gone
        ("rock/b", "stereo-1", 3.0),
    ]
    assert [(group.name, group.tracks, group.median) for group in predictions.folders] == [
        ("rock", 2, 2.5), ("jazz", 2, 9.0),  # one track alone is no group
    ]  # fmt: skip
    assert [(group.name, group.median) for group in predictions.genres] == [("Rock", 2.5), ("Jazz", 9.0)]


def test_without_predictions_there_is_no_summary(tmp_path):
    out = OutputLayout(tmp_path)
    assert catalog_predictions(out) is None
    metrics.write_part(out, "separate-1", [StemRow("m", "a", "a", "vocals", OK, stem_path="stems/a/vocals.flac")])
    metrics.compact(out, "separate-1")
    assert catalog_predictions(out) is None


def test_a_run_is_set_beside_the_runs_of_its_kind_before_it(out):
    this = run(out, 4, [("f", 5.0, None)])
    run(out, 5, [("g", 0.0, None)])  # later
    run(out, 3, [("h", 0.0, None)], kind="evaluate")
    medians = run_medians(out, this)
    assert [(entry.model_id, entry.tracks, entry.median) for entry in medians] == [
        ("stereo-1", 1, 5.0), ("hq-2", 2, 6.0), ("stereo-1", 4, 4.5),
    ]  # fmt: skip
    assert drift_sentence(medians) == (
        "predicted SDR of vocals 5.0 dB in the median, 1.0 dB below the run before; "
        "the latest before: 6.0 (hq-2), 4.5 dB"
    )


def test_two_models_predictions_are_paired_as_scores(tmp_path):
    out = OutputLayout(tmp_path)
    songs = [(f"{index}", 3.0 + index, None) for index in range(6)]
    run(out, 1, songs, model="old", root="models/old")
    run(out, 2, [(path, sdr + 1.0, genre) for path, sdr, genre in songs], model="new", root="models/new")
    run(out, 3, songs, model="third", root="models/third")
    scores = predicted_scores(out, ("new", "old"))
    assert {row["model_id"] for row in scores} == {"new", "old"}
    result = contest(scores, "new", "old")
    assert (result.songs, result.rises) == (6, {"vocals": 1.0, "accompaniment": 1.0})


def test_a_first_run_has_no_drift():
    assert drift_sentence([]) is None
    assert drift_sentence([RunMedian("r", "m", "vocals", 3, 5.0)]) is None
