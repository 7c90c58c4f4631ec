import errno

import pytest

from flows.running import record
from flows.running.commit import clear_abandoned
from flows.running.record import recorded, swept
from storage import runs
from storage.errors import MetricsError, OutputError, OutputInUse
from storage.files.atomic import temporary_beside
from storage.files.layout import OutputLayout
from storage.results import metrics


@pytest.fixture
def out(tmp_path):
    return OutputLayout(tmp_path)


def test_a_run_that_breaks_says_so_in_its_record(out):
    with pytest.raises(ValueError, match="broke"), recorded(out, "r", {"a": 1}):
        raise ValueError("broke")
    written = runs.read(out, "r")
    assert (written["state"], written["summary"]["error"]) == ("failed", "ValueError: broke")
    assert written["versions"]["torch"].startswith("2.13.0")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_stopped_has_not_failed(out, stop):
    with pytest.raises(stop), recorded(out, "r", {}):
        raise stop
    assert runs.read(out, "r")["state"] == "stopped"


@pytest.mark.parametrize("moment", ["storage.runs.begin", "storage.runs.beat", "storage.runs.refuse_company"])
def test_a_stop_at_any_moment_of_the_start_leaves_no_record_that_says_it_goes_on(out, monkeypatch, moment):
    original = getattr(runs, moment.rpartition(".")[2])

    def stopped(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, stopped)
    with pytest.raises(KeyboardInterrupt), recorded(out, "r", {}):
        pytest.fail("it went on")
    assert runs.read(out, "r")["state"] == "stopped"
    assert not out.run_beat("r").exists()


def left_in(folder):
    leftover = temporary_beside(folder / "vocals.flac")
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.touch()
    return leftover


def test_what_workers_left_half_written_is_deleted_where_they_were_at_work(out):
    """In a catalog of a million folders only there: looking through all of them takes longer than a stop may."""
    done = out.stems / "done" / "vocals.flac"
    done.parent.mkdir(parents=True)
    done.touch()
    with pytest.raises(KeyboardInterrupt), recorded(out, "r", {}) as run:
        run.at_work = {"a": out.stems / "a", "done": done.parent}
        leftovers = [left_in(folder) for folder in (out.stems / "a", done.parent, out.players("r"), out.staging)]
        raise KeyboardInterrupt
    assert not any(leftover.exists() for leftover in leftovers)
    assert done.exists()
    assert not (out.stems / "a").exists()


@pytest.mark.parametrize("signalled", [True, False])
def test_after_a_signal_many_parts_wait_for_the_next_run(out, monkeypatch, signalled):
    monkeypatch.setattr(record, "_QUICKLY_JOINED", 1)
    monkeypatch.setattr("flows.running.signals.has_come", lambda: signalled)
    with pytest.raises(KeyboardInterrupt), recorded(out, "separate-1", {}):
        for track in "ab":
            metrics.write_part(out, "separate-1", [metrics.StemRow("m", track, f"{track}.wav", "vocals", "ok")])
        raise KeyboardInterrupt
    assert metrics.compacted(out, "separate-1").exists() != signalled
    clear_abandoned(out)
    assert metrics.compacted(out, "separate-1").exists()
    assert metrics.read_all(out).num_rows == 2


def test_workers_of_a_run_without_a_record_leave_nothing_half_written_either(tmp_path):
    with pytest.raises(KeyboardInterrupt), swept(tmp_path):
        leftover = left_in(tmp_path / "trial-001" / "snapshots")
        raise KeyboardInterrupt
    assert not leftover.exists()


def test_a_stop_before_there_is_a_record_raises_no_second_error(out, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("storage.runs.begin", stopped)
    with pytest.raises(KeyboardInterrupt), recorded(out, "r", {}):
        pytest.fail("it went on")
    assert not out.runs.exists() or not list(out.runs.iterdir())


def test_a_run_beats_while_it_goes_on_and_not_afterwards(out):
    with recorded(out, "r", {}):
        assert out.run_beat("r").exists()
    assert not out.run_beat("r").exists()


def test_a_run_of_another_machine_is_left_alone_while_it_beats(out, monkeypatch):
    monkeypatch.setattr(runs, "_WATCHED_SECONDS", 0.5)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform.node", lambda: "another-machine")
        elsewhere.setattr(runs, "_namespace", lambda: "another boot")
        with recorded(out, "separate-1", {}):
            elsewhere.undo()
            with pytest.raises(MetricsError, match=r"separate-1 .* on another-machine"):
                runs.close_abandoned(out)


def test_of_two_runs_that_start_at_once_the_later_gives_way(out, monkeypatch):
    monkeypatch.setattr(runs, "_namespace", lambda: "one")
    with recorded(out, "separate-1", {}):
        monkeypatch.setattr(runs, "_namespace", lambda: "two")
        with pytest.raises(MetricsError, match="is being written to by separate-1"), recorded(out, "separate-2", {}):
            pytest.fail("two runs over one output")
    assert runs.read(out, "separate-2")["state"] == "failed"


@pytest.mark.parametrize("state", [runs.STOPPED, runs.FAILED])
def test_rows_that_a_stopped_run_had_no_time_or_room_to_join_are_joined_by_the_next(tmp_path, state):
    out = OutputLayout(tmp_path)
    runs.begin(out, "separate-1", {})
    metrics.write_part(out, "separate-1", [metrics.StemRow("m", "a", "a.wav", "vocals", "ok")])
    runs.end(out, "separate-1", state, {})
    leftover = temporary_beside(tmp_path / "stems" / "b_vocals.flac")
    leftover.parent.mkdir()
    leftover.touch()
    clear_abandoned(out)
    assert metrics.compacted(out, "separate-1").exists()
    assert metrics.unjoined_runs(out) == []
    assert not leftover.exists()
    assert runs.read(out, "separate-1")["state"] == state


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), PermissionError(errno.EACCES, "Permission denied", "{}")],
)
def test_a_disk_that_is_full_when_the_report_is_written_is_named(out, error):
    if error.filename:
        error.filename = str(out.root / "reports" / "r.html")
    with pytest.raises(OutputError, match=f"{out.root} cannot be written .*another --out"), recorded(out, "r", {}):
        raise error
    assert runs.read(out, "r")["state"] == runs.FAILED


def test_a_run_in_another_thread_of_this_process_is_never_swept(out):
    with recorded(out, "r", {}):
        with pytest.raises(OutputInUse, match=r"by r \(process"):
            clear_abandoned(out)
        assert runs.read(out, "r")["state"] == runs.RUNNING
    clear_abandoned(out)  # it is silent now, and its record was never ended
    assert runs.read(out, "r")["state"] == runs.KILLED
