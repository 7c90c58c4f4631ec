"""What a run's rows come to, asked of its compacted file in DuckDB: memory does not grow with the run."""

from storage.files.layout import OutputLayout
from storage.files.location import local_file
from storage.results.metrics import FAILED, compacted

SCORES = ("sdr", "sdr_mean", "usdr", "si_sdr", "loudness_lufs", "activity")


def totals(out: OutputLayout, run_id: str) -> dict:
    """How many tracks the run brought to their end (`done`), how many `failed`, and the `seconds` of audio done."""
    return _asked(
        out,
        run_id,
        """
        select count(*) filter (good) as done, count(*) filter (not good) as failed,
               coalesce(sum(seconds) filter (good), 0) as seconds
        from (select track_id, bool_and(status <> $failed) as good, max(duration_s) as seconds from rows group by all)
        """,
        failed=FAILED,
    )[0]


def by_model_and_stem(out: OutputLayout, run_id: str) -> list[dict]:
    """Medians over tracks of each model's stems, and of how many times faster than the music they were made."""
    medians = ", ".join(f"median({name}) as {name}" for name in SCORES)
    return _asked(
        out,
        run_id,
        f"""
        select model_id, stem, count(*) as tracks, {medians},
               median(duration_s / seconds) filter (seconds > 0) as realtime
        from rows where stem is not null group by all order by model_id, stem
        """,
    )


def failures(out: OutputLayout, run_id: str, most: int) -> list[dict]:
    """`path` and `error` of the first failed tracks."""
    sql = "select path, error from rows where status = $failed order by path limit $most"
    return _asked(out, run_id, sql, failed=FAILED, most=most)


def first_stems(out: OutputLayout, run_id: str, most: int) -> tuple[list[dict], int]:
    """The first rows of stems that were made, and how many rows there are in all."""
    good = "from rows where status <> $failed"
    rows = _asked(
        out, run_id, f"select * {good} order by track_id, model_id, stem limit $most", failed=FAILED, most=most
    )
    return rows, _asked(out, run_id, f"select count(*) as n {good}", failed=FAILED)[0]["n"]


def _asked(out: OutputLayout, run_id: str, sql: str, **parameters: object) -> list[dict]:
    import duckdb

    with local_file(compacted(out, run_id)) as file:
        connection = duckdb.connect(config={"memory_limit": "300MB"})
        try:
            connection.read_parquet(str(file)).create_view("rows")
            return connection.sql(sql, params=parameters).to_arrow_table().to_pylist()
        finally:
            connection.close()
