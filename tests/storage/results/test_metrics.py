import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.done import done_tracks
from storage.results.metrics import SCHEMA, StemRow
from storage.results.query import query


def row(track="t1", stem="vocals", status="ok", model="stereo-00000000", **values):
    return StemRow(
        model_id=model, track_id=track, path=track, stem=stem, status=status, source_fingerprint="f",
        settings_hash="h", **values,
    )  # fmt: skip


@pytest.fixture
def out(tmp_path):
    return OutputLayout(tmp_path / "out")


def test_the_row_is_the_schema():
    fields = {field.name for field in dataclasses.fields(StemRow)}
    assert fields | {"run_id"} == set(SCHEMA.names)


def test_parts_become_one_sorted_file_with_every_row_once(out):
    for number in (3, 1, 2):
        metrics.write_part(
            out, "run-1", [row(f"t{number}", stem, sdr=float(number)) for stem in ("vocals", "accompaniment")]
        )
    before = metrics.read_all(out).sort_by([("track_id", "ascending"), ("stem", "ascending")])
    target = metrics.compact(out, "run-1")
    assert [p.name for p in target.parent.iterdir()] == ["metrics.parquet"]
    after = metrics.read_all(out)
    assert after.equals(before)
    assert metrics.compact(out, "run-1") == target


def test_the_same_batch_twice_is_the_same_part(out):
    first = metrics.write_part(out, "r", [row("a"), row("b")])
    assert metrics.write_part(out, "r", [row("b"), row("a")]) == first
    assert len(metrics.read_all(out)) == 2


def test_a_crash_between_compacting_and_cleaning_counts_no_row_twice(out, monkeypatch):
    metrics.write_part(out, "r", [row("a")])
    metrics.write_part(out, "r", [row("b")])
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            metrics.compact(out, "r")
    assert len(list(out.run_metrics("r").glob("part-*"))) == 2
    assert sorted(metrics.read_all(out, columns=["track_id"]).column(0).to_pylist()) == ["a", "b"]
    metrics.compact(out, "r")
    assert len(list(out.run_metrics("r").glob("part-*"))) == 0
    assert len(metrics.read_all(out)) == 2


def test_done_is_the_latest_word_on_a_track(out):
    metrics.write_part(out, "r1", [row("a", None, "failed", error="no")])
    assert done_tracks(out, "stereo-00000000", "h").ended("a", "f") is False
    metrics.write_part(out, "r2", [row("a")])
    done = done_tracks(out, "stereo-00000000", "h")
    assert (len(done), done.ended("a", "f"), done.ended("a", "changed"), done.ended("b", "f")) == (1, True, None, None)
    assert not done_tracks(out, "stereo-11111111", "h")
    assert not done_tracks(out, "stereo-00000000", "other")


def test_a_file_of_an_older_version_lacks_columns_and_is_read(out):
    folder = out.run_metrics("old")
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"run_id": ["old"], "track_id": ["a"], "stem": ["vocals"]}), folder / "metrics.parquet")
    metrics.write_part(out, "new", [row("b", sdr=1.0)])
    table = metrics.read_all(out)
    assert table.schema.equals(SCHEMA)
    assert table.column("sdr").to_pylist() == [1.0, None]


def test_other_readers_see_one_table(out):
    import duckdb
    import pyarrow.dataset as ds

    metrics.write_part(out, "r1", [row("a", sdr=2.0)])
    metrics.write_part(out, "r2", [row("b", sdr=4.0)])
    assert ds.dataset(out.metrics, partitioning="hive", schema=SCHEMA).count_rows() == 2
    found = duckdb.sql(f"select avg(sdr) from read_parquet('{out.metrics}/**/*.parquet', union_by_name=true)")
    assert found.fetchall() == [(3.0,)]


def test_a_damaged_part_is_named(out):
    metrics.write_part(out, "r", [row("a")]).write_bytes(b"PAR1 no")
    with pytest.raises(MetricsError, match=r"part-.*cannot be read"):
        metrics.read_all(out)


def test_query_answers_over_what_stands(out):
    metrics.write_part(out, "r1", [row("a", sdr=1.0), row("b", None, "failed", error="x")])
    metrics.write_part(out, "r2", [row("b", sdr=3.0)])
    answer = query(out.root, "select stem, median(sdr) as m, count(*) as n from metrics group by stem")
    assert answer.to_pylist() == [{"stem": "vocals", "m": 2.0, "n": 2}]
    assert query(out.root, "select count(*) as n from history").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize(
    "sql",
    [
        "drop table metrics",
        "select 1; select 2",
        "copy metrics to '/tmp/unbraid-stolen.csv'",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "attach '/tmp/x.db'",
        "set enable_external_access = true",
        "install httpfs",
        "selekt",
        "select nothing from metrics",
        "select * from table_in_python",
    ],
)
def test_a_query_only_reads_the_tables_it_was_given(out, sql):
    table_in_python = pa.table({"a": [1]})  # noqa: F841 - must stay out of reach
    metrics.write_part(out, "r", [row("a")])
    with pytest.raises(MetricsError) as caught:
        query(out.root, sql)
    assert "\n" not in str(caught.value)


def test_a_folder_without_metrics_is_told(tmp_path):
    with pytest.raises(MetricsError, match="has no metrics"):
        query(tmp_path, "select 1")
