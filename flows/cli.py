"""The command line: `unbraid VERB …`, thin over the flows.

Heavy imports (prefect, torch) happen inside the verbs, so that `unbraid --help` is quick.
"""

import os
import signal
import sys
import threading

import click

EXIT_ERROR = 1  # the run did not start or did not finish
EXIT_INTERRUPTED = 130
_SECONDS_TO_STOP = 6.0

_device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
_dask = click.option("--dask", metavar="ADDRESS", help="A Dask scheduler, e.g. tcp://host:8786. Default: this machine.")
_workers = click.option("--workers", type=click.IntRange(1), help="Worker processes on this machine. Default: cores.")
_engine = click.option(
    "--engine",
    type=click.Choice(["bsseval", "sdr", "museval"]),
    default="bsseval",
    show_default=True,
    help="Who scores: ours, SDR alone, or museval itself (the same numbers, much slower).",
)
_windows = click.option("--windows", is_flag=True, help="Keep the scores of every window, under OUT/windows.")
_kind = click.option(
    "--kind",
    type=click.Choice(["dsd100", "musdb18", "musdb18hq", "stems", "pairs", "loose"]),
    help="The dataset's layout. Default: found from its folders.",
)


class _Sentences(click.Group):
    """Every error of ours as one sentence and an exit code; no traceback unless UNBRAID_DEBUG is set."""

    def main(self, *args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _interrupted)
        try:
            return super().main(*args, **kwargs)
        except (KeyboardInterrupt, click.Abort):
            _leave()
        except Exception as error:
            if os.environ.get("UNBRAID_DEBUG"):
                raise
            _say(_sentence(error))
            sys.exit(EXIT_ERROR)


def _interrupted(*_: object) -> None:
    """Ctrl-C: stop, tidy up, leave within seconds whatever else goes on; the second time leave at once.

    The embedded server gets the same signal from the terminal and is gone, and Prefect would tell it of the
    stop again and again for a minute.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    watchdog = threading.Timer(_SECONDS_TO_STOP, _leave)
    watchdog.daemon = True
    watchdog.start()
    raise KeyboardInterrupt


def _leave() -> None:
    _say("stopped; what is finished is kept, and the same command goes on from there")
    os._exit(EXIT_INTERRUPTED)  # not sys.exit: libraries would wait for servers and workers that are gone


def _sentence(error: Exception) -> str:
    from model.errors import ModelError
    from storage.errors import StorageError

    if isinstance(error, (StorageError, ModelError)):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return f"an error of unbraid's own, {type(error).__name__}: {error}; UNBRAID_DEBUG=1 shows where, please report it"


def _say(sentence: str) -> None:
    click.echo(f"unbraid: {sentence}", err=True)


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="unbraid")
def main() -> None:
    """Take music catalogs apart: ingest datasets, train networks, separate tracks into stems, score them.

    Exit codes: 0 all fine, 3 finished with failed tracks (each is a row that says why), 1 did not
    start or finish, 2 wrong usage.
    """


@main.command()
@click.argument("dataset", type=click.Path())
@click.option("--store", required=True, type=click.Path(), help="The zarr store to make or to add to.")
@_kind
@click.option("--name", help="The dataset's name in the store. Default: its folder's name.")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True,
              help="The split of layouts that have none of their own.")  # fmt: skip
@click.option("--stem", help="For a folder of loose files: which stem they are, e.g. vocals or accompaniment.")
@click.option("--test-artist", multiple=True, metavar="NAME", help="Keep this artist's tracks for the test split.")
@click.option("--drop-leaked", is_flag=True, help="Leave out training copies of songs that are in a test split.")
@click.option("--spectrograms/--waveforms-only", default=True, show_default=True,
              help="Keep complex STFTs beside the waveforms, or save eleven twelfths of the disk.")  # fmt: skip
@_dask
@_workers
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


@main.command()
@click.argument("store", type=click.Path())
@click.option("--preset", default="stereo", show_default=True, help="A model configuration; see `unbraid models`.")
@_device
@click.option("--resume", is_flag=True, help="Go on with the run in the folder --run.")
@click.option("--run", type=click.Path(), help="The run's folder. Default: STORE.runs/PRESET-seedSEED.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Training steps. Default: the preset's.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="Replace a training setting of the preset, e.g. --set batch_size=4.")  # fmt: skip
@click.option("--promote", is_flag=True, help="Make the result the champion of its preset.")
@_dask
def train(store, preset, device, resume, run, seed, steps, settings, promote, dask) -> None:
    """Train a network on STORE and register its weights.

    Runs on a worker that offers the resource GPU, or on the CPU where none does. Checkpoints every
    minute; killed, it goes on with --resume as if nothing had happened.
    """
    from flows.train import train as flow

    report = flow(
        store, run=run, preset=preset, device=device, resume=resume, seed=seed, steps=steps,
        settings=_settings(settings), promote=promote, dask=dask,
    )  # fmt: skip
    click.echo(
        f"{report.model_id}: {report.steps} steps, best at {report.best_step} with {report.best_db:.2f} dB vocals "
        f"cSDR on validation tracks ({report.stopped})\nweights: {report.weights}"
    )


@main.command()
@click.argument("source", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder for stems, metrics, reports and run records.")
@click.option("--model", default="stereo", show_default=True, metavar="ID", help="Model id, preset, or weights file.")
@click.option("--stems", help="Stems to write, separated by commas. Default: all the model has.")
@click.option("--format", "format_", type=click.Choice(["flac", "wav", "ogg", "opus", "mp3"]), default="flac",
              show_default=True, help="flac and wav keep rate, channels and bit depth.")  # fmt: skip
@click.option("--tags/--no-tags", default=True, show_default=True, help="Carry the source's tags and cover over.")
@click.option("--retry-failed", is_flag=True, help="Try tracks again that failed in an earlier run.")
@click.option("--deadline", type=float, default=3600.0, show_default=True, metavar="SECONDS",
              help="Give up a track after so long.")  # fmt: skip
@_engine
@_windows
@_device
@_dask
@_workers
def separate(
    source, out, model, stems, format_, tags, retry_failed, deadline, engine, windows, device, dask, workers
) -> None:
    """Separate SOURCE, an audio file, a folder, a dataset, or a manifest (.csv or .parquet with a column
    `path`), into stems under OUT/stems, with a row a stem under OUT/metrics.

    Run again, only what is new, changed or missing is done. One bad track is one failed row.
    """
    from flows.separate import separate as flow

    summary = flow(
        source, out, model=model, stems=stems.split(",") if stems else None, format=format_, tags=tags,
        retry_failed=retry_failed, seconds_per_track=deadline, engine=engine, windows=windows, device=device,
        dask=dask, workers=workers,
    )  # fmt: skip
    before = f", {summary.before} were done before" if summary.before else ""
    standing = f", {summary.failed_before} failed before (--retry-failed)" if summary.failed_before else ""
    click.echo(f"{summary.done} tracks separated{before}, {summary.failed} failed{standing}")
    if summary.failed:
        _show_failures(out, summary.run_id)
    click.echo(f"stems:   {os.path.join(out, 'stems')}\nmetrics: {os.path.join(out, 'metrics')}")
    if summary.report:
        click.echo(f"report:  {summary.report}")
    sys.exit(summary.exit_code)


@main.command()
@click.argument("dataset", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder for metrics and reports.")
@click.option("--model", default="stereo", show_default=True, metavar="ID", help="Model id, preset, or weights file.")
@click.option("--split", type=click.Choice(["test", "train", "all"]), default="test", show_default=True)
@_kind
@_engine
@_windows
@_device
@_dask
@_workers
def evaluate(dataset, out, model, split, kind, engine, windows, device, dask, workers) -> None:
    """Score a model on DATASET, between its floor (the mixture as estimate) and its ceiling (the ideal ratio
    mask), and beside other systems' results where a track has them in systems/.

    cSDR is museval's: BSSEval v4, median over windows of 1 s, then over tracks.
    """
    from flows.evaluate import evaluate as flow

    summary = flow(
        dataset, out, model=model, split=split, kind=kind, engine=engine, windows=windows, device=device,
        dask=dask, workers=workers,
    )  # fmt: skip
    _show_scores(out, summary.run_id)
    if summary.failed:
        _show_failures(out, summary.run_id)
    click.echo(f"metrics: {os.path.join(out, 'metrics')}\nreport:  {summary.report}")
    sys.exit(summary.exit_code)


@main.command()
@click.argument("out", type=click.Path())
@click.argument("sql")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def query(out, sql, as_csv) -> None:
    """Run one SELECT over the metrics of the run folder OUT.

    Tables: metrics (the rows that stand: the latest of each track and model) and history (all rows of
    all runs). Example: unbraid query OUT "select stem, median(sdr) from metrics group by stem"
    """
    from pathlib import Path

    from flows.tables import show
    from storage.query import query as run

    table = run(Path(out), sql)
    if as_csv:
        import pyarrow.csv

        pyarrow.csv.write_csv(table, sys.stdout.buffer)
        return
    show(table.column_names, zip(*(column.to_pylist() for column in table.columns), strict=True))


@main.command(name="export")
@click.argument("out", type=click.Path())
@click.argument("folder", type=click.Path())
@click.option("--model", required=True, metavar="ID", help="Whose scores: a model id, floor:mixture, ceiling:irm …")
def export_museval(out, folder, model) -> None:
    """Write the window scores of one model in the run folder OUT as museval's JSON into FOLDER/test, one
    file a track. They are there when the run was made with --windows.
    """
    from pathlib import Path

    from storage.errors import MetricsError
    from storage.layout import OutputLayout
    from storage.museval_json import write_museval
    from storage.windows import stored_windows

    scores = [stem for stem in stored_windows(OutputLayout(Path(out))) if stem.model_id == model]
    if not scores:
        raise MetricsError(f"{out} keeps no windows of {model}; evaluate with --windows first")
    click.echo(f"{len(write_museval(Path(folder), scores))} tracks written to {os.path.join(folder, 'test')}")


@main.command(name="import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(), help="The run folder to add the scores to.")
@click.option("--name", required=True, help="The method's name; its rows have the model id museval:NAME.")
def import_museval(folder, out, name) -> None:
    """Read museval's JSON below FOLDER, one file a track, into the metrics of OUT, to compare with."""
    from pathlib import Path

    from storage.layout import OutputLayout
    from storage.museval_json import read_museval
    from tasks.score import import_scores

    run_id, tracks = import_scores(OutputLayout(Path(out)), read_museval(Path(folder), f"museval:{name}"))
    click.echo(f"{tracks} tracks imported")
    _show_scores(out, run_id)


@main.command()
@click.argument("model_id", required=False)
def models(model_id) -> None:
    """List the registered models and presets; with MODEL_ID show its card."""
    from flows.tables import show
    from model.preset import preset_names
    from tasks.models import registry

    if model_id:
        model = registry().find(model_id)
        click.echo(model.card or f"{model.model_id} has no card")
        return
    found = registry().models()
    show(
        ["model", "preset", "champion", "from", "MB", "file"],
        [
            [m.model_id, m.preset, "yes" if m.champion else "", "package" if m.shipped else "yours",
             round(m.path.stat().st_size / 1e6, 1), str(m.path)]
            for m in found
        ],
    )  # fmt: skip
    click.echo(f"presets to train: {', '.join(preset_names())}")


@main.command()
@click.option("--out", type=click.Path(), default="demo-out", show_default=True)
@click.option("--songs", type=click.IntRange(3), default=4, show_default=True, help="How many songs to make.")
@click.option("--seconds", type=click.FloatRange(6.0), default=20.0, show_default=True, help="How long each.")
@click.option("--steps", type=click.IntRange(1), default=6, show_default=True, help="Training steps.")
def demo(out, songs, seconds, steps) -> None:
    """The whole way on songs it makes itself: ingest, train briefly, separate, score, report."""
    from flows.demo import demo as run

    sys.exit(run(out, songs=songs, seconds=seconds, steps=steps))


def _settings(pairs: tuple[str, ...]) -> dict:
    import json

    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise click.UsageError(f"--set wants NAME=VALUE, got {pair}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _show_failures(out: str, run_id: str) -> None:
    from pathlib import Path

    from flows.tables import show
    from storage.layout import OutputLayout
    from storage.metrics import FAILED, read_all

    rows = read_all(OutputLayout(Path(out)), run_id, ["path", "status", "error"]).to_pylist()
    failed = [row for row in rows if row["status"] == FAILED]
    show(["failed", "why"], [[row["path"], row["error"]] for row in failed[:20]])
    if len(failed) > 20:
        sql = "select path, error from metrics where status = 'failed'"
        click.echo(f'and {len(failed) - 20} more: unbraid query {out} "{sql}"')


def _show_scores(out: str, run_id: str) -> None:
    from pathlib import Path

    from flows.tables import show
    from storage.layout import OutputLayout
    from storage.metrics import read_all
    from tasks.report import by_model_and_stem

    groups = by_model_and_stem(read_all(OutputLayout(Path(out)), run_id).to_pylist())
    groups.sort(key=lambda group: (group["stem"], group["sdr"] if group["sdr"] is not None else -1e9))
    show(
        ["stem", "model", "tracks", "cSDR", "mean of windows", "uSDR", "SI-SDR", "× real time"],
        [[g["stem"], g["model_id"], g["tracks"], g["sdr"], g["sdr_mean"], g["usdr"], g["si_sdr"], g["realtime"]]
         for g in groups],
        title="medians over tracks, dB",
    )  # fmt: skip


if __name__ == "__main__":
    main()
