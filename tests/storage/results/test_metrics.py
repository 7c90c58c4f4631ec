import dataclasses
import datetime
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.done import Target, done_tracks
from storage.results.metrics import SCHEMA, StemRow
from storage.results.query import query

ROOT = Path(__file__).resolve().parents[3]


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
    assert not out.metrics.exists()  # other programs see nothing of a run that goes on
    target = metrics.compact(out, "run-1")
    assert [p.name for p in target.parent.iterdir()] == ["metrics.parquet"]
    assert not list(out.runs.iterdir())
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
    assert len(list(out.live_metrics("r").glob("part-*"))) == 2
    assert pq.read_table(out.metrics).num_rows == 2
    assert sorted(metrics.read_all(out, columns=["track_id"]).column(0).to_pylist()) == ["a", "b"]
    metrics.compact(out, "r")
    assert len(list(out.live_metrics("r").glob("part-*"))) == 0
    assert len(metrics.read_all(out)) == 2


def test_done_follows_the_latest_separation_of_a_track(out):
    def done(model="stereo-00000000", settings="h", stems=("vocals",)):
        return done_tracks(out, Target(model, (settings,), stems))

    metrics.write_part(out, "r1", [row("a", None, "failed", error="no")])
    assert done().ended("a", "f") is False
    (out.stems / "a").mkdir(parents=True)
    (out.stems / "a" / "vocals.flac").touch()
    metrics.write_part(out, "r2", [row("a", stem_path="stems/a/vocals.flac")])
    held = done()
    assert (len(held), held.ended("a", "f"), held.ended("a", "changed"), held.ended("b", "f")) == (1, True, None, None)
    assert (held.holds("a"), held.place("a", ("b", "a")), held.taken("A")) == (True, "a", True)
    assert done(stems=("vocals", "drums")).missing("a", "f", "h") == ("drums",)
    assert done(stems=("vocals", "drums")).missing("a", "f", "other") == ()
    assert len(done("stereo-11111111")) == len(done(settings="other")) == 0
    (out.stems / "a" / "vocals.flac").unlink()
    assert (done().ended("a", "f"), done().missing("a", "f", "h")) == (None, ("vocals",))


def test_a_file_of_an_older_version_lacks_columns_and_is_read(out):
    folder = out.run_metrics("old")
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"run_id": ["old"], "track_id": ["a"], "stem": ["vocals"]}), folder / "metrics.parquet")
    metrics.write_part(out, "new", [row("b", sdr=1.0)])
    table = metrics.read_all(out)
    assert table.schema.equals(SCHEMA)
    assert table.column("sdr").to_pylist() == [1.0, None]


def readers():
    """How other programs read a folder of Parquet files: each gives its rows as dictionaries."""
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as ds

    return {
        "pandas": lambda folder: pd.read_parquet(folder).to_dict("records"),
        "polars": lambda folder: pl.read_parquet(folder).to_dicts(),
        "duckdb": lambda folder: (
            duckdb.sql(f"select * from read_parquet('{folder}/**/*.parquet')").to_arrow_table().to_pylist()
        ),
        "pyarrow": lambda folder: ds.dataset(folder, partitioning="hive").to_table().to_pylist(),
    }


@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb", "pyarrow"])
def test_other_programs_read_the_folder_as_one_table(out, reader):
    for run_id, track, sdr in (
        ("separate-20260101T000000-aaaaaa", "a", 2.0),
        ("separate-20260102T000000-bbbbbb", "b", 4.0),
    ):
        metrics.write_part(out, run_id, [row(track, sdr=sdr), row(track, "accompaniment", vocal_presence=0.5)])
        metrics.compact(out, run_id)
    metrics.write_part(out, "separate-20260103T000000-cccccc", [row("c")])  # a run that goes on
    (out.metrics / "run_id=separate-20260103T000000-cccccc").mkdir()
    table = readers()[reader](out.metrics)
    stems = sorted((str(r["run_id"]), r["track_id"], r["stem"]) for r in table)
    assert stems == [
        (run, track, stem)
        for run, track in (("separate-20260101T000000-aaaaaa", "a"), ("separate-20260102T000000-bbbbbb", "b"))
        for stem in ("accompaniment", "vocals")
    ]
    assert sorted(r["sdr"] for r in table if r["stem"] == "vocals") == [2.0, 4.0]


def test_files_and_parts_of_an_older_version_become_one_table_for_other_programs(out):
    """It wrote run_id into the files, their parts beside them, and had fewer columns."""
    folder = out.run_metrics("old")
    folder.mkdir(parents=True)
    old = pa.table({"run_id": ["old"], "track_id": ["a"], "stem": ["vocals"], "windows": pa.array([3], pa.int32())})
    pq.write_table(old, folder / "metrics.parquet")
    pq.write_table(old.set_column(1, "track_id", pa.array(["b"])), folder / "part-1.parquet")
    metrics.write_part(out, "new", [row("c")])
    metrics.compact(out, "new")
    metrics.modernise(out)
    assert [path.name for path in folder.iterdir()] == ["metrics.parquet"]
    for read in readers().values():
        assert sorted((str(r["run_id"]), r["track_id"]) for r in read(out.metrics)) == [
            ("new", "c"), ("old", "a"), ("old", "b")
        ]  # fmt: skip


def test_a_file_name_that_is_not_utf8_loses_neither_its_row_nor_others(out):
    sentence = "/songs/caf\udce9.wav is not audio"
    metrics.write_part(out, "r", [row("a", None, "failed", error=sentence), row("b")])
    assert {r["error"] for r in metrics.read_all(out).to_pylist()} == {"/songs/caf\\xe9.wav is not audio", None}


_WRITER = """
import sys
from pathlib import Path
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import StemRow

out, run_id = OutputLayout(Path(sys.argv[1])), sys.argv[2]
for batch in range(12):
    metrics.write_part(out, run_id, [
        StemRow("m", f"{batch}-{track}", "p", stem, "ok") for track in range(3) for stem in ("vocals", "accompaniment")
    ])
while True:
    metrics.compact(out, run_id)
    metrics.write_part(out, run_id, [StemRow("m", "0-0", "p", "vocals", "ok")])  # a batch that ran twice
"""


def test_other_programs_see_every_row_once_while_runs_write_compact_and_are_killed(out):
    """A reader in a loop, beside processes that write a run, compact it, and are killed at any moment."""
    import itertools
    import subprocess
    import sys
    import time

    out.metrics.mkdir(parents=True)
    reads = itertools.cycle(readers().values())
    seen = 0
    for kill in range(3):
        run_id = f"separate-{kill}"
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(out.root), run_id])
        try:
            limit = time.monotonic() + 60
            while not list(out.live_metrics(run_id).glob("part-*")) and time.monotonic() < limit:
                time.sleep(0.01)
            while True:
                for _ in range(3):
                    _every_row_once(next(reads), out)
                if metrics.compacted(out, run_id).exists() or time.monotonic() > limit:
                    break
            time.sleep(0.013 * kill)
        finally:
            writer.kill()
            writer.wait()
        seen = _every_row_once(next(reads), out)
        metrics.compact(out, run_id)
        assert _every_row_once(next(reads), out) >= seen
    assert seen >= 2 * 72


def _every_row_once(read, out):
    if not list(out.metrics.glob("*/*.parquet")):
        return 0
    keys = [(str(r["run_id"]), r["track_id"], r["stem"]) for r in read(out.metrics)]
    assert len(keys) == len(set(keys))
    runs_seen = [key[0] for key in keys]
    assert all(runs_seen.count(run_id) == 72 for run_id in set(runs_seen))
    return len(keys)


def test_a_damaged_part_is_named(out):
    metrics.write_part(out, "r", [row("a")]).write_bytes(b"PAR1 no")
    with pytest.raises(MetricsError, match=r"part-.*cannot be read"):
        metrics.read_all(out)


def test_queries_see_the_current_rows(out):
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


def at(second):
    return datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC)


def current_stems(out):
    sql = "select stem, stem_path, model_id, on_disk, status from metrics order by all"
    return [tuple(row.values()) for row in query(out.root, sql).to_pylist()]


def test_current_rows_are_the_latest_of_every_stem_and_say_whether_it_is_on_the_disk(out):
    def separated(run_id, second, stem, model="m", **values):
        path = f"stems/t1/{stem}.flac"
        metrics.write_part(
            out, run_id, [row("t1", stem, model=model, stem_path=path, finished_at=at(second), **values)]
        )

    separated("r1", 1, "vocals")
    separated("r2", 2, "accompaniment")  # only what was missing
    m = [
        ("accompaniment", "stems/t1/accompaniment.flac", "m", True, "ok"),
        ("vocals", "stems/t1/vocals.flac", "m", True, "ok"),
    ]
    assert current_stems(out) == m
    separated("r3", 3, "vocals", model="hq")
    assert current_stems(out) == [
        (*m[0][:3], False, "ok"), ("vocals", "stems/t1/vocals.flac", "hq", True, "ok"), (*m[1][:3], False, "ok")
    ]  # fmt: skip
    metrics.write_part(out, "r4", [row("t1", None, "interrupted", model="m", stem_path="stems/t1/", finished_at=at(4))])
    assert [on_disk for *_, on_disk, _ in current_stems(out)] == [False, False, False]
    metrics.write_part(out, "r5", [row("t1", None, "failed", model="m", finished_at=at(5))])
    assert current_stems(out) == [
        ("vocals", "stems/t1/vocals.flac", "hq", False, "ok"),
        (None, None, "m", False, "failed"),
    ]


def test_a_folder_without_metrics_is_a_sentence(tmp_path):
    with pytest.raises(MetricsError, match="has no metrics"):
        query(tmp_path, "select 1")


_JOINING = """
import resource, sys
from pathlib import Path
from storage.files.layout import OutputLayout
from storage.results import metrics
out = OutputLayout(Path(sys.argv[1]))
metrics.compact(out, "few")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
metrics.compact(out, "many")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_joining_many_parts_takes_little_more_memory_than_joining_few(out):
    rows = [row(f"t{number}", stem) for number in range(50) for stem in ("vocals", "accompaniment")]
    for run, parts in (("few", 100), ("many", 1500)):
        part = metrics.write_part(out, run, rows)
        for number in range(parts - 1):
            shutil.copyfile(part, part.with_name(f"part-{number}.parquet"))
    joined = subprocess.run(
        [sys.executable, "-c", _JOINING, str(out.root)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(joined.stdout) < 40_000  # KiB; with every footer kept, 0.1 MB for each part more
    assert metrics.read_all(out, "many").num_rows == len(rows)
