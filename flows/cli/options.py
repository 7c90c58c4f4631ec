"""Options that several verbs share."""

import click

device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
dask = click.option(
    "--dask", metavar="ADDRESS", help="A Dask scheduler, e.g. tcp://host:8786. Default: UNBRAID_DASK, or this machine."
)
workers = click.option("--workers", type=click.IntRange(1), help="Worker processes on this machine. Default: cores.")
memory = click.option(
    "--memory", default="auto", show_default=True, metavar="SIZE",
    help="Limit of each worker process, e.g. 4GB: one that comes near it is ended. Default: a share of the machine's.",
)  # fmt: skip
engine = click.option(
    "--engine",
    type=click.Choice(["bsseval", "sdr", "museval"]),
    default="bsseval",
    show_default=True,
    help="Who scores: ours, SDR alone, or museval itself (the same numbers, much slower).",
)
windows = click.option("--windows", is_flag=True, help="Keep the scores of every window, under OUT/windows.")
kind = click.option(
    "--kind",
    type=click.Choice(["dsd100", "musdb18", "musdb18hq", "stems", "pairs", "loose"]),
    help="The dataset's layout. Default: found from its folders.",
)


def settings_of(pairs: tuple[str, ...]) -> dict:
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
