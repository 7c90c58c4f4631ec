import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from model.scoring.museval_engine import museval
from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.results.museval_json import read_museval, write_museval
from storage.results.windows import WindowScores, read_windows, stored_windows, write_windows


def scores(track, stem, seed, windows=9):
    values = np.random.default_rng(seed).standard_normal((4, windows)).round(5)
    rows = [tuple(float(v) for v in row) for row in values]
    rows = [(None, *row[1:]) for row in rows]  # the first window is silent
    return WindowScores("stereo-1", track, stem, *rows)


def plain(path):
    """JSON with numbers as floats and NaN as text, so that equal files are equal."""
    return json.loads(path.read_text(), parse_int=float, parse_constant=str)


@pytest.fixture
def made():
    return [
        scores(f"Artist - Song {t}", stem, 10 * t + i) for t in range(3) for i, stem in enumerate(("vocals", "bass"))
    ]


def test_musevals_own_store_aggregates_our_export_to_our_numbers(tmp_path, made):
    write_museval(tmp_path, made)
    store = museval().EvalStore()
    store.add_eval_dir(tmp_path)
    theirs = store.agg_frames_tracks_scores()
    for stem in ("vocals", "bass"):
        for name in ("sdr", "isr", "sir", "sar"):
            tracks = [np.median([v for v in getattr(s, name) if v is not None]) for s in made if s.stem == stem]
            assert theirs[stem][name.upper()] == pytest.approx(np.median(tracks), abs=1e-9)


def test_what_museval_writes_is_read_and_what_we_write_is_its_layout(tmp_path, made):
    store = museval().TrackStore("Artist - Song 0")
    for stem in made[:2]:
        columns = {
            n.upper(): [np.nan if v is None else v for v in getattr(stem, n)] for n in ("sdr", "isr", "sir", "sar")
        }
        store.add_target(stem.stem, columns)
    (tmp_path / "theirs" / "test").mkdir(parents=True)
    store.save(tmp_path / "theirs" / "test" / "Artist - Song 0.json")
    (ours,) = write_museval(tmp_path / "ours", made[:2])
    assert plain(ours)["targets"] == plain(tmp_path / "theirs" / "test" / "Artist - Song 0.json")["targets"]
    assert read_museval(tmp_path / "theirs", "stereo-1") == made[:2]
    assert ours.name == "Artist - Song 0.json"


def test_windows_come_back_from_parquet_the_latest_run_of_each(tmp_path, made):
    out = OutputLayout(tmp_path)
    write_windows(out, "evaluate-20260101T000000-aaaaaa", [scores("Artist - Song 0", "vocals", 99)])
    write_windows(out, "separate-20260202T000000-bbbbbb", made)
    assert sorted(map(repr, stored_windows(out))) == sorted(map(repr, made))
    assert len(read_windows(out)) == 9 * 7
    assert write_windows(out, "r", []) is None


def test_windows_that_were_predicted_and_not_scored_are_no_scores(tmp_path):
    out = OutputLayout(tmp_path)
    # A track without references: its second window is a pause, of which nothing is predicted either.
    write_windows(out, "separate-20260101T000000-aaaaaa", [predicted("alone", (4.0, None, 6.0))])
    assert stored_windows(out) == []


def test_a_scored_pause_keeps_its_place_though_a_prediction_lies_beside_it(tmp_path):
    out = OutputLayout(tmp_path)
    # Five seconds were predicted; the reference, a little shorter, has windows in four, and is silent in the second.
    scored = WindowScores("stereo-1", "song", "vocals", *4 * [(1.0, None, 3.0, 4.0)])
    run_id = "evaluate-20260101T000000-aaaaaa"
    write_windows(out, run_id, [scored, predicted("song", (4.0, 5.0, 6.0, None, 7.0))])
    assert stored_windows(out) == [scored]
    (target,) = json.loads(write_museval(tmp_path / "json", stored_windows(out))[0].read_text())["targets"]
    assert [frame["time"] for frame in target["frames"]] == [0.0, 1.0, 2.0, 3.0]


def test_scores_of_an_all_silent_stem_are_scores(tmp_path):
    out = OutputLayout(tmp_path)
    silent = WindowScores("stereo-1", "song", "vocals", *4 * [(None, None)])
    write_windows(out, "evaluate-20260101T000000-aaaaaa", [silent, predicted("song", (None, 2.0))])
    assert stored_windows(out) == [silent]


def test_windows_of_a_version_that_did_not_say_what_was_scored(tmp_path, made):
    out, run_id = OutputLayout(tmp_path), "separate-20260101T000000-aaaaaa"
    part = write_windows(out, run_id, [*made, predicted("alone", (4.0, None, 6.0))])
    older = pq.read_table(part, partitioning=None).drop_columns(["scored"])
    pq.write_table(older, part)
    assert sorted(map(repr, stored_windows(out))) == sorted(map(repr, made))


def predicted(track, values):
    return WindowScores("stereo-1", track, "vocals", predicted_sdr=values, vocal_presence=tuple(0.5 for _ in values))


def test_other_json_is_refused_by_name(tmp_path):
    with pytest.raises(MetricsError, match="holds no scores"):
        read_museval(tmp_path, "x")
    (tmp_path / "a.json").write_text('{"targets": 3}')
    with pytest.raises(MetricsError, match=r"a\.json is not"):
        read_museval(tmp_path, "x")


def test_museval_is_importable_without_ffmpeg():
    import subprocess
    import sys

    code = (
        "from model.scoring.museval_engine import museval; m = museval(); import sys;"
        "assert m.EvalStore and m.evaluate; assert 'musdb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "/nonexistent"})
