import json

import numpy as np
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
