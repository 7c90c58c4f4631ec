"""Verbs that show: report, browse, explore, spectrogram."""

import click


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--run", metavar="RUN", help="The run to report on. Default: the latest.")
@click.option("--compare", multiple=True, metavar="RUN",
              help="A run to show beside it; may be repeated. Default: the previous one of the same kind.")  # fmt: skip
def report(folder, run, compare) -> None:
    """Write a page about a run in the run folder FOLDER, about a training in its folder, or about a search.

    The page is one file that needs no server: players, spectrograms, distributions, failures by cause.
    """
    from storage.files.location import location
    from tasks.pages.folders import write_page

    click.echo(f"report:  {write_page(location(folder), run, compare or None)}")


@click.command()
@click.argument("out", type=click.Path())
@click.option("--port", type=click.IntRange(1, 65535), help="Where to listen. Default: a free port.")
def browse(out, port) -> None:
    """Show the catalog of the run folder OUT in a browser of this machine, until Ctrl-C.

    Search, filter and sort every column; hear and see the stems of a track; gather a shortlist as a manifest
    for `unbraid separate`. The address holds a key, without which nothing is shown. Nothing is written.
    """
    from flows.pages.server import serve
    from storage.files.layout import OutputLayout
    from storage.files.location import location

    serve(
        OutputLayout(location(out)), port, lambda address: click.echo(f"{out} is served at {address}\nCtrl-C ends it")
    )


@click.command()
@click.argument("source", type=click.Path())
@click.option("--out", type=click.Path(), help="The page. Default: SOURCE.html in the current folder.")
@click.option("--kind", metavar="LAYOUT", help="The dataset's layout. Default: recognised by its folders.")
@click.option("--stem", help="For a folder of loose files: which stem they are.")
def explore(source, out, kind, stem) -> None:
    """Show what is in SOURCE, a store or a dataset, on one page: warnings first, then sound and numbers."""
    from pathlib import Path

    from storage.files.location import location
    from tasks.pages.explore import write_exploration

    path = location(source)
    target = location(out) if out else Path(f"{path.name or 'dataset'}.html")
    click.echo(f"page:    {write_exploration(path, target, kind=kind, stem=stem)}")


@click.command()
@click.argument("file", type=click.Path())
@click.option("--out", type=click.Path(), help="The PNG. Default: FILE.png in the current folder.")
@click.option("--axis", type=click.Choice(["linear", "mel", "warped"]), default="warped", show_default=True,
              help="The frequency axis; warped is the one that the networks see.")  # fmt: skip
@click.option("--channel", type=click.IntRange(1), help="One channel, from 1. Default: the mean of all.")
@click.option("--from", "start", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Where to begin.")
@click.option(
    "--seconds", type=click.FloatRange(0.1), help="How much to draw. Default: to the end, at most 20 minutes."
)
def spectrogram(file, out, axis, channel, start, seconds) -> None:
    """Draw a spectrogram of the audio file FILE as a PNG."""
    from pathlib import Path

    from storage.files.location import location
    from tasks.pages.drawing import draw_file

    target = location(out) if out else Path(f"{location(file).name}.png")
    click.echo(draw_file(file, target, axis=axis, channel=channel, start=start, seconds=seconds))
