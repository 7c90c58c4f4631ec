"""A run folder's tracks as one table to search: one row per track and model, answered in milliseconds.

The current rows are gathered once into a DuckDB file in a scratch folder, which is then opened read-only and without
access to anything else.
"""

import contextlib
import datetime
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.files.location import scratch_folder
from storage.results import metrics, parquet, windows
from storage.results.query import register_metrics
from storage.results.rows import present_tables, read_rows

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

PAGE = 50
_SECONDS = 10.0  # after which a query is given up
_NUMBERS = ("BIGINT", "INTEGER", "DOUBLE", "FLOAT", "HUGEINT")
OPERATORS = {"=": "=", "≠": "<>", "<": "<", "≤": "<=", ">": ">", "≥": ">="}
CONTAINS = "contains"

_TRACKS = """
create table tracks as
select any_value(path) as path, track_id, model_id, any_value(run_id) as run_id,
    case when bool_or(status = 'failed') then 'failed' else any_value(status) end as status,
    max(duration_s) as duration_s,
    max(sdr) filter (stem = 'vocals') as sdr, max(usdr) filter (stem = 'vocals') as usdr,
    max(predicted_sdr) filter (stem = 'vocals') as predicted_sdr,
    max(loudness_lufs) filter (stem = 'vocals') as loudness_lufs,
    max(activity) filter (stem = 'vocals') as activity,
    max(true_peak_db) as true_peak_db, any_value(sample_rate) as sample_rate, any_value(channels) as channels,
    max(seconds) as seconds, max(finished_at) as finished_at, any_value(error_class) as error_class,
    any_value(error) as error, any_value(source) as source,
    string_agg(stem, ', ' order by stem) as stems,
    bool_or(on_disk) as on_disk,
    lower(any_value(path)) as lower_path
from metrics group by track_id, model_id order by path, model_id
"""
_WITH_ANALYSES = """
create table analysed as
select tracks.* exclude (lower_path), a.tempo, a.tonic, a.minor, tracks.lower_path from tracks left join (
    select * from analyses where error is null
    qualify row_number() over (partition by track_id order by finished_at desc) = 1
) a using (track_id) order by path, model_id
"""


@dataclass(frozen=True)
class Filter:
    """A condition on one column: an operator of `OPERATORS` or `CONTAINS`, and the value as the user typed it."""

    column: str
    operator: str
    value: str


@dataclass(frozen=True)
class Search:
    """What a page of the catalog shows.

    Attributes:
        text: Part of a path, in upper or lower case.
        filters: Conditions that all hold.
        condition: A condition in SQL, as after `where`; "" for none.
        order: The column to sort by.
        descending: The largest first.
        page: The page, from 1.
    """

    text: str = ""
    filters: tuple[Filter, ...] = ()
    condition: str = ""
    order: str = "path"
    descending: bool = False
    page: int = 1


@dataclass(frozen=True)
class Answer:
    """Rows of a page, as one dict per row by column, and how many there are in all."""

    rows: list[dict]
    total: int


class TrackTable:
    """The tracks of a run folder. `close` deletes its scratch file."""

    def __init__(self, out: OutputLayout) -> None:
        """Gather the current rows.

        Args:
            out: The run folder.

        Raises:
            MetricsError: It has no metrics, or one of its files cannot be read.
        """
        import duckdb

        self.out = out
        self.files = metrics.row_files(out)
        if not self.files:
            raise MetricsError(f"{out.root} has no metrics; separate or evaluate into it first")
        self._stack = contextlib.ExitStack()
        database = self._stack.enter_context(scratch_folder()) / "tracks.duckdb"
        try:
            with duckdb.connect(str(database), config={"memory_limit": "1GB"}) as building:
                register_metrics(building, out)
                building.execute(_TRACKS)
                if "analyses" in present_tables(out):
                    building.register("analyses", read_rows(out, "analyses"))
                    building.execute(_WITH_ANALYSES)
                    building.execute("drop table tracks")
                    building.execute("alter table analysed rename to tracks")
                building.execute("drop view metrics")
            self._connection = duckdb.connect(str(database), read_only=True, config={"memory_limit": "1GB"})
            self._connection.execute("set enable_external_access = false")
            self._connection.execute("set lock_configuration = true")
        except duckdb.Error as error:
            self._stack.close()
            raise MetricsError(f"the metrics of {out.root} cannot be read ({_first_line(error)})") from error
        described = self._connection.sql("describe tracks").fetchall()
        self.columns: dict[str, str] = {row[0]: row[1] for row in described if row[0] != "lower_path"}
        self.count: int = self._connection.sql("select count(*) from tracks").fetchall()[0][0]
        self.made = datetime.datetime.now(datetime.UTC)

    def close(self) -> None:
        """Forget the table and delete its file."""
        self._connection.close()
        self._stack.close()

    def search(self, search: Search) -> Answer:
        """A page of tracks.

        Args:
            search: Conditions, order and page; a page beyond the last gives the last, an unknown order that of paths.

        Returns:
            Up to `PAGE` rows, and how many rows fulfil the conditions.

        Raises:
            MetricsError: A filter or the condition makes no sense, or the query takes longer than ten seconds.
        """
        where, parameters = self._where(search)
        total = self.count
        if where:
            total = self._ask(f"select count(*) as n from tracks {where}", parameters)[0]["n"]
        begin = (min(max(1, search.page), max(1, -(-total // PAGE))) - 1) * PAGE
        size = min(PAGE, total - begin)
        # The table is sorted by path. A page in the second half is counted from the end: fewer rows are kept.
        order = search.order if search.order in self.columns and search.order != "path" else "rowid"
        backwards = begin > total // 2
        falling = search.descending != backwards
        skipped = total - begin - size if backwards else begin
        places = self._ask(
            f"select rowid as place from tracks {where} order by {order} {'desc' if falling else 'asc'} "
            f"nulls {'first' if backwards else 'last'}, rowid {'desc' if backwards else 'asc'} "
            f"limit {max(0, size)} offset {skipped}",
            parameters,
        )
        numbers = [row["place"] for row in (reversed(places) if backwards else places)]
        names = ", ".join(self.columns)
        taken = ", ".join(map(str, numbers)) or "-1"
        rows = {
            row.pop("place"): row
            for row in self._ask(f"select rowid as place, {names} from tracks where rowid in ({taken})", {})
        }
        return Answer([rows[number] for number in numbers], total)

    def select(self, sql: str, most: int = 1000) -> tuple[list[str], list[tuple]]:
        """Column names and first rows of one SELECT over `tracks`.

        Args:
            sql: The statement, as the user typed it.
            most: How many rows at most.

        Returns:
            The names, empty where there are no rows, and the rows.

        Raises:
            MetricsError: The SQL is wrong (in DuckDB's words), is no SELECT, or takes longer than ten seconds.
        """
        rows = self._ask(f"select * from (\n{sql.strip().rstrip(';')}\n) limit {most}", {})
        names = list(rows[0]) if rows else []
        return names, [tuple(row.values()) for row in rows]

    def track(self, track_id: str, model_id: str) -> dict | None:
        """The row of a track and model.

        Args:
            track_id: The track.
            model_id: The model.

        Returns:
            The row by column, None where there is none.
        """
        names = ", ".join(self.columns)
        rows = self._ask(
            f"select {names} from tracks where track_id = $track and model_id = $model",
            {"track": track_id, "model": model_id},
        )
        return rows[0] if rows else None

    def history(self, track_id: str) -> list[dict]:
        """All rows of a track in the metrics, of all runs and models, the latest first.

        Args:
            track_id: The track.

        Returns:
            One dict per row with the columns of `metrics.SCHEMA`.

        Raises:
            MetricsError: The metrics cannot be read.
        """
        rows = _of_track(metrics.dataset(self.out), track_id)
        rows.sort(key=lambda row: (row["model_id"], row["stem"] or ""))
        return sorted(rows, key=lambda row: row["finished_at"], reverse=True)

    def sources(self, track_ids: list[str]) -> list[tuple[str, str | None]]:
        """The files or URLs that tracks were read from; of several models the latest row counts.

        Args:
            track_ids: The tracks.

        Returns:
            (track id, source, None where unknown) in the order given, without the tracks that have no row.
        """
        rows = self._ask(
            "select track_id, arg_max(source, finished_at) as source from tracks "
            "where list_contains($ids, track_id) group by track_id",
            {"ids": track_ids},
        )
        known = {row["track_id"]: row["source"] for row in rows}
        return [(track_id, known[track_id]) for track_id in track_ids if track_id in known]

    def partners(self, track_id: str, most: int = 12) -> list[dict]:
        """Tracks of the nearest tempo (octaves apart count as near) and key.

        Args:
            track_id: The track to find partners for.
            most: How many at most.

        Returns:
            One dict per partner, the nearest first: columns of its row, `apart` (distance of tempi in octaves, modulo
            octaves), `semitones` (distance of tonics) and `same_mode`. Empty before `mashup --find` has run.
        """
        if "tempo" not in self.columns:
            return []
        return self._ask(
            """
            with me as (select * from tracks where track_id = $track and tempo > 0 limit 1), others as (
                select t.path, t.track_id, t.model_id, t.tempo, t.tonic, t.minor, t.predicted_sdr,
                    abs(log2(t.tempo / me.tempo) - round(log2(t.tempo / me.tempo))) as apart,
                    (t.tonic - me.tonic + 12) % 12 as up, t.minor = me.minor as same_mode
                from tracks t, me where t.track_id <> me.track_id and t.tempo > 0
            )
            select *, least(up, 12 - up) as semitones from others where apart <= 0.2
            order by apart * 10 + least(up, 12 - up) / 6.0 + case when same_mode then 0 else 0.5 end, path
            limit $most
            """,
            {"track": track_id, "most": most},
        )

    def changed(self) -> bool:
        """Have rows been written since the table was made?"""
        return metrics.row_files(self.out) != self.files

    def _where(self, search: Search) -> tuple[str, dict]:
        conditions: list[str] = []
        parameters: dict[str, object] = {}
        if search.text.strip():
            conditions.append("contains(lower_path, $text)")
            parameters["text"] = search.text.strip().lower()
        for index, one in enumerate(search.filters):
            kind = self.columns.get(one.column)
            if kind is None:
                raise MetricsError(f"there is no column {one.column}; columns are {', '.join(self.columns)}")
            name = f"value{index}"
            if one.operator == CONTAINS:
                conditions.append(f"contains(lower({one.column}::varchar), ${name})")
                parameters[name] = one.value.lower()
                continue
            if one.operator not in OPERATORS:
                raise MetricsError(f"{one.operator} is not an operator; use {', '.join([*OPERATORS, CONTAINS])}")
            conditions.append(f"{one.column} {OPERATORS[one.operator]} ${name}")
            parameters[name] = _typed(one, kind)
        if search.condition.strip():
            conditions.append(f"(\n{search.condition}\n)")
        return (f"where {' and '.join(conditions)}" if conditions else ""), parameters

    def _ask(self, sql: str, parameters: dict) -> list[dict]:
        """The answer to one SELECT, interrupted after ten seconds."""
        import duckdb

        cursor = self._connection.cursor()
        late = threading.Timer(_SECONDS, cursor.interrupt)
        late.daemon = True
        late.start()
        try:
            statements = cursor.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise MetricsError("give one condition or one SELECT statement; the table is for reading")
            return cursor.sql(sql, params=parameters).to_arrow_table().to_pylist()
        except duckdb.InterruptException as error:
            raise MetricsError(f"the query took longer than {_SECONDS:.0f} s and was stopped") from error
        except duckdb.Error as error:
            raise MetricsError(f"the query does not work: {_first_line(error)}") from error
        finally:
            late.cancel()
            cursor.close()


def _typed(one: Filter, kind: str) -> object:
    """The value of a filter in the type of its column. Raises MetricsError where it cannot be converted."""
    try:
        if kind in _NUMBERS:
            return float(one.value)
        if kind == "BOOLEAN":
            return one.value.strip().lower() in ("true", "yes", "1")
        if kind.startswith("TIMESTAMP"):
            moment = datetime.datetime.fromisoformat(one.value.strip())
            return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except ValueError as error:
        what = "date such as 2026-01-31" if kind.startswith("TIMESTAMP") else "number"
        raise MetricsError(f"{one.value} is not a {what}; {one.column} needs one") from error
    return one.value


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__


def window_scores(out: OutputLayout, run_id: str, track_id: str, model_id: str) -> list[dict]:
    """The scores of a track's windows in a run, sorted by stem and window.

    Args:
        out: The output's layout.
        run_id: The run.
        track_id: The track.
        model_id: The model whose stems were scored.

    Returns:
        One dict per window with the columns of `windows.SCHEMA`; empty where windows were not kept.

    Raises:
        MetricsError: The windows cannot be read.
    """
    dataset = parquet.dataset(windows.window_files(out, run_id), windows.SCHEMA)
    rows = [row for row in _of_track(dataset, track_id) if row["model_id"] == model_id]
    return sorted(rows, key=lambda row: (row["stem"], row["window"]))


def _of_track(dataset: "Dataset", track_id: str) -> list[dict]:
    """The rows of one track: Arrow reads only the row groups that can hold it, where DuckDB would scan them all."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return dataset.to_table(filter=pc.field("track_id") == track_id).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise MetricsError(f"the metrics cannot be read ({error})") from error
