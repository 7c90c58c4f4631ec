"""What is said at the end of a run, of rows made by hand."""

import json

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.cli.console import show_table
from flows.cli.outcome import show_separation, times_real_time
from flows.separate import RunSummary
from storage import runs
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import FAILED, OK, StemRow
from storage.results.predictions import run_drift


def made(folder, scores, failed=0, **values):
    """A finished run of one row of vocals per score."""
    out = OutputLayout(folder)
    run_id = runs.new_run_id("separate")
    runs.begin(out, run_id, {})
    rows = [
        StemRow("m", f"t{i}", f"song {i}.wav", "vocals", OK, sdr=score, duration_s=100.0, seconds=2.0,
                stem_path=f"stems/song {i}/vocals.flac", **values)
        for i, score in enumerate(scores)
    ]  # fmt: skip
    rows += [StemRow("m", f"f{i}", f"bad {i}.wav", None, FAILED, error="it is bad") for i in range(failed)]
    metrics.write_part(out, run_id, rows)
    metrics.compact(out, run_id)
    summary = RunSummary(
        run_id, str(folder), len(scores), failed, 0, 0, 100.0 * len(scores), "report.html", drift=run_drift(out, run_id)
    )
    runs.end(out, run_id, runs.COMPLETED, {})
    return summary


def test_the_summary_names_tracks_speed_scores_the_worst_and_the_output(tmp_path, capsys):
    show_separation(made(tmp_path, [5.0, 1.0, 7.0, 3.0], failed=1), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("tracks:") and "4 tracks separated, 1 failed" in line for line in lines)
    assert any("0.11 hours in" in line and "× real time" in line for line in lines)
    assert any(line.startswith("cSDR:") and "4.0 dB in the median" in line for line in lines)
    worst = [line.split("dB")[0].split()[-1] for line in lines if "dB  song" in line]
    assert worst == ["1.0", "3.0", "5.0"]
    assert any(line.startswith("stems:") and str(tmp_path / "stems") in line for line in lines)
    assert "it is bad" in "\n".join(lines)


def test_the_summary_says_how_predictions_moved_since_the_run_before(tmp_path, capsys, monkeypatch):
    days = iter(["separate-20260101T000000-aaaaaa", "separate-20260102T000000-bbbbbb"])
    monkeypatch.setattr(runs, "new_run_id", lambda _: next(days))
    made(tmp_path, [1.0], predicted_sdr=6.5)
    summary = made(tmp_path, [1.0], predicted_sdr=5.0)
    show_separation(summary, as_json=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("drift:")]
    assert "5.0 dB in the median, 1.5 dB below the run before" in line
    show_separation(summary, as_json=True)
    assert "1.5 dB below" in json.loads(capsys.readouterr().out)["drift"]


def test_the_summary_of_one_song_lists_its_files(tmp_path, capsys):
    show_separation(made(tmp_path, [5.0]), as_json=False)
    out = capsys.readouterr().out
    assert "1 track separated, 0 failed" in out
    assert out.splitlines()[-1] == str(tmp_path / "stems" / "song 0" / "vocals.flac")


def test_json_has_the_summarys_fields(tmp_path, capsys):
    summary = made(tmp_path, [5.0, 1.0], failed=1)
    show_separation(summary, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["run_id"], said["done"], said["failed"], said["exit_code"]) == (summary.run_id, 2, 1, 3)
    assert said["worst"][0] == ["song 1.wav", 1.0]
    assert said["median_sdr"] == 3.0


@pytest.mark.parametrize(
    ("audio", "seconds", "words"), [(80, 10, "8 × real time"), (800, 10, "80 × real time"), (15, 10, "1.5 × real time")]
)
def test_speed_is_given_in_multiples_of_real_time(audio, seconds, words):
    assert times_real_time(audio, seconds) == words


def test_query_without_sql_lists_tables_and_columns(tmp_path):
    made(tmp_path, [5.0])
    result = CliRunner().invoke(main, ["query", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "metrics"
    assert "history" in result.output.splitlines()
    assert "predicted_sdr" in result.output


def test_query_keeps_duckdbs_candidate_for_a_misspelt_column(tmp_path):
    made(tmp_path, [5.0])
    result = CliRunner().invoke(main, ["query", str(tmp_path), "select sdrr from metrics"])
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("unbraid: ")]
    assert "did you mean" in line
    assert '"sdr"' in line or "sdr," in line or "sdr)" in line


def test_query_gives_json(tmp_path):
    made(tmp_path, [5.0])
    result = CliRunner().invoke(main, ["query", str(tmp_path), "select sdr from metrics", "--json"])
    assert json.loads(result.output) == [{"sdr": 5.0}]


def test_wide_rows_are_printed_line_by_line_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    show_table(["path", "note"], [["a" * 30, "b" * 30], ["c", None]])
    assert capsys.readouterr().out.splitlines() == [
        "-- 1 ----",
        f"path  {'a' * 30}",
        f"note  {'b' * 30}",
        "-- 2 ----",
        "path  c",
    ]


@pytest.mark.parametrize(("failed", "failed_before", "code"), [(0, 0, 0), (0, 5, 0), (1, 0, 3), (2, 5, 3)])
def test_only_new_failures_change_the_exit_code(failed, failed_before, code):
    assert RunSummary("r", "out", 1, failed, 0, failed_before, 1.0, None).exit_code == code
