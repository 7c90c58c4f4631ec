"""Verbs on networks: ingest, train, retrain, tune, models."""

import sys

import click

from flows.cli.options import dask, device, kind, settings_of, workers


@click.command()
@click.argument("dataset", type=click.Path())
@click.option("--store", required=True, type=click.Path(), help="The zarr store to make or to add to.")
@kind
@click.option("--name", help="The dataset's name in the store. Default: its folder's name.")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True,
              help="The split of layouts that have none of their own.")  # fmt: skip
@click.option("--stem", help="For a folder of loose files: which stem they are, e.g. vocals or accompaniment.")
@click.option("--test-artist", multiple=True, metavar="NAME", help="Keep this artist's tracks for the test split.")
@click.option("--drop-leaked", is_flag=True, help="Leave out training copies of songs that are in a test split.")
@click.option("--spectrograms/--waveforms-only", default=False, show_default=True,
              help="Keep complex STFTs too, for --set source=spectrogram: twelve times the disk.")  # fmt: skip
@dask
@workers
def ingest(dataset, store, kind, name, split, stem, test_artist, drop_leaked, spectrograms, dask, workers) -> None:
    """Read DATASET into a zarr store: DSD100, MUSDB18 (.stem.mp4 or HQ wav folders), a folder with one
    folder of stems a track, a folder of voice/ and music/ pairs, or loose files of one --stem.

    Run again it goes on where it stopped. A song in a training and a test split is refused by name.
    """
    from flows.ingest import ingest as flow

    summary = flow(
        dataset, store, kind=kind, name=name, split=split, stem=stem, test_artists=list(test_artist),
        drop_leaked=drop_leaked, spectrograms=spectrograms, dask=dask, workers=workers,
    )  # fmt: skip
    click.echo(summary.page)
    click.echo(f"{summary.done} tracks ingested, {summary.before} were there, {len(summary.failures)} failed")
    sys.exit(summary.exit_code)


@click.command()
@click.argument("store", type=click.Path())
@click.option("--preset", default="stereo", show_default=True, help="A model configuration; see `unbraid models`.")
@device
@click.option("--resume", is_flag=True, help="Go on with the run in the folder --run.")
@click.option("--run", type=click.Path(), help="The run's folder. Default: STORE.runs/PRESET-seedSEED.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Training steps. Default: the preset's.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="Replace a setting of the preset, e.g. --set batch_size=4 --set mixing.speed=0.1.")  # fmt: skip
@click.option("--from", "start", metavar="ID", help="Begin with this model's weights where they fit.")
@click.option("--promote", is_flag=True, help="Make the result the champion of its preset.")
@dask
def train(store, preset, device, resume, run, seed, steps, settings, start, promote, dask) -> None:
    """Train a network on STORE and register its weights.

    Runs on a worker that offers the resource GPU, or on the CPU where none does. Checkpoints every
    minute; killed, it goes on with --resume as if nothing had happened.
    """
    from flows.train import train as flow

    report = flow(
        store, run=run, preset=preset, device=device, resume=resume, start=start, seed=seed, steps=steps,
        settings=settings_of(settings), promote=promote, dask=dask,
    )  # fmt: skip
    click.echo(
        f"{report.model_id}: {report.steps} steps, best at {report.best_step} with {report.best_db:.2f} dB vocals "
        f"cSDR on validation tracks ({report.stopped})\nweights: {report.weights}"
    )


@click.command()
@click.argument("store", type=click.Path())
@click.option("--test", required=True, type=click.Path(), help="The dataset whose test split decides.")
@click.option("--out", required=True, type=click.Path(), help="Folder for metrics and the decision.")
@click.option("--new", multiple=True, type=click.Path(), metavar="DATASET", help="Ingest this into STORE first.")
@click.option("--preset", default="stereo", show_default=True, help="Whose champion is challenged.")
@click.option("--scratch", is_flag=True, help="Train from random weights instead of the champion's.")
@click.option("--steps", type=click.IntRange(1), help="Training steps. Default: the preset's.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Replace a setting of the preset.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--split", type=click.Choice(["test", "train", "all"]), default="test", show_default=True)
@click.option("--spectrograms/--waveforms-only", default=False, help="As in `unbraid ingest`, for --new.")
@device
@dask
@workers
def retrain(
    store, test, out, new, preset, scratch, steps, settings, seed, split, spectrograms, device, dask, workers
) -> None:
    """Ingest what is new, train a challenger, promote it if it is better.

    Better: on the same tracks the median cSDR of vocals rises and no stem's median falls by more than
    0.1 dB. The old champion stays; `unbraid models rollback PRESET` brings it back. The decision is a row:
    unbraid query OUT "select * from decisions"
    """
    from flows.retrain import retrain as flow

    decision = flow(
        store, test, out, new=list(new), preset=preset, scratch=scratch, steps=steps, settings=settings_of(settings),
        seed=seed, split=split, spectrograms=spectrograms, device=device, dask=dask, workers=workers,
    )  # fmt: skip
    verdict = "promoted" if decision.promoted else f"not promoted, {decision.champion} stays champion"
    click.echo(f"{decision.challenger}: {verdict}: {decision.reason} ({decision.tracks} tracks)")


@click.command()
@click.argument("store", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder for the trials' table and trainings.")
@click.option("--preset", default="stereo", show_default=True)
@click.option("--space", multiple=True, required=True, metavar="SETTING=VALUES",
              help="learning_rate=3e-4..3e-3 (a range) or batch_size=4,8,16 (choices); repeat it.")  # fmt: skip
@click.option("--search", type=click.Choice(["random", "grid"]), default="random", show_default=True)
@click.option("--trials", type=click.IntRange(1), default=8, show_default=True, help="How many, where random.")
@click.option("--steps", type=click.IntRange(1), default=200, show_default=True, help="Training steps of each.")
@click.option("--seed", type=int, default=0, show_default=True)
@device
@dask
@workers
def tune(store, out, preset, space, search, trials, steps, seed, device, dask, workers) -> None:
    """Search a preset's settings: each trial is a short training on STORE, scored on validation tracks.

    Never on a test split. All trials stay as rows: unbraid query OUT "select * from trials order by csdr desc"
    """
    from flows.cli.console import show
    from flows.tune import tune as flow

    rows = flow(
        store, out, list(space), preset=preset, search=search, number=trials, steps=steps, seed=seed, device=device,
        dask=dask, workers=workers,
    )  # fmt: skip
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
    click.echo(model.card or f"{model.model_id} has no card")


@models.command()
@click.argument("model_id")
def promote(model_id) -> None:
    """Make a model the champion of its preset: what the preset's bare name stands for."""
    from tasks.loading import registry

    registry().promote(model_id)
    click.echo(f"{model_id} is champion of {registry().find(model_id).preset}")


@models.command()
@click.argument("preset")
def rollback(preset) -> None:
    """Make the champion before the present one champion again."""
    from tasks.loading import registry

    click.echo(f"{registry().rollback(preset)} is champion of {preset} again")


def _list_models() -> None:
    from flows.cli.console import show
    from model.preset import preset_names
    from tasks.loading import registry

    show(
        ["model", "preset", "champion", "from", "MB", "file"],
        [
            [m.model_id, m.preset, "yes" if m.champion else "", "package" if m.shipped else "yours",
             round(m.path.stat().st_size / 1e6, 1), str(m.path)]
            for m in registry().models()
        ],
    )  # fmt: skip
    click.echo(f"presets to train: {', '.join(preset_names())}")
