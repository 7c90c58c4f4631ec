"""Makes mash-ups of ordered pairs of some songs: how each turns out, and what a pair and an analysed song cost.

    python bench/mashups.py OUT [--pairs N] [--against COMMIT] [SONG …]

Takes the songs of ../shared/data/songs if none are given. Separates them into OUT once, analyses each on one core, then
makes every ordered pair, or the first N. Prints tempi, key shift, how far beats lie apart, seconds against the song's
length, the true peak, and the longest silence of the mix beyond those of the accompaniment; last seconds and
core-seconds per pair, and the speed of the analysis. With --against each commit separates into a folder below OUT.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from against import ROOT, TODAY, Figure, Stopwatch, add_options, compared, finish

from flows.separate import separate
from storage.audio.reader import read
from storage.files.layout import OutputLayout
from storage.results.separated import SeparatedTrack, separated_tracks
from tasks.mashup.analysis import analyse_songs
from tasks.mashup.render import MashupSettings, mash

SHARED = TODAY.parent / "shared" / "data" / "songs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("songs", type=Path, nargs="*")
    parser.add_argument("--pairs", type=int, help="how many; all ordered pairs by default")
    add_options(parser)
    options = parser.parse_intermixed_args()
    if compared(__file__, options):
        return
    out = options.out.resolve() / ("now" if ROOT == TODAY else "then") if options.json else options.out.resolve()
    separate([str(song.resolve()) for song in options.songs or sorted(SHARED.iterdir())], str(out))
    songs = list(separated_tracks(OutputLayout(out)))
    figures = pairs(out, songs, options.pairs, quiet=options.json)
    finish([*figures, *analysis(songs)], options)


def analysis(songs: list[SeparatedTrack]) -> list[Figure]:
    """How fast songs are analysed by one core, in core-seconds; one is analysed beforehand, for what is imported.

    Args:
        songs: Separated songs.
    """
    analyse_songs(songs[:1])
    began = time.process_time()
    rows = analyse_songs(songs)
    spent = time.process_time() - began
    audio = sum(row.duration_s for row in rows)
    return [
        Figure("a song analysed, one core", spent / len(rows), "core-seconds"),
        Figure("analysis, one core", audio / spent, "× real time"),
    ]


def pairs(out: Path, songs: list[SeparatedTrack], most: int | None, *, quiet: bool) -> list[Figure]:
    """Make mash-ups and print what came of them.

    Args:
        out: The run folder.
        songs: Songs separated into it.
        most: How many ordered pairs; None for all.
        quiet: Whether to print nothing.

    Returns:
        What a pair takes, the first left out, since it imports what the others use.
    """
    settings = MashupSettings(out=str(out))
    chosen = list(itertools.islice(itertools.permutations(songs, 2), most))
    stopwatch, audio = Stopwatch(), 0.0
    for number, (a, b) in enumerate(chosen):
        row = mash(settings, a, b)
        if number == 0 and len(chosen) > 1:
            stopwatch, audio = Stopwatch(), 0.0
        else:
            audio += row.duration_s or 0.0
        if not quiet:
            show(out, a, b, row)
    counted = max(1, len(chosen) - 1)
    each = [Figure("a pair", figure.value / counted, figure.unit) for figure in stopwatch.figures("a pair")]
    return [*each, Figure("a pair: music made", audio / counted, "s of audio")]


def show(out: Path, a: SeparatedTrack, b: SeparatedTrack, row) -> None:
    """Print what came of a pair.

    Args:
        out: The run folder.
        a: The song of the vocals.
        b: The song of the accompaniment.
        row: The mash-up's row.
    """
    print(f"{a.name}  over  {b.name}")
    if row.error or row.folder is None:
        print(f"    {row.status}: {row.error} ({row.seconds:.0f} s)")
        return
    apart, late = (f"{1000 * (seconds or 0):.0f} ms" for seconds in (row.beat_distance_median, row.beat_distance_p95))
    print(
        f"    tempo {row.tempo_a:.1f} × {row.tempo_factor:g} on {row.tempo_b:.1f}, speed {row.stretch_median:.3f} "
        f"({row.stretch_min:.2f}…{row.stretch_max:.2f}); {row.key_a} on {row.key_b}: {row.semitones:+d}\n"
        f"    beats apart {apart}, p95 {late}, "
        f"score {row.alignment_score:.2f}; {row.duration_s:.0f} s made in {row.seconds:.0f} s; true peak "
        f"{row.true_peak_db:.2f} dB; longest silence {silence(out / row.folder):.1f} s", flush=True,
    )  # fmt: skip


def silence(folder: Path) -> float:
    """The longest stretch, in seconds, in which the mix is below −60 dBFS while the accompaniment is above −50.

    Args:
        folder: A mash-up's folder.
    """
    mix, rate = read(folder / "mix.flac")
    rest, _ = read(folder / "accompaniment.flac")
    size = rate // 10
    levels = [
        np.sqrt(np.square(x[:, : x.shape[1] // size * size].reshape(len(x), -1, size)).mean(axis=(0, 2)))
        for x in (mix, rest)
    ]
    quiet = (levels[0] < 1e-3) & (levels[1] > 3e-3)
    longest = max((len(list(run)) for value, run in itertools.groupby(quiet) if value), default=0)
    return longest / 10


if __name__ == "__main__":
    main()
