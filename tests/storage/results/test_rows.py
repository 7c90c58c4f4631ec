import pytest

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.results.query import query
from storage.results.rows import present_tables, read_rows, write_rows
from storage.results.training_rows import TrialRow


def test_rows_come_back_as_written_and_can_be_queried(tmp_path):
    out = OutputLayout(tmp_path)
    rows = [TrialRow(0, "stereo", "{}", "ok", csdr=4.5), TrialRow(1, "stereo", '{"ema": 0.9}', "failed", error="why")]
    write_rows(out, "tune-1", rows[:1])
    write_rows(out, "tune-1", rows[1:])
    trials = read_rows(out, "trials").to_pylist()
    assert sorted(row["trial"] for row in trials) == [0, 1]
    assert {row["error"] for row in trials} == {None, "why"}
    assert present_tables(out) == ["trials"]
    assert query(tmp_path, "select max(csdr) as best from trials").to_pylist() == [{"best": 4.5}]


def test_the_same_rows_twice_are_one_part(tmp_path):
    row = TrialRow(0, "stereo", "{}", "ok")
    assert write_rows(OutputLayout(tmp_path), "tune-1", [row]) == write_rows(OutputLayout(tmp_path), "tune-1", [row])
    assert len(read_rows(OutputLayout(tmp_path), "trials")) == 1


def test_a_damaged_part_is_named(tmp_path):
    part = write_rows(OutputLayout(tmp_path), "tune-1", [TrialRow(0, "stereo", "{}", "ok")])
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(MetricsError, match="part-.*cannot be read"):
        read_rows(OutputLayout(tmp_path), "trials")
