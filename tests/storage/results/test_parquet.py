import psutil
import pyarrow as pa

from storage.results import metrics, parquet
from storage.results.parquet import RunFile


def test_reading_many_parts_does_not_keep_their_footers(tmp_path):
    """Arrow keeps 0.1 MB per file unless told otherwise: 2 GB at the end of a run over a million tracks."""
    columns = parquet.stored(metrics.SCHEMA)
    rows = pa.Table.from_arrays([pa.nulls(2, field.type) for field in columns], schema=columns)
    parts = [
        RunFile(parquet.write_file(rows, tmp_path / f"part-{number}.parquet", tmp_path), "run") for number in range(500)
    ]

    def count(files):
        ordered = parquet.select(parquet.dataset(files, metrics.SCHEMA), "select * from parts order by track_id")
        return sum(len(batch) for batch in ordered)

    assert count(parts[:5]) == 10  # what is imported and allocated once
    before = psutil.Process().memory_info().rss
    kept = parquet.dataset(parts, metrics.SCHEMA)
    assert sum(len(batch) for batch in parquet.select(kept, "select * from parts order by track_id")) == 1000
    assert psutil.Process().memory_info().rss - before < 500 * 40_000
