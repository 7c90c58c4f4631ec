"""The verb on pairs of songs: mashup."""

import os
import sys
from typing import Any

import click

from flows.cli.console import echo
from flows.cli.options import chosen, under_prefect, with_output, with_parameters
from flows.cli.outcome import print_json
from flows.settings import FindMashupsOptions, MashupOptions


@click.command()
@click.argument("vocals_of", required=False)
@click.argument("accompaniment_of", required=False)
@click.option("--out", help="Folder for stems, mash-ups and their table.")
@click.option("--find", metavar="OUT", help="Rank all pairs of the separated catalog OUT instead.")
@with_parameters(FindMashupsOptions, only=["top", "render"])
@with_parameters(MashupOptions, without=["vocals_of", "accompaniment_of", "out"])
@with_output
@under_prefect
def mashup(find: str | None, as_json: bool, **values: Any) -> None:
    """Put the vocals of song VOCALS_OF over the accompaniment of song ACCOMPANIMENT_OF.

    The vocals are stretched onto the other song's beats and shifted into a key that goes with it. With
    --find the pairs of a separated catalog are ranked, and --render makes the best of them.

    Exit code 4: the two do not fit (no beat, no vocals, tempi too far apart), and a sentence says why.
    """
    from flows.cli.ahead import mashing_ahead, separating_ahead

    if find:
        if values["vocals_of"]:
            raise click.UsageError("give two songs or --find OUT, not both")
        from flows.mashup import find_mashups

        summary = find_mashups(**chosen(FindMashupsOptions, {**values, "out": find}).values())
        if not as_json:
            _show_pairs(summary.pairs)
    else:
        if not (values["vocals_of"] and values["accompaniment_of"] and values["out"]):
            raise click.UsageError("give two songs and --out, or --find OUT")
        options = chosen(MashupOptions, values)
        with separating_ahead(2, options, options.out), mashing_ahead():
            from flows.mashup import mashup as flow

            summary = flow(**options.values())
    if as_json:
        print_json(summary, exit_code=summary.exit_code)
        sys.exit(summary.exit_code)
    for row in summary.rows:
        _show(row, summary.out)
    sys.exit(summary.exit_code)


def _show_pairs(pairs) -> None:
    from flows.cli.console import show

    show(
        ["", "vocals of", "over", "score", "why"],
        [[pair.rank, pair.vocals_of, pair.accompaniment_of, pair.score, pair.reason] for pair in pairs],
    )
    if not pairs:
        echo("no two of these songs go together: their tempi are more than 15 % apart, or they have no vocals")


def _show(row, out: str) -> None:
    if row.error:
        echo(f"unbraid: {row.vocals_of} over {row.accompaniment_of}: {row.error}", err=True)
        return
    counted = {1.0: "", 2.0: ", counted double", 0.5: ", counted half"}[row.tempo_factor]
    echo(
        f"{row.vocals_of} over {row.accompaniment_of}\n"
        f"  tempo    {row.tempo_a:.1f}{counted} on {row.tempo_b:.1f} beats per minute: the vocals at "
        f"{row.stretch_median:.3f} times their speed\n"
        f"  beats    {1000 * row.beat_distance_median:.0f} ms apart in the median, "
        f"{1000 * row.beat_distance_p95:.0f} ms in 95 of 100; alignment score {row.alignment_score:.2f}\n"
        f"  key      {row.key_a} on {row.key_b}: shifted by {row.semitones:+d} semitones\n"
        f"  loudness vocals {row.loudness_vocals:.1f}, accompaniment {row.loudness_accompaniment:.1f} LUFS, "
        f"true peak of the mix {row.true_peak_db:.1f} dB\n"
        f"  {row.duration_s:.0f} s in {row.seconds:.0f} s: {os.path.join(out, row.folder)}"
    )
