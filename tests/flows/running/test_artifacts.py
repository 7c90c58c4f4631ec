import re

import pytest

from flows.running.progress import progress
from storage import runs
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import FAILED, OK, StemRow


def test_a_run_is_named_by_what_it_does_to_what_on_which_day():
    from flows.running.artifacts import run_name

    assert re.fullmatch(r"separate-music-\d{4}-\d\d-\d\d", run_name("separate", {"source": "/home/me/music/"}))
    assert re.fullmatch(r"tune-\d{4}-\d\d-\d\d", run_name("tune", {}))


def test_without_a_server_prefect_is_told_nothing(monkeypatch):
    import prefect.artifacts

    from flows.running import artifacts

    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", pytest.fail)
    with progress("ingest", 1) as line:
        line.advance()
    assert not artifacts.has_server()


def test_a_bar_is_one_artifact_that_moves_now_and_then_and_ends_full(monkeypatch):
    import prefect.artifacts

    from flows.running import artifacts

    made, moved = [], []
    monkeypatch.setattr(artifacts, "has_server", lambda: True)
    monkeypatch.setattr(artifacts, "_EVERY", 0.05)
    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", lambda **values: made.append(values) or "id")
    monkeypatch.setattr(prefect.artifacts, "update_progress_artifact", lambda **values: moved.append(values))
    with progress("separate", 1000) as line:
        for _ in range(1000):
            line.advance()
    assert len(made) == 1
    assert made[0]["key"] == "separate-progress"
    assert 1 <= len(moved) < 200
    assert moved[-1]["progress"] == 100.0
    assert all(values["artifact_id"] == "id" for values in moved)


def test_a_server_that_is_lost_costs_the_bar_and_not_the_run(monkeypatch):
    import prefect.artifacts

    from flows.running import artifacts

    def lost(**_):
        raise ConnectionError("gone")

    monkeypatch.setattr(artifacts, "has_server", lambda: True)
    monkeypatch.setattr(artifacts, "_EVERY", 0.0)
    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", lambda **values: "id")
    monkeypatch.setattr(prefect.artifacts, "update_progress_artifact", lost)
    with progress("separate", 2) as line:
        line.advance()
        line.advance()
    assert line.done == 2


def test_the_summary_of_a_run_says_how_predictions_moved():
    from flows.running.artifacts import summary_text

    totals = {"done": 1, "failed": 0, "seconds": 60.0}
    assert "\nDrift: 1.0 dB below.\n" in summary_text("separate-1", totals, [], "1.0 dB below")
    assert "Drift" not in summary_text("separate-1", totals, [])


def test_the_log_of_a_run_says_totals_and_a_line_per_cause():
    from flows.running.artifacts import log_lines

    causes = [{"tracks": 2, "examples": [{"path": "a.wav", "error": "a.wav is empty"}]}]
    totals = {"done": 3, "failed": 2, "seconds": 5400.0}
    assert log_lines(totals, causes) == [
        "3 ok, 2 failed, 1.50 hours of audio",
        "2 tracks failed as a.wav: a.wav is empty",
    ]


def test_a_finished_run_has_a_summary_the_first_hundred_failures_and_a_link_to_its_report(tmp_path, monkeypatch):
    import logging

    import prefect.artifacts
    import prefect.logging

    from flows.running import artifacts

    out, run_id = OutputLayout(tmp_path), "separate-20260101T000000-aaaaaa"
    runs.begin(out, run_id, {})
    failed = [
        StemRow("m", f"t{n}", f"bad {n:03}.wav", None, FAILED, error=f"bad {n:03}.wav is empty") for n in range(120)
    ]
    metrics.write_part(out, run_id, [StemRow("m", "t", "a.wav", "vocals", OK, sdr=5.25, duration_s=60.0), *failed])
    metrics.compact(out, run_id)
    published: dict = {}

    def recorder(kind):
        return lambda *content, **values: published.update({kind: (*content, values)})

    monkeypatch.setattr(artifacts, "has_server", lambda: True)
    monkeypatch.setattr(prefect.logging, "get_run_logger", lambda: logging.getLogger("run"))
    for kind in ("markdown", "table", "link"):
        monkeypatch.setattr(prefect.artifacts, f"create_{kind}_artifact", recorder(kind))
    artifacts.publish(out, run_id, tmp_path / "report.html")
    (summary, _), (table, told), (link, _) = (published[kind] for kind in ("markdown", "table", "link"))
    assert "1 ok, 120 failed" in summary
    assert "| m | vocals | 1 | 5.25 |" in summary
    assert [row["path"] for row in table] == [f"bad {n:03}.wav" for n in range(100)]
    assert told["description"] == "120 failed tracks"
    assert link == (tmp_path / "report.html").as_uri()
