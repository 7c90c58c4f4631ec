"""A run on one page: what ran, how well, what failed and why, compared with an earlier run, with sound."""

import contextlib
import dataclasses
import datetime
from itertools import zip_longest
from pathlib import Path

from storage.errors import MetricsError
from storage.files.atomic import write_bytes
from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results.metrics import compacted
from storage.results.predictions import catalog_predictions, run_drift
from storage.results.summary import (
    MEASURES,
    RunRows,
    finished_runs,
    opened_run,
    previous_run,
    run_record,
)
from tasks.pages.charts import Histogram, histogram
from tasks.pages.kept import kept_players
from tasks.pages.players import Player, excerpt_player, rehearse
from tasks.pages.render import clock, compiled, number, render, share

_EACH = 3  # of the worst, middle and best tracks can be played
_LANES = 4  # stems of one player
_TRACKS = 300
_CAUSES, _EXAMPLES = 30, 8
_MOST_PLAYER_BYTES = 3_600_000  # a page stays below 5 MB, whatever the catalog
_RANKED_BY = {"sdr": "cSDR", "predicted_sdr": "predicted SDR", "activity": "activity"}
_LABELS = {"worst": "least active", "median": "middle", "best": "most active"}
_VERSIONS = ("unbraid", "torch", "prefect", "dask", "zarr", "numpy")


def write_report(
    out: OutputLayout, run_id: str, compare: tuple[str, ...] | None = None, *, drift: str | None = None
) -> Path:
    """Write OUT/reports/<run>.html from the run's rows and record.

    Args:
        out: The run folder.
        run_id: The run, whose rows must be compacted.
        compare: Runs to show beside it; the previous one of the same kind where None.
        drift: The run's `run_drift` where it is known already, "" for none; read from the rows where None.

    Returns:
        The page's path.

    Raises:
        MetricsError: The run has no record, or one to compare with has no rows.
    """
    if compare is None:
        before = previous_run(out, run_id)
        compare = (before,) if before else ()
    drift = run_drift(out, run_id) if drift is None else drift
    page = render("report.html", **run_context(out, run_id, compare), drift=drift)
    write_bytes(out.report(run_id), page.encode(), durable=False)
    return out.report(run_id)


def drop_unheard_players(out: OutputLayout, run_id: str) -> None:
    """Delete the excerpts that an evaluation kept of tracks that its report does not let people hear.

    Args:
        out: The run folder.
        run_id: The evaluation, whose rows must be compacted.

    Raises:
        MetricsError: The run has no record.
    """
    record = run_record(out, run_id)
    with opened_run(out, run_id) as rows:
        picks = _picks(rows, _model(rows, record))
    heard = {out.player(run_id, pick["track_id"]).name for pick in picks}
    with contextlib.suppress(OSError):  # then they take some space
        for file in list(out.players(run_id).glob("*.json")):
            if file.name not in heard:
                file.unlink(missing_ok=True)


def prepare_report() -> None:
    """Import, compile and compute what `write_report` needs, ahead of time."""
    for template in ("report.html", "base.html", "macros.html"):
        compiled(template)
    rehearse()


def latest_run(out: OutputLayout) -> str:
    """The last run with compacted rows.

    Args:
        out: The run folder.

    Returns:
        The run's id.

    Raises:
        MetricsError: There is none.
    """
    names = finished_runs(out)
    if not names:
        raise MetricsError(f"{out.root} has no finished run; separate or evaluate into it first")
    return names[-1]


def run_context(out: OutputLayout, run_id: str, compare: tuple[str, ...]) -> dict:
    """Everything that the template of a run's report shows, but for its `drift`.

    Args:
        out: The run folder.
        run_id: The run.
        compare: Runs to show beside it; the first gives the outlines in the histograms.

    Returns:
        The template's values by name.

    Raises:
        MetricsError: A run has no record or no compacted rows.
    """
    record = run_record(out, run_id)
    for other in (run_id, *compare):
        if not compacted(out, other).exists():
            raise MetricsError(
                f"{out.root} has no rows of the run {other}; its runs are {', '.join(finished_runs(out))}"
            )
    with opened_run(out, run_id) as rows:
        totals = rows.totals()
        model = _model(rows, record)
        stems = rows.stems(model) if model else []
        column = rows.ranking(model) if model else None
        lead = stems[0] if stems else "vocals"
        picks = _picks(rows, model)
        context = {
            "groups": sorted(rows.by_model_and_stem(), key=lambda group: _standing(group, model, lead)),
            "tracks": rows.tracks(model, lead, column, _TRACKS) if model else [],
            "causes": rows.failure_causes(_CAUSES, _EXAMPLES) if totals["failed"] else [],
            "histograms": _histograms(out, rows, model, stems, compare) if model else [],
        }
        span = rows.span()
    elapsed = None
    if record["started_at"]:
        began, ended = _times(record)
        elapsed = (ended - began).total_seconds() or None
    return {
        **context,
        "run_id": run_id,
        "record": record,
        "model": model,
        "lead": lead,
        "ranked_by": _RANKED_BY.get(column or ""),
        "totals": totals,
        "skipped": _skipped(record, totals),
        "elapsed": elapsed,
        "realtime": totals["seconds"] / elapsed if elapsed and totals["seconds"] else None,
        "stages": _stages(record, span),
        "facts": _facts(record),
        "versions": [(name, record["versions"][name]) for name in _VERSIONS if record["versions"].get(name)],
        "catalog": _catalog(out),
        "compare": [_compared(out, other, model) for other in compare],
        "players": _players(out, run_id, picks, column, lead),
        "shown": _TRACKS,
    }


def _model(rows: RunRows, record: dict) -> str | None:
    """The model the run is about; the others are floors, ceilings and other systems."""
    models = rows.models()
    asked_for = record["parameters"].get("model_id")
    return asked_for if asked_for in models else (models[0] if models else None)


def _standing(group: dict, model: str | None, lead: str) -> tuple:
    """Sort key of a row of medians: the run's model first, others after it; of each, the leading stem first."""
    name = group["model_id"]
    return name != model, ":" in name, name, group["stem"] != lead, group["stem"]


def _histograms(out: OutputLayout, rows: RunRows, model: str, stems: list[str], compare: tuple) -> list[Histogram]:
    charts = []
    with opened_run(out, compare[0]) if compare else contextlib.nullcontext() as earlier:
        before_model = _model(earlier, run_record(out, compare[0])) if earlier else None
        for measure in MEASURES:
            now = rows.distribution(measure, model)
            before = earlier.distribution(measure, before_model) if earlier and before_model else {}
            for stem in stems:
                if stem in now:
                    old = before.get(stem)
                    charts.append(
                        histogram(
                            measure.label, measure.unit, measure.low, measure.high, now[stem]["counts"],
                            old["counts"] if old else None, quantiles=now[stem]["quantiles"],
                            median_before=old["quantiles"][1] if old else None, name=stem,
                        )
                    )  # fmt: skip
    return charts


def _catalog(out: OutputLayout) -> dict | None:
    """Predictions over all stems in the output, with their histogram; None where there are none."""
    predictions = catalog_predictions(out)
    if predictions is None:
        return None
    measure = next(measure for measure in MEASURES if measure.column == "predicted_sdr")
    chart = histogram(
        measure.label, measure.unit, measure.low, measure.high, predictions.counts,
        quantiles=predictions.quantiles, name=predictions.stem,
    )  # fmt: skip
    return {"predictions": predictions, "chart": chart}


def _compared(out: OutputLayout, run_id: str, model: str | None) -> dict:
    """A run to compare with: its record and the medians of its model's stems."""
    record = run_record(out, run_id)
    with opened_run(out, run_id) as rows:
        model_id = _model(rows, record)
        groups = [group for group in rows.by_model_and_stem() if group["model_id"] == model_id]
        return {"run_id": run_id, "record": record, "model": model_id, "totals": rows.totals(), "groups": groups}


def _picks(rows: RunRows, model: str | None) -> list[dict]:
    """The tracks of a model that can be heard, the lowest in the ranking first; none where there is no ranking."""
    column = rows.ranking(model) if model else None
    if model is None or column is None:
        return []
    return rows.picks(model, next(iter(rows.stems(model)), "vocals"), column, _EACH)


def _players(out: OutputLayout, run_id: str, picks: list[dict], column: str | None, lead: str) -> list[Player]:
    """Players of the picked tracks, as many as the page can hold: where not all, some of each kind."""
    players: dict[int, Player] = {}
    size = 0
    for index in _in_turn([pick["pick"] for pick in picks]):
        made = _player(out, run_id, picks[index])
        if made is None:
            continue
        size += made.size
        if size > _MOST_PLAYER_BYTES:
            break
        kind = picks[index]["pick"]
        label = _LABELS[kind] if column == "activity" else kind
        players[index] = dataclasses.replace(made, label=label, facts=_track_facts(picks[index], column, lead))
    return [players[index] for index in sorted(players)]


def _in_turn(kinds: list[str]) -> list[int]:
    """Indexes of picks, one kind after the other: first the very worst, the one in the middle and the very best.

    Args:
        kinds: Of each pick whether it is worst, median or best, in the order of the ranking.
    """
    places = {kind: [index for index, other in enumerate(kinds) if other == kind] for kind in dict.fromkeys(kinds)}
    if "median" in places:
        centre = sum(places["median"]) / len(places["median"])
        places["median"].sort(key=lambda index: abs(index - centre))
    places.get("best", []).reverse()
    return [index for turn in zip_longest(*places.values()) for index in turn if index is not None]


def _player(out: OutputLayout, run_id: str, pick: dict) -> Player | None:
    """A player of a track's stems, or of what an evaluation kept of them; None where there is nothing to hear."""
    stems = {stem["stem"]: location(out.root) / stem["stem_path"] for stem in pick["stems"] if stem["stem_path"]}
    if stems:
        return excerpt_player(pick["path"], dict(list(stems.items())[:_LANES]), pick["source"])
    return next(iter(kept_players(out.player(run_id, pick["track_id"]))), None)


def _track_facts(track: dict, column: str | None, lead: str) -> list[tuple[str, str]]:
    facts = [
        ("cSDR", number(track["sdr"], 1, "dB"), track["sdr"]),
        ("predicted SDR", number(track["predicted_sdr"], 1, "dB"), track["predicted_sdr"]),
        ("loudness", number(track["loudness_lufs"], 1, "LUFS"), track["loudness_lufs"]),
        ("activity", share(track["activity"]), track["activity"]),
        ("length", clock(track["duration_s"]), track["duration_s"]),
    ]
    return [(name, text) for name, text, value in facts if value is not None]


def _stages(record: dict, span: dict) -> list[dict]:
    """How long the run spent starting, working and closing, in seconds, each with its share of the longest for a bar.

    Taken from the record and from the rows' times, so that a run that was killed has stages too.
    """
    if span["first"] is None or record["started_at"] is None:
        return []
    began, ended = _times(record)
    marks = [began, max(began, span["first"]), max(began, span["last"]), max(ended, span["last"])]
    names = ("planning and starting workers", "tracks", "compacting and reporting")
    stages = {name: (marks[i + 1] - marks[i]).total_seconds() for i, name in enumerate(names)}
    longest = max(stages.values()) or 1
    return [{"name": name, "seconds": seconds, "part": max(0.0, seconds / longest)} for name, seconds in stages.items()]


def _facts(record: dict) -> list[tuple[str, str]]:
    """The run's settings as (name, value) pairs, nested ones joined."""
    facts: list[tuple[str, str]] = []

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}" if name else key, inner)
        elif value not in (None, "", [], ()):
            facts.append((name, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))

    add("", record["parameters"])
    for name in ("host", "python", "platform", "git_revision"):
        add(name.replace("_", " "), record.get(name))
    return facts


def _times(record: dict) -> tuple[datetime.datetime, datetime.datetime]:
    """When the run began, and when it ended; the present time where it has not."""
    began = datetime.datetime.fromisoformat(record["started_at"])
    ended = record.get("ended_at")
    return began, datetime.datetime.fromisoformat(ended) if ended else datetime.datetime.now(datetime.UTC)


def _skipped(record: dict, totals: dict) -> int:
    """How many of the catalog's tracks the run skipped because they were done before."""
    summary = record.get("summary") or {}
    if "before" in summary:
        return summary["before"] + summary.get("failed_before", 0)
    return max(0, (record["parameters"].get("tracks") or 0) - totals["done"] - totals["failed"])
