"""Verbs on networks: ingest, train, retrain, tune, models."""

import sys

import click

from flows.cli.console import echo
from flows.cli.options import with_output, with_settings
from flows.cli.outcome import print_json
from flows.running.progress import counted
from flows.settings import IngestOptions, RetrainOptions, TrainOptions, TuneOptions


@click.command()
@with_settings(IngestOptions)
@with_output
def ingest(options: IngestOptions, as_json: bool) -> None:
    """Read DATASET into a zarr store: DSD100, MUSDB18 (.stem.mp4 or HQ wav folders), a folder with one
    folder of stems per track, a folder of voice/ and music/ pairs, or loose files of one --stem.

    Run again, it goes on where it stopped. A song in both a training and a test split is refused by name.
    """
    from flows.ingest import ingest as flow

    summary = flow(**options.values())
    if as_json:
        print_json(summary, exit_code=summary.exit_code)
        sys.exit(summary.exit_code)
    echo(summary.page)
    tracks = counted(summary.done, "track")
    echo(f"{tracks} ingested, {summary.before} were there before, {len(summary.failures)} failed")
    sys.exit(summary.exit_code)


@click.command()
@with_settings(TrainOptions)
@with_output
def train(options: TrainOptions, as_json: bool) -> None:
    """Train a network on STORE and register its weights.

    Runs on a worker that offers the resource GPU, or on the CPU where none does. It saves a
    checkpoint every minute; after a kill, --resume goes on as if nothing had happened.
    """
    from flows.train import train as flow

    report = flow(**options.values())
    if as_json:
        print_json(report)
        sys.exit(3 if report.diverged else 0)
    echo(
        f"{report.model_id}: {report.steps} steps, best at {report.best_step} with {report.best_db:.2f} dB vocals "
        f"cSDR on validation tracks ({report.stopped})\nweights: {report.weights}"
    )
    if report.diverged:
        sys.exit(3)


@click.command()
@with_settings(RetrainOptions)
@with_output
def retrain(options: RetrainOptions, as_json: bool) -> None:
    """Ingest what is new, train a challenger, and promote it if it is better.

    Better means: over the songs both were scored on, the median cSDR of vocals rises by at least --least-rise, the 90 %
    bootstrap interval of that rise lies above 0 (five songs or more), and no stem falls by more than 0.1 dB. The old
    champion stays; `unbraid models rollback PRESET` brings it back. The decision is a row:
    unbraid query OUT "select * from decisions"

    Without a dataset with stems, --score predicted compares what each model predicts of its own stems over any music.
    That is weaker, and takes a rise of 0.5 dB or more.
    """
    from flows.retrain import retrain as flow

    decision = flow(**options.values())
    if as_json:
        print_json(decision)
        return
    verdict = "promoted" if decision.promoted else f"not promoted, {decision.champion} stays champion"
    echo(f"{decision.challenger}: {verdict}: {decision.reason} ({counted(decision.tracks, 'track')})")


@click.command()
@with_settings(TuneOptions)
@with_output
def tune(options: TuneOptions, as_json: bool) -> None:
    """Search a preset's settings: each trial is a short training on STORE, scored on validation tracks.

    Test splits are never used. Every trial is a row: unbraid query OUT "select * from trials order by csdr desc"
    """
    from flows.cli.console import show
    from flows.tune import tune as flow

    rows = flow(**options.values())
    if as_json:
        print_json(rows)
        sys.exit(3 if any(row.error for row in rows) else 0)
    show(
        ["trial", "cSDR", "settings", "seconds", "why not"],
        [[row.trial, row.csdr, row.settings, row.seconds, row.error] for row in rows],
        title="validation, dB",
    )
    if any(row.error for row in rows):
        sys.exit(3)


@click.group(invoke_without_command=True)
@click.pass_context
def models(context) -> None:
    """List the registered models and presets, show a card, move a champion."""
    if context.invoked_subcommand is None:
        _list_models()


@models.command(name="show")
@click.argument("model_id")
def show_card(model_id) -> None:
    """Show a model's card."""
    from tasks.loading import registry

    model = registry().find(model_id)
    echo(model.card or f"{model.model_id} has no card")


@models.command()
@click.argument("model_id")
def promote(model_id) -> None:
    """Make a model the champion of its preset: the model that the preset's bare name means."""
    from tasks.loading import registry

    registry().promote(model_id)
    echo(f"{model_id} is champion of {registry().find(model_id).preset}")


@models.command()
@click.argument("preset")
def rollback(preset) -> None:
    """Make the previous champion of a preset its champion again."""
    from tasks.loading import registry

    echo(f"{registry().rollback(preset)} is champion of {preset} again")


def _list_models() -> None:
    from flows.cli.console import show
    from model.preset import preset_names
    from tasks.loading import registry

    models = registry().models()
    champions = {model.preset: model.model_id for model in models if model.champion}
    names = [*preset_names(), *sorted(set(champions) - set(preset_names()))]
    show(
        ["preset", "its model"],
        [[name, champions.get(name, "none yet: unbraid train")] for name in names],
    )
    show(
        ["model", "preset", "champion", "from", "MB", "file"],
        [
            [m.model_id, m.preset, "yes" if m.champion else "", "package" if m.shipped else "yours",
             round(m.path.stat().st_size / 1e6, 1), str(m.path)]
            for m in models
        ],
    )  # fmt: skip
