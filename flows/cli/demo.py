"""Everything from ingest to report on a catalog that the demo makes itself, in a few minutes on two cores."""

import shutil
from pathlib import Path

import click

from flows.cli.console import show
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.separate import separate
from flows.train import train
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tasks.demo.compose import write_songs
from tasks.loading import registry


def demo(out: str, *, songs: int, seconds: float, steps: int) -> int:
    """Make songs, ingest them, train a small run on them, separate them with the shipped weights, score, show.

    Args:
        out: The demo's folder, emptied first.
        songs: How many songs to make, at least 3; a quarter of them are the test split.
        seconds: The length of each song.
        steps: Training steps.

    Returns:
        The exit code.

    Raises:
        UsageError: `out` holds something that no demo has written.
    """
    root = Path(out)
    if root.exists() and not (root / _MARK).exists() and any(root.iterdir()):
        raise click.UsageError(f"{out} exists and was not written by a demo; choose another folder with --out")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / _MARK).touch()
    catalog, store, results = root / "songs", root / "store.zarr", root / "out"

    _step(f"1. Making {songs} songs of {seconds:.0f} s in DSD100's layout")
    test = max(1, songs // 4)
    write_songs(catalog, train=songs - test, test=test, seconds=seconds)

    _step("2. Ingesting them into a zarr store")
    click.echo(ingest(str(catalog), str(store)).page)

    _step(f"3. Training {steps} steps, to see it work; the result is not used")
    report = train(
        str(store), run=str(root / "training"), steps=steps, device="cpu", publish=False,
        settings={"batch_size": 2, "frames": 128, "warmup": 2, "validate_every": steps},
    )  # fmt: skip
    click.echo(f"   {report.steps} steps in {report.seconds:.0f} s")

    shipped = next(model.model_id for model in registry().models() if model.shipped and model.preset == "stereo")
    _step(f"4. Separating the catalog with the shipped weights, {shipped}")
    summary = separate(str(catalog), str(results), model=shipped)

    _step("5. Scoring the test split between floor and ceiling")
    scored = evaluate(str(catalog), str(results), model=shipped)

    layout = OutputLayout(results)
    rows = read_all(layout, summary.run_id).to_pylist()
    show(
        ["track", "stem", "cSDR dB", "seconds", "× real time"],
        [[r["path"].split("/")[-2], r["stem"], r["sdr"], r["seconds"], r["duration_s"] / r["seconds"]] for r in rows],
        title="separated",
    )
    rows = [row for row in read_all(layout, scored.run_id).to_pylist() if row["stem"] == "vocals"]
    show(["track", "model", "cSDR dB", "uSDR dB"], [[r["path"], r["model_id"], r["sdr"], r["usdr"]] for r in rows],
         title="vocals, test split")  # fmt: skip
    click.echo(
        f"stems:   {layout.stems}\nmetrics: {layout.metrics}\nreport:  {summary.report}\n"
        f'ask:     unbraid query {results} "select stem, median(sdr) from metrics group by stem"'
    )
    return max(summary.exit_code, scored.exit_code)


_MARK = ".unbraid-demo"


def _step(text: str) -> None:
    click.secho(text, bold=True)
