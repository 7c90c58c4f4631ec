"""Verbs on catalogs: separate, evaluate, query, export, import, demo."""

import contextlib
import io
import json
import os
import sys

import click

from flows.cli.console import echo
from flows.cli.options import chosen, with_output, with_parameters, with_settings
from flows.cli.outcome import planned, print_json, show_pruning, show_separation
from flows.cli.scores import medians, show_failures, show_scores
from flows.running.progress import counted
from flows.settings import EvaluateOptions, PruneOptions, SeparateOptions


@click.command()
@with_settings(SeparateOptions)
@click.option("--mp3", is_flag=True, help="The same as --format mp3.")
@with_output
def separate(options: SeparateOptions, mp3: bool, as_json: bool) -> None:
    """Separate SOURCE, an audio file, a folder, a glob in quotes, a dataset, or a manifest (.csv or .parquet
    with a column `path`), into stems under OUT/stems, with one row per stem under OUT/metrics.

    Run again, only what is new, changed or missing is done. One bad track is one failed row.
    """
    from flows.cli.ahead import separating_ahead

    if mp3:
        options = options.replaced(format="mp3")
    with separating_ahead(0 if options.dry_run else 1, options, options.out):
        from flows.separate import separate as flow

        summary = flow(**options.values())
    if summary.told_apart:
        tracks = counted(summary.told_apart, "track")
        echo(
            f"{tracks} named by their full paths: {options.out} holds stems of other files under their names", err=True
        )
    if options.dry_run and not as_json:
        echo(planned(summary))
        return
    show_separation(summary, as_json=as_json)
    sys.exit(summary.exit_code)


@click.command()
@with_parameters(PruneOptions)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON, for scripts.")
def prune(as_json: bool, **values) -> None:
    """List the tracks of OUT that SOURCE no longer lists (renamed or deleted), and with --yes remove their stems and
    rows. A SOURCE that cannot be listed, or that is empty, removes nothing.
    """
    from flows.prune import prune as flow

    show_pruning(flow(chosen(PruneOptions, values)), as_json=as_json)


@click.command()
@with_settings(EvaluateOptions)
@with_output
def evaluate(options: EvaluateOptions, as_json: bool) -> None:
    """Score a model on DATASET, between its floor (the mixture as estimate) and its ceiling (the ideal ratio
    mask), and beside other systems' results where a track has them in systems/.

    cSDR is museval's: BSSEval v4, median over windows of 1 s, then over tracks.
    """
    from flows.evaluate import evaluate as flow

    out = options.out
    summary = flow(**options.values())
    if as_json:
        print_json(summary, scores=medians(out, summary.run_id), exit_code=summary.exit_code)
        sys.exit(summary.exit_code)
    show_scores(out, summary.run_id)
    for line in summary.predictions:
        click.echo(line)
    if summary.failed:
        show_failures(out, summary.run_id)
    echo(f"metrics: {os.path.join(out, 'metrics')}\nreport:  {summary.report}")
    sys.exit(summary.exit_code)


@click.command()
@click.argument("out", type=click.Path())
@click.argument("sql", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per row.")
def query(out, sql, as_csv, as_json) -> None:
    """Run one SELECT over the metrics of the run folder OUT; without SQL, list the tables and their columns.

    Tables: metrics (the rows that count: the latest of each track and model) and history (all rows of
    all runs). Example: unbraid query OUT "select stem, median(sdr) from metrics group by stem"
    """
    from flows.cli.console import show_table
    from storage.files.location import location
    from storage.results.query import columns
    from storage.results.query import query as run

    if not sql:
        for name, fields in columns(location(out)).items():
            click.secho(name, bold=True)
            echo(click.wrap_text(", ".join(fields), 100, "  ", "  "))
        return
    table = run(location(out), sql)
    if as_csv:
        import pyarrow.csv

        if sys.stdout.isatty():
            text = io.BytesIO()
            pyarrow.csv.write_csv(table, text)
            echo(text.getvalue().decode().rstrip("\n"))
        else:  # for other programs, names as they are
            pyarrow.csv.write_csv(table, sys.stdout.buffer)
    elif as_json:
        echo(json.dumps(table.to_pylist(), default=str, indent=2))
    else:
        show_table(table.column_names, list(zip(*(column.to_pylist() for column in table.columns), strict=True)))


@click.command(name="export")
@click.argument("out", type=click.Path())
@click.argument("folder", type=click.Path())
@click.option(
    "--model", required=True, metavar="ID", help="Whose scores: a model id, a preset, floor:mixture, ceiling:irm …"
)
def export_museval(out, folder, model) -> None:
    """Write the window scores of one model in the run folder OUT as museval's JSON into FOLDER/test, one
    file per track. There are window scores where the run was made with --windows.
    """
    from storage.errors import MetricsError, RegistryError
    from storage.files.layout import OutputLayout
    from storage.files.location import location
    from storage.results.museval_json import write_museval
    from storage.results.windows import stored_windows
    from tasks.loading import registry

    windows = stored_windows(OutputLayout(location(out)))
    kept = {stem.model_id for stem in windows}
    if model not in kept:
        with contextlib.suppress(RegistryError):
            model = registry().find(model).model_id
    scores = [stem for stem in windows if stem.model_id == model]
    if not scores:
        others = f"; it keeps those of {', '.join(sorted(kept))}" if kept else ""
        raise MetricsError(f"{out} keeps no windows of {model}{others}; evaluate with --windows first")
    echo(f"{len(write_museval(location(folder), scores))} tracks written to {os.path.join(folder, 'test')}")


@click.command(name="import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(), help="The run folder to add the scores to.")
@click.option("--name", required=True, help="The method's name; its rows have the model id museval:NAME.")
def import_museval(folder, out, name) -> None:
    """Read museval's JSON below FOLDER, one file per track, into the metrics of OUT, to compare with."""
    from storage.files.layout import OutputLayout
    from storage.files.location import location
    from storage.results.museval_json import read_museval
    from tasks.score import import_scores

    run_id, tracks = import_scores(OutputLayout(location(out)), read_museval(location(folder), f"museval:{name}"))
    echo(f"{tracks} tracks imported")
    show_scores(out, run_id)


@click.command()
@click.option(
    "--out", type=click.Path(), default="demo-out", show_default=True, help="Folder for everything the demo makes."
)
@click.option("--songs", type=click.IntRange(3), default=4, show_default=True, help="How many songs to make.")
@click.option("--seconds", type=click.FloatRange(6.0), default=20.0, show_default=True, help="Length of each song.")
@click.option("--steps", type=click.IntRange(1), default=6, show_default=True, help="Training steps.")
def demo(out, songs, seconds, steps) -> None:
    """Run all steps on songs that the demo makes itself: ingest, train briefly, separate, score, report."""
    from flows.cli.demo import demo as run

    sys.exit(run(out, songs=songs, seconds=seconds, steps=steps))
