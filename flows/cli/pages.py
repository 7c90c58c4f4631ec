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
