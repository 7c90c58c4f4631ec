"""Verbs that show: report, browse, explore, spectrogram."""

import click


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--run", metavar="RUN", help="The run to report. Default: the last one.")
@click.option("--compare", multiple=True, metavar="RUN",
              help="A run to show beside it; repeat it. Default: the one before of the same kind.")  # fmt: skip
def report(folder, run, compare) -> None:
    """Write a page about a run in the run folder FOLDER.

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
    for `unbraid separate`. The address holds a key: who does not have it sees nothing. Nothing is written.
    """
    from flows.pages.server import serve
    from storage.files.layout import OutputLayout
    from storage.files.location import location

    serve(OutputLayout(location(out)), port, lambda address: click.echo(f"{out} is at {address}\nCtrl-C ends it"))
