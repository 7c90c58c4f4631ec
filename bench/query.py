"""Measures what rows cost: seconds and memory of queries of a run folder, and of planning a run over it.

    python bench/query.py [--rows 10000000] [--runs 10] [--only planning]

Each size is written as --runs runs over partly the same tracks, so that `metrics` has to pick the latest row of each.
`planning` is what `unbraid separate` does with the rows before it starts (`storage.results.done.done_tracks`): it finds
out which tracks are done; their stems are not there, so none is. Each measurement runs in a separate process, whose
peak memory is printed beside its seconds; the smallest size shows what the libraries take by themselves.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from storage.files.layout import OutputLayout
from storage.results import metrics, parquet

QUERIES = {
    "count, pushed down": "select count(*) from history where usdr > 14",
    "median per stem": "select stem, approx_quantile(usdr, 0.5) from history group by stem",
    "one track": "select stem, usdr from history where track_id = 'track-00000007'",
    "current rows of one track": "select stem, usdr, on_disk from metrics where track_id = 'track-00000007'",
    "all current rows": "select count(*), avg(usdr) from metrics",
}
PLANNING = "planning"
_QUERY = """
from storage.results.query import query
query(Path({out!r}), {sql!r})
"""
_PLANNING = """
from storage.files.layout import OutputLayout
from storage.results.done import Target, done_tracks
target = Target("stereo-00000000", ("0123456789ab",), ("accompaniment", "vocals"))
done = done_tracks(OutputLayout(Path({out!r})), target)
assert done.holds("track-00000007")
"""
_MEASURED = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
began = time.perf_counter()
{code}
seconds = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"{{seconds:6.1f}} s {{used.ru_utime + used.ru_stime:6.1f}} CPU s {{used.ru_maxrss / 1e3:6.0f}} MB")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--only", help="Measure only this.", choices=[*QUERIES, PLANNING])
    arguments = parser.parse_args()
    measurements = {name: (_QUERY, sql) for name, sql in QUERIES.items()} | {PLANNING: (_PLANNING, "")}
    if arguments.only:
        measurements = {arguments.only: measurements[arguments.only]}
    for rows in (arguments.rows // 100, arguments.rows // 10, arguments.rows):
        with tempfile.TemporaryDirectory(prefix="unbraid-bench-query-") as folder:
            out = OutputLayout(Path(folder))
            for run in range(arguments.runs):
                make_run(out, run, rows // arguments.runs)
            for name, (code, sql) in measurements.items():
                root = str(Path(__file__).resolve().parent.parent)
                code = _MEASURED.format(root=root, code=code.format(out=folder, sql=sql))
                answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
                print(f"{rows:>10} rows, {name:<26} {answer.stdout.strip() or answer.stderr[-300:]}", flush=True)


def make_run(out: OutputLayout, run: int, rows: int) -> None:
    """Write one compacted run: two stems per track, half of its tracks those of the previous run.

    Args:
        out: The run folder.
        run: Its number from 0, which decides its day, its tracks and its scores.
        rows: How many rows it has.
    """
    run_id = f"separate-202601{run + 1:02}T000000-{run:06x}"
    schema, generator = metrics.SCHEMA, np.random.default_rng(run)

    def batches():
        for start in range(0, rows, 50_000):
            n = min(50_000, rows - start)
            numbers = (start + np.arange(n)) // 2 + run * rows // 4
            stems = np.array(["accompaniment", "vocals"])[np.arange(n) % 2]
            ids = pa.array([f"track-{number:08}" for number in numbers])
            constant = {
                "model_id": "stereo-00000000",
                "status": "ok",
                "settings_hash": "0123456789ab",
                "format": "flac",
            }
            columns = {name: pa.array([value] * n) for name, value in constant.items()}
            columns |= {"track_id": ids, "path": ids, "stem": pa.array(stems), "source_fingerprint": ids, "source": ids}
            paths = [f"stems/{track}/{stem}.flac" for track, stem in zip(ids.to_pylist(), stems, strict=True)]
            columns |= {"stem_path": pa.array(paths), "usdr": pa.array(generator.normal(8, 3, n))}
            columns["finished_at"] = pa.array(
                np.full(n, 1_767_225_600_000 + run * 86_400_000), pa.timestamp("ms", "UTC")
            )
            yield pa.RecordBatch.from_arrays(
                [columns.get(field.name, pa.nulls(n, field.type)).cast(field.type) for field in schema], schema=schema
            )

    parquet.write_rows(batches(), schema, metrics.compacted(out, run_id), out.staging, {})


if __name__ == "__main__":
    main()
