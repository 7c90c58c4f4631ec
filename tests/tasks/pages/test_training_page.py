import json

import pytest

from storage.errors import MetricsError
from storage.files.layout import OutputLayout, TrainingLayout
from storage.results.rows import write_rows
from storage.results.training_rows import TrialRow
from tasks.pages.folders import write_page
from tasks.pages.training import curves, parallel, read_log, refresh_training_page


@pytest.fixture
def folder(tmp_path):
    lines = [{"step": 25 * n, "loss": 1 / n, "seconds": 10.0 * n, "examples_per_second": 18.0} for n in range(1, 5)]
    lines.append({"step": 100, "csdr": 5.25, "usdr": 6.0})
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 125, "lo'
    (tmp_path / "log.jsonl").write_text(text)
    (tmp_path / "record.json").write_text(json.dumps({"preset": "<b>stereo", "seed": 1}))
    return tmp_path


def test_a_training_that_goes_on_has_a_page(folder):
    text = write_page(folder).read_text()
    assert "5.25" in text
    assert "&lt;b&gt;stereo" in text
    assert "learning rate" not in text
    assert "validation cSDR" in text


def test_a_line_that_is_half_written_and_columns_that_are_missing_are_left_out(folder):
    lines = read_log(folder / "log.jsonl")
    assert len(lines) == 5
    assert [chart.title for chart in curves(lines)] == [
        "loss", "validation cSDR", "validation uSDR", "examples per second",
    ]  # fmt: skip


def test_tensorboard_finds_the_log(folder):
    pytest.importorskip("tensorboardX")
    write_page(folder)
    write_page(folder)
    events = list((folder / "tensorboard").glob("events.out.*"))
    assert len(events) == 1
    assert b"loss" in events[0].read_bytes()


def test_a_page_that_cannot_be_written_does_not_end_a_training(tmp_path):
    refresh_training_page(TrainingLayout(tmp_path / "nowhere"))


def test_a_search_is_lines_over_its_settings_the_best_strongest(tmp_path):
    out = OutputLayout(tmp_path)
    trials = [TrialRow(n, "stereo", json.dumps({"rate": 0.1 * n, "net": "ab"[n % 2]}), "ok", csdr=float(n))
              for n in range(3)]  # fmt: skip
    write_rows(out, "tune-20260101T000000-aaaaaa", [*trials, TrialRow(9, "stereo", "{}", "failed", error="<i>no</i>")])
    text = write_page(tmp_path).read_text()
    assert "&lt;i&gt;no&lt;/i&gt;" in text
    plot = parallel([{"trial": t.trial, "csdr": t.csdr, "settings": json.loads(t.settings)} for t in trials])
    assert [axis["name"] for axis in plot["axes"]] == ["rate", "net", "cSDR"]
    assert [line["good"] for line in plot["lines"]] == [0.0, 0.5, 1.0]


def test_a_folder_with_nothing_in_it_is_a_sentence(tmp_path):
    with pytest.raises(MetricsError, match="no finished run, no training and no search"):
        write_page(tmp_path)
