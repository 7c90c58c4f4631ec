import io

import pytest

from flows.running import progress as module
from flows.running.progress import Progress, counted, progress


def test_the_line_says_done_failed_speed_and_time_left():
    state = Progress("separate", 10)
    state._began -= 60
    state.advance(audio_seconds=1800)
    state.advance(audio_seconds=1800)
    state.advance(failed=True)
    assert state.text() == "separate: 3 of 10 tracks, 1 failed, 60 audio-hours per hour, 2:20 left"


def test_a_training_says_its_loss_before_the_first_step_is_counted():
    state = Progress("train", 60, "step")
    state.note = "loss 0.031, 18 examples/s"
    assert state.text() == "train: 0 of 60 steps, loss 0.031, 18 examples/s"


def test_piped_output_gets_plain_lines_and_the_final_state(capsys):
    with progress("ingest", 3) as line:
        for _ in range(3):
            line.advance()
    assert capsys.readouterr().err.splitlines() == ["ingest: 3 of 3 tracks, 0:00"]


def test_quiet_says_nothing(capsys, monkeypatch):
    monkeypatch.setenv(module.QUIET, "1")
    with progress("ingest", 1) as line:
        line.advance()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_the_same_words(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("separate", 2) as line:
        line.advance()
        line.advance(failed=True)
    assert "━" in terminal.getvalue()
    assert "2 of 2 tracks, 1 failed, 0:00" in terminal.getvalue()


@pytest.mark.parametrize(("number", "words"), [(0, "0 tracks"), (1, "1 track"), (2, "2 tracks")])
def test_one_is_singular(number, words):
    assert counted(number, "track") == words
