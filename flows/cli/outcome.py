"""What a verb says when its run has ended: a short table for people, or JSON for scripts."""

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

import click

from flows.cli.console import printable
from flows.cli.scores import show_failures
from flows.running.progress import clock, counted

if TYPE_CHECKING:
    from flows.prune import PruneSummary
    from flows.separate import RunSummary
    from storage.results.summary import RunRows

_WORST = 3
_FEW = 1  # the most tracks for which every stem's path is printed
_COLUMNS = {"sdr": "cSDR", "predicted_sdr": "predicted SDR"}


def print_json(summary: Any, **more: Any) -> None:
    """Print a summary's fields as one JSON object.

    Args:
        summary: A dataclass, or a list of them, which becomes the field `rows`.
        more: Further fields, which replace those of the same name.
    """
    fields = dataclasses.asdict(summary) if dataclasses.is_dataclass(summary) else {"rows": summary}  # type: ignore[arg-type]
    click.echo(json.dumps({**fields, **more}, default=_plain, indent=2))


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)  # type: ignore[arg-type]


def planned(summary: "RunSummary") -> str:
    """What a dry run would do, as a sentence.

    Args:
        summary: The dry run's summary.
    """
    tracks = counted(summary.todo, "track")
    if summary.todo_seconds is not None:
        tracks += f" ({summary.todo_seconds / 3600:.2f} hours)"
    others = f", {summary.passed} not chosen" if summary.passed else ""
    return f"{tracks} would be separated; {summary.before} done, {summary.failed_before} failed before{others}"


def show_pruning(summary: "PruneSummary", *, as_json: bool) -> None:
    """Print every track that goes, one per line, and what to do next.

    Args:
        summary: What was removed or would be.
        as_json: Whether to print the summary as JSON instead.
    """
    if as_json:
        print_json(summary)
        return
    for name in summary.tracks:
        click.echo(printable(name))
    tracks = counted(len(summary.tracks), "track")
    if summary.stems is not None:
        click.echo(f"{tracks} and {counted(summary.stems, 'stem')} removed")
    elif summary.tracks:
        click.echo(f"{tracks} would be removed; run again with --yes to do it")
    else:
        click.echo("every track is in the catalog")
    if summary.kept:
        kept = counted(summary.kept, "track")
        click.echo(f"{kept} kept, whose files exist or are of other folders; --unlisted removes all that is not listed")


def show_separation(summary: "RunSummary", *, as_json: bool) -> None:
    """Print tracks, hours, speed, scores, the worst tracks, and where the results are.

    Args:
        summary: How the run ended; its rows are read from the output.
        as_json: Whether to print all that as JSON instead.
    """
    figures = _figures(summary) if summary.done else {}
    folders = {"stems": os.path.join(summary.out, "stems"), "metrics": os.path.join(summary.out, "metrics")}
    if as_json:
        print_json(summary, **figures, folders=folders, exit_code=summary.exit_code)
        return
    if summary.failed:
        show_failures(summary.out, summary.run_id)
    rows = [["tracks", _tracks(summary)]]
    if figures:
        rows.append(["audio", _speed(summary.audio_seconds, figures["seconds"])])
    for column, name in _COLUMNS.items():
        if figures.get(f"median_{column}") is not None:
            rows.append([name, f"{figures[f'median_{column}']:.1f} dB in the median"])
    if summary.drift:
        rows.append(["drift", summary.drift])
    if len(figures.get("worst", [])) > 1:
        rows.append(["worst", "\n".join(f"{score:.1f} dB  {printable(path)}" for path, score in figures["worst"])])
    rows += [[name, path] for name, path in folders.items()]
    if summary.report:
        rows.append(["report", summary.report])
    show_entries(rows)
    for path in figures.get("files", []):
        click.echo(printable(path))


def show_entries(rows: list[list[str]]) -> None:
    """Print a table of two columns without a head, as plain text for scripts and people alike.

    Args:
        rows: [name, text] pairs, at least one; a text of several lines is indented below its first.
    """
    width = max(len(name) for name, _ in rows) + 1
    for name, text in rows:
        first, *others = text.splitlines() or [""]
        click.echo(f"{name + ':':{width}} {first}")
        for line in others:
            click.echo(f"{'':{width}} {line}")


def _tracks(summary: "RunSummary") -> str:
    parts = [f"{counted(summary.done, 'track')} separated"]
    if summary.before:
        parts.append(f"{summary.before} done before")
    parts.append(f"{summary.failed} failed")
    if summary.failed_before:
        parts.append(f"{summary.failed_before} failed before (--retry-failed)")
    if summary.passed:
        parts.append(f"{summary.passed} not chosen")
    if summary.pruned:
        parts.append(f"{summary.pruned} pruned")
    return ", ".join(parts)


def _speed(audio_seconds: float, seconds: float) -> str:
    return f"{audio_seconds / 3600:.2f} hours in {clock(seconds)}, {times_real_time(audio_seconds, seconds)}"


def times_real_time(audio_seconds: float, seconds: float) -> str:
    """How many times faster than the music plays it was processed, e.g. "8 × real time".

    Args:
        audio_seconds: The music's length in seconds.
        seconds: The time it took, in seconds.
    """
    times = audio_seconds / max(seconds, 1e-3)
    return f"{times:.0f} × real time" if times >= 10 else f"{times:.2g} × real time"


def _figures(summary: "RunSummary") -> dict[str, Any]:
    """Seconds, median scores, the worst tracks and, for a single track, its stems' files."""
    from storage.files.layout import OutputLayout
    from storage.files.location import location
    from storage.results.summary import opened_run

    out = OutputLayout(location(summary.out))
    with opened_run(out, summary.run_id) as rows:
        span = rows.span()
        figures: dict[str, Any] = {"seconds": (span["last"] - span["first"]).total_seconds()}
        figures |= _scores(rows)
        if summary.done <= _FEW:
            paths = rows.ask("select stem_path from rows where stem_path is not null order by stem <> 'vocals', stem")
            figures["files"] = [os.path.join(summary.out, row["stem_path"]) for row in paths]
    return figures


def _scores(rows: "RunRows") -> dict[str, Any]:
    models = rows.models()
    if not models:
        return {}
    lead = rows.stems(models[0])[0]
    medians = ", ".join(f"median({name}) as median_{name}" for name in _COLUMNS)
    figures: dict[str, Any] = rows.ask(f"select {medians} from rows where stem = $lead", lead=lead)[0]
    column = rows.ranking(models[0])
    if column in _COLUMNS:
        worst = rows.tracks(models[0], lead, column, _WORST)
        figures["worst"] = [(row["path"], row[column]) for row in worst if row[column] is not None]
    return figures
