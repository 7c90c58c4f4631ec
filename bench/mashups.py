"""Makes mash-ups of all ordered pairs of some songs: how each turns out, and how long it takes.

    python bench/mashups.py OUT [SONG …]

Takes the songs of ../shared/data/songs if none are given. Separates them into OUT once, then makes every pair. Prints
tempi, key shift, how far beats lie apart, seconds against the song's length, the true peak, and the longest silence
of the mix beyond those of the accompaniment.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flows.separate import separate
from storage.audio.reader import read
from storage.files.layout import OutputLayout
from storage.results.separated import separated_tracks
from tasks.mashup.render import MashupSettings, mash

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "songs"


def main(out: Path, songs: list[Path]) -> None:
    """Separate the songs, make every ordered pair and print what came of it.

    Args:
        out: The run folder.
        songs: The songs' files.
    """
    layout = OutputLayout(out)
    separate([str(song.resolve()) for song in songs], str(out))
    settings = MashupSettings(out=str(out))
    for a, b in itertools.permutations(separated_tracks(layout), 2):
        row = mash(settings, a, b)
        print(f"{a.name}  over  {b.name}")
        if row.error or row.folder is None:
            print(f"    {row.status}: {row.error} ({row.seconds:.0f} s)")
            continue
        apart, late = (
            f"{1000 * (seconds or 0):.0f} ms" for seconds in (row.beat_distance_median, row.beat_distance_p95)
        )
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
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(song) for song in sys.argv[2:]] or sorted(SHARED.iterdir()))
