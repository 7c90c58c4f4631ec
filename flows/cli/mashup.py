"""The verb on pairs of songs: mashup."""

import os
import sys

import click

from flows.cli.options import dask, device, workers


@click.command()
@click.argument("vocals_of", type=click.Path(), required=False)
@click.argument("accompaniment_of", type=click.Path(), required=False)
@click.option("--out", type=click.Path(), help="Folder for stems, mash-ups and their table.")
@click.option("--find", type=click.Path(), metavar="OUT", help="Rank all pairs of the separated catalog OUT instead.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="With --find: how many to print.")
@click.option("--render", type=click.IntRange(0), default=0, show_default=True, help="With --find: make the best N.")
@click.option("--model", default="stereo", show_default=True, metavar="ID", help="Model id, preset, or weights file.")
@click.option("--balance", type=float, default=-1.0, show_default=True, metavar="LU",
              help="Loudness of the vocals over the accompaniment's.")  # fmt: skip
@click.option("--loudness", type=click.Choice(["song", "frame"]), default="song", show_default=True,
              help="Set the vocals' level once, or at every moment.")  # fmt: skip
@click.option("--key/--no-key", default=True, show_default=True, help="Shift the vocals to a key that fits.")
@click.option("--denoise", type=click.Choice(["hard", "soft"]), help="Gate what the separation left in the vocals.")
@click.option("--morph", "bars", type=click.IntRange(0, 64), default=0, show_default=True, metavar="BARS",
              help="Also make transitions from A to B over so many bars.")  # fmt: skip
@device
@dask
@workers
def mashup(
    vocals_of, accompaniment_of, out, find, top, render, model, balance, loudness, key, denoise, bars, device, dask,
    workers,
) -> None:  # fmt: skip
    """Put the vocals of song VOCALS_OF over the accompaniment of song ACCOMPANIMENT_OF.

    The vocals are stretched onto the other song's beats and shifted into a key that goes with it. With
    --find the pairs of a separated catalog are ranked, and --render makes the best.

    Exit code 4: the two do not fit (no beat, no vocals, tempi too far apart), and a sentence says which.
    """
    from flows.mashup import find_mashups
    from flows.mashup import mashup as flow

    choices = {"balance": balance, "loudness": loudness, "key": key, "denoise": denoise, "bars": bars}
    if find:
        if vocals_of:
            raise click.UsageError("give two songs or --find OUT, not both")
        summary = find_mashups(find, top=top, render=render, dask=dask, workers=workers, **choices)
        _show_pairs(summary.pairs)
    else:
        if not (vocals_of and accompaniment_of and out):
            raise click.UsageError("give two songs and --out, or --find OUT")
        summary = flow(
            vocals_of, accompaniment_of, out, model=model, device=device, dask=dask, workers=workers, **choices
        )
    for row in summary.rows:
        _show(row, find or out)
    sys.exit(summary.exit_code)


def _show_pairs(pairs) -> None:
    from flows.cli.console import show

    show(
        ["", "vocals of", "over", "score", "why"],
        [[pair.rank, pair.vocals_of, pair.accompaniment_of, pair.score, pair.reason] for pair in pairs],
    )
    if not pairs:
        click.echo("no two of these songs go together: their tempi are more than 15 % apart, or nobody sings")


def _show(row, out: str) -> None:
    if row.error:
        click.echo(f"unbraid: {row.vocals_of} over {row.accompaniment_of}: {row.error}", err=True)
        return
    counted = {1.0: "", 2.0: ", counted double", 0.5: ", counted half"}[row.tempo_factor]
    click.echo(
        f"{row.vocals_of} over {row.accompaniment_of}\n"
        f"  tempo    {row.tempo_a:.1f}{counted} on {row.tempo_b:.1f} beats a minute: the vocals at "
        f"{row.stretch_median:.3f} times their speed\n"
        f"  beats    {1000 * row.beat_distance_median:.0f} ms apart in the median, "
        f"{1000 * row.beat_distance_p95:.0f} ms in 95 of 100; alignment score {row.alignment_score:.2f}\n"
        f"  key      {row.key_a} on {row.key_b}: shifted by {row.semitones:+d} semitones\n"
        f"  loudness vocals {row.loudness_vocals:.1f}, accompaniment {row.loudness_accompaniment:.1f} LUFS, "
        f"true peak of the mix {row.true_peak_db:.1f} dB\n"
        f"  {row.duration_s:.0f} s in {row.seconds:.0f} s: {os.path.join(out, row.folder)}"
    )
