from flows.running.progress import Progress, progress


def test_the_line_says_done_failed_speed_and_time_left():
    state = Progress("separate", 10)
    state._began -= 60
    state.advance(audio_seconds=1800)
    state.advance(audio_seconds=1800)
    state.advance(failed=True)
    assert state.text() == "separate: 3 of 10, 1 failed, 60 audio-hours per hour, 2:20 left"


def test_piped_output_gets_plain_lines_and_the_last_word(capsys):
    with progress("ingest", 3) as line:
        for _ in range(3):
            line.advance()
    assert capsys.readouterr().err.splitlines() == ["ingest: 3 of 3, 0:00"]
