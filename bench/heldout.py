"""Splits ../shared/data into what networks may learn from and what they are scored on.

    python bench/heldout.py FOLDER [SHARED]

FOLDER/learn/everythingisfree   its songs without their last minute, as stems
FOLDER/learn/drums, bass        single loops and hits (links)
FOLDER/learn/made               forty made songs of 30 s in stems, in DSD100's layout
FOLDER/test/mir1k               the singers annar and Kenshin, 0 dB, as voice and music (links)
FOLDER/test/everythingisfree    the last minutes, as stems
FOLDER/test/dsd100_dev, stems_mp4   as they are (links)
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from storage.audio.reader import read
from storage.audio.writer import write
from tasks.demo.compose import write_songs

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
HELD_OUT_SINGERS = ("annar", "Kenshin")
_TEST_SECONDS = 60


def main(root: Path, shared: Path = SHARED) -> None:
    """Make the folders `learn` and `test`.

    Args:
        root: Where they go; files that exist there are kept.
        shared: The data.
    """
    for half in ("voice", "music"):
        for path in sorted((shared / "mir1k" / half).iterdir()):
            if path.name.split("_")[0] in HELD_OUT_SINGERS:
                link(path, root / "test" / "mir1k" / half / path.name)
    for song in sorted((shared / "everythingisfree").iterdir()):
        cut(song, root)
    for path in sorted((shared / "drum_loops").iterdir()):
        stem = "bass" if "bass" in path.name and not path.name.startswith("drum_") else "drums"
        link(path, root / "learn" / stem / path.name)
    write_songs(root / "learn" / "made", train=40, test=0, seconds=30.0, seed=5000)
    link(shared / "dsd100_dev_excerpts", root / "test" / "dsd100_dev")
    link(shared / "stems_mp4", root / "test" / "stems_mp4")


def cut(song: Path, root: Path) -> None:
    """Cut a song: the last minute of its stems is for testing, the rest for learning.

    Args:
        song: Folder of the song's stems, Opus files of one rate; they are cut to the shortest one's length.
        root: The folder with `learn` and `test`; files that exist there are kept.
    """
    signals = {path.stem: read(path) for path in sorted(song.glob("*.opus"))}
    rate = next(iter(signals.values()))[1]
    samples = min(audio.shape[1] for audio, _ in signals.values())
    border = samples - _TEST_SECONDS * rate
    for stem, (audio, _) in signals.items():
        for half, part in (("learn", audio[:, :border]), ("test", audio[:, border:samples])):
            target = root / half / "everythingisfree" / song.name / f"{stem}.flac"
            if not target.exists():
                write(target, np.clip(part, -1, 1), rate, name="flac", depth="int16")


def link(source: Path, target: Path) -> None:
    """Link to a file or folder, unless something is there already.

    Args:
        source: What the link points to.
        target: The link; its folder is made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source.resolve())


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*(Path(argument) for argument in sys.argv[1:]))
