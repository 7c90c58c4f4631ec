import re

import pytest

from flows.running.progress import progress


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
