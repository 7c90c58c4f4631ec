"""What a run's rows add up to, by DuckDB over its compacted file: memory does not grow with the run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from storage import runs
from storage.files.layout import OutputLayout
from storage.files.location import local_file
from storage.results.metrics import FAILED, SCHEMA, compacted

SCORES = ("sdr", "sdr_mean", "usdr", "si_sdr", "predicted_sdr", "loudness_lufs", "activity")
_LEAD = "vocals"

# The cause of a failure: its class and its sentence without the track's name and without numbers.
_CAUSE = """
    regexp_replace(
        case when strpos(error, path) > 0 then trim(substr(error, strpos(error, path) + length(path)), ' :')
             else error end, '[0-9]+([.][0-9]+)?', '…', 'g')
"""

# One row per track of one model, with the scores of the stem that leads.
_TRACKS = """
    select track_id, any_value(path) as path, max(duration_s) as duration_s, sum(seconds) as seconds,
           any_value(sample_rate) as sample_rate, any_value(channels) as channels,
           max(sdr) filter (stem = $lead) as sdr, max(usdr) filter (stem = $lead) as usdr,
           max(predicted_sdr) filter (stem = $lead) as predicted_sdr,
           max(loudness_lufs) filter (stem = $lead) as loudness_lufs,
           max(activity) filter (stem = $lead) as activity, max(true_peak_db) as true_peak_db,
           any_value(error) as error, any_value(source) as source,
           list({'stem': stem, 'stem_path': stem_path} order by stem = $lead desc, stem) as stems
    from rows where status <> $failed and model_id = $model group by track_id
"""


@dataclass(frozen=True)
class Measure:
    """A column whose distribution a page shows, in `bins` equal bins between `low` and `high`."""

    column: str
    label: str
    unit: str
    low: float
    high: float
    bins: int


MEASURES = (
    Measure("sdr", "cSDR", "dB", -10, 20, 30),
    Measure("predicted_sdr", "predicted SDR", "dB", -10, 20, 30),
    Measure("loudness_lufs", "loudness", "LUFS", -60, 0, 30),
    Measure("activity", "activity", "of the time", 0, 1, 20),
)


class RunRows:
    """The rows of one run, opened for several queries. Made by `opened_run`."""

    def __init__(self, connection) -> None:
        self._connection = connection

    def ask(self, sql: str, **parameters: object) -> list[dict]:
        """The answer to a SELECT over the table `rows`.

        Args:
            sql: The statement.
            **parameters: Values of its `$name` parameters.

        Returns:
            One dict per row, by column.
        """
        return self._connection.sql(sql, params=parameters).to_arrow_table().to_pylist()

    def totals(self) -> dict:
        """How many tracks the run completed (`done`), how many `failed`, and the `seconds` of audio completed."""
        return self.ask(
            """
            select count(*) filter (good) as done, count(*) filter (not good) as failed,
                   coalesce(sum(seconds) filter (good), 0) as seconds
            from (
                select track_id, bool_and(status <> $failed) as good, max(duration_s) as seconds from rows group by all
            )
            """,
            failed=FAILED,
        )[0]

    def span(self) -> dict:
        """When work on the first track began and on the last one ended (`first`, `last`), None without rows."""
        return self.ask(
            """
            select min(finished_at - to_milliseconds(cast(coalesce(seconds, 0) * 1000 as bigint))) as first,
                   max(finished_at) as last
            from rows
            """
        )[0]

    def models(self) -> list[str]:
        """The ids of the models that have rows of stems, the one with the most rows first."""
        rows = self.ask("select model_id from rows where stem is not null group by all order by count(*) desc, 1")
        return [row["model_id"] for row in rows]

    def stems(self, model: str) -> list[str]:
        """The stems of a model, the vocals first, the others by name.

        Args:
            model: The model's id.
        """
        sql = "select distinct stem from rows where stem is not null and model_id = $model order by stem <> $lead, stem"
        return [row["stem"] for row in self.ask(sql, model=model, lead=_LEAD)]

    def by_model_and_stem(self) -> list[dict]:
        """Medians over tracks, one dict per model and stem.

        Returns:
            `model_id`, `stem`, `tracks`, the medians of `SCORES`, and that of `realtime`: seconds of audio per second
            of work. A median is None where no track has the value.
        """
        medians = ", ".join(f"median({name}) as {name}" for name in SCORES)
        return self.ask(
            f"""
            select model_id, stem, count(*) as tracks, {medians},
                   median(duration_s / seconds) filter (seconds > 0) as realtime
            from rows where stem is not null group by all order by model_id, stem
            """
        )

    def distribution(self, measure: Measure, model: str) -> dict[str, dict]:
        """The distribution of a measure over tracks, by stem.

        Args:
            measure: The measure; values beyond its range count in the outermost bins.
            model: The model's id.

        Returns:
            Per stem that has values: `counts` (tracks per bin, `measure.bins` of them) and `quantiles` (first decile,
            median and last decile, in the measure's unit).
        """
        step = (measure.high - measure.low) / measure.bins
        rows = self.ask(
            f"""
            with binned as (
                select stem, {measure.column} as value,
                    cast(least(greatest(floor(({measure.column} - $low) / $step), 0), $last) as integer) as bin
                from rows where {measure.column} is not null and model_id = $model
            ), totals as (
                select stem, quantile_cont(value, [0.1, 0.5, 0.9]) as quantiles from binned group by stem
            )
            select stem, bin, count(*) as n, any_value(quantiles) as quantiles
            from binned join totals using (stem) group by stem, bin order by stem, bin
            """,
            low=measure.low, step=step, last=measure.bins - 1, model=model,
        )  # fmt: skip
        out: dict[str, dict] = {}
        for row in rows:
            entry = out.setdefault(
                row["stem"], {"counts": [0] * measure.bins, "quantiles": tuple(row["quantiles"])}
            )  # fmt: skip
            entry["counts"][row["bin"]] = row["n"]
        return out

    def ranking(self, model: str) -> str | None:
        """The column by which a model's tracks are ranked: cSDR, else predicted SDR, else activity.

        Args:
            model: The model's id.

        Returns:
            `sdr`, `predicted_sdr` or `activity`; None where no row has any of them.
        """
        columns = ("sdr", "predicted_sdr", "activity")
        counts = ", ".join(f"count({name}) as {name}" for name in columns)
        (row,) = self.ask(f"select {counts} from rows where model_id = $model", model=model)
        return next((name for name in columns if row[name]), None)

    def picks(self, model: str, lead: str, column: str, each: int) -> list[dict]:
        """Example tracks: the worst, middle and best by a column, the lowest value first.

        Args:
            model: The model's id.
            lead: The stem whose scores represent a track.
            column: The column to rank by, as `ranking` gives it.
            each: How many of each at most; fewer where there are fewer than three times as many tracks.

        Returns:
            One dict per track: the columns of `_TRACKS`, and `pick`: worst, median or best.
        """
        return self.ask(
            f"""
            with tracks as ({_TRACKS}), ranked as (
                select *, row_number() over (order by {column}, track_id) as place, count(*) over () as n
                from tracks where {column} is not null
            ), sized as (
                select *, least($each, greatest(1, n // 3)) as most from ranked
            )
            select *, case when place <= most then 'worst' when place > n - most then 'best' else 'median' end as pick
            from sized where place <= most or place > n - most
                or (place > (n - most) // 2 and place <= (n - most) // 2 + most) order by place
            """,
            model=model, lead=lead, failed=FAILED, each=each,
        )  # fmt: skip

    def tracks(self, model: str, lead: str, column: str | None, most: int) -> list[dict]:
        """The first tracks of a model, the worst first where there is a column to rank by, else by path.

        Args:
            model: The model's id.
            lead: The stem whose scores represent a track.
            column: The column to rank by, as `ranking` gives it.
            most: How many tracks at most.

        Returns:
            One dict per track: the columns of `_TRACKS` without `stems`.
        """
        order = f"{column} nulls last, path" if column else "path"
        return self.ask(
            f"select * exclude (stems) from ({_TRACKS}) order by {order} limit $most",
            model=model, lead=lead, failed=FAILED, most=most,
        )  # fmt: skip

    def failures(self, most: int) -> list[dict]:
        """`path` and `error` of the first failed tracks, by path.

        Args:
            most: How many at most.
        """
        sql = "select path, error from rows where status = $failed order by path limit $most"
        return self.ask(sql, failed=FAILED, most=most)

    def failure_causes(self, most: int, examples: int) -> list[dict]:
        """Failed tracks by cause, the most frequent first.

        Args:
            most: How many causes at most.
            examples: How many tracks of each cause at most.

        Returns:
            One dict per cause: `cause`, `error_class`, `tracks` (how many) and `examples` (`path` and `error` each).
        """
        return self.ask(
            f"""
            with failed as (select path, error_class, error, {_CAUSE} as cause from rows where status = $failed)
            select error_class, cause, count(*) as tracks,
                   list({{'path': path, 'error': error}} order by path)[1:$examples] as examples
            from failed group by all order by tracks desc, cause limit $most
            """,
            failed=FAILED, most=most, examples=examples,
        )  # fmt: skip


@contextlib.contextmanager
def opened_run(out: OutputLayout, run_id: str) -> Iterator[RunRows]:
    """The compacted rows of a run, for as long as the body lasts.

    Args:
        out: The output's layout.
        run_id: The run, which must be compacted; see `finished_runs`.

    Raises:
        duckdb.Error: The file is missing or is not Parquet.
        StorageError: The output is an object store, from which the file cannot be fetched.
    """
    import duckdb

    with local_file(compacted(out, run_id)) as file:
        connection = duckdb.connect(config={"memory_limit": "300MB"})
        connection.execute("set enable_progress_bar = false")  # it would be drawn into the output
        try:
            written = connection.read_parquet(str(file))
            # Columns that were added after the file was written are null.
            missing = ", ".join(f"null::double as {name}" if name in SCORES else f"null::varchar as {name}"
                                for name in SCHEMA.names if name not in written.columns)  # fmt: skip
            written.project(f"*, {missing}" if missing else "*").filter("status <> 'interrupted'").create_view("rows")
            yield RunRows(connection)
        finally:
            connection.close()


def totals(out: OutputLayout, run_id: str) -> dict:
    """`RunRows.totals` of a run.

    Args:
        out: The output's layout.
        run_id: The run, which must be compacted.
    """
    with opened_run(out, run_id) as rows:
        return rows.totals()


def by_model_and_stem(out: OutputLayout, run_id: str) -> list[dict]:
    """`RunRows.by_model_and_stem` of a run.

    Args:
        out: The output's layout.
        run_id: The run, which must be compacted.
    """
    with opened_run(out, run_id) as rows:
        return rows.by_model_and_stem()


def failures(out: OutputLayout, run_id: str, most: int) -> list[dict]:
    """`RunRows.failures` of a run.

    Args:
        out: The output's layout.
        run_id: The run, which must be compacted.
        most: How many tracks at most.
    """
    with opened_run(out, run_id) as rows:
        return rows.failures(most)


def finished_runs(out: OutputLayout) -> list[str]:
    """The ids of the runs that have compacted rows, in the order they began.

    Args:
        out: The output's layout.
    """
    names = (path.stem for path in out.runs.glob("*.json"))
    return sorted((name for name in names if compacted(out, name).exists()), key=_began)


def earlier_runs(out: OutputLayout, run_id: str) -> list[str]:
    """The runs of the same kind before this one that have compacted rows, the latest first.

    Args:
        out: The output's layout.
        run_id: This run, whose id begins with its kind and its time: separate-20260131T235959-1a2b3c.
    """
    names = reversed(finished_runs(out))
    return [name for name in names if _kind(name) == _kind(run_id) and _began(name) < _began(run_id)]


def previous_run(out: OutputLayout, run_id: str) -> str | None:
    """The latest run of the same kind before this one that has compacted rows, None where this is the first.

    Args:
        out: The output's layout.
        run_id: This run.
    """
    return next(iter(earlier_runs(out, run_id)), None)


def run_record(out: OutputLayout, run_id: str) -> dict:
    """The record of a run, with a value for everything that a page shows.

    Args:
        out: The output's layout.
        run_id: The run.

    Raises:
        MetricsError: There is no record, or it cannot be read.
    """
    return {"parameters": {}, "versions": {}, "started_at": None, **runs.read(out, run_id)}


def _kind(run_id: str) -> str:
    return run_id.partition("-")[0]


def _began(run_id: str) -> str:
    return run_id.partition("-")[2]
