"""Runs mutated audio files through `separate`: the run must neither crash nor hang, and each file has one outcome.

    python bench/fuzz.py [--files 2000] [--seed 0]

Takes 1.5 s of music in every format, flips bits, cuts, doubles and overwrites stretches, and edits headers. All go
through the real flow. Prints how many files were separated and how many refused, by format, and fails when a file has
no row or two outcomes, a stem does not decode, or something temporary is left.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH.parent), str(BENCH)]
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="unbraid-bench-"))

from flows.separate import separate
from storage.audio.reader import read
from storage.audio.writer import write
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tasks.demo.synthesiser import RATE, compose

SEEDS = {"wav": "int16", "flac": "int16", "ogg": "float", "opus": "float", "mp3": "float"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        counts = fuzz(Path(folder), options.files, options.seed)
        print(f"{options.files} files, seed {options.seed}, {time.perf_counter() - began:.0f} s")
        for (kind, status), count in sorted(counts.items()):
            print(f"  {kind:5} {status:7} {count}")


def fuzz(root: Path, files: int, seed: int) -> Counter:
    """Separate mutated files and check what comes of them.

    Args:
        root: An empty folder for the catalog and the output.
        files: How many to make.
        seed: Of the mutations.

    Returns:
        Number of files by (format, status).

    Raises:
        AssertionError: A promise is broken.
    """
    random = np.random.default_rng(seed)
    sources = originals(root / "originals")
    (root / "catalog").mkdir()
    for number in range(files):
        path = sources[number % len(sources)]
        data = mutated(path.read_bytes(), random)
        (root / "catalog" / f"{number:05}{path.suffix}").write_bytes(data)
    summary = separate(str(root / "catalog"), str(root / "out"), model="stereo", seconds_per_track=60.0)
    layout = OutputLayout(root / "out")
    outcomes: dict[str, set[str]] = {}
    for row in read_all(layout, summary.run_id).to_pylist():
        outcomes.setdefault(row["path"], set()).add(row["status"])
        assert row["status"] == "ok" or row["error"], row
        if row["status"] == "ok":
            audio, _ = read(layout.root / row["stem_path"])
            assert np.isfinite(audio).all(), row["path"]
    assert len(outcomes) == files, f"{files - len(outcomes)} files have no row"
    assert all(len(by_file) == 1 for by_file in outcomes.values()), "a file has two outcomes"
    left = [path for path in (root / "out").rglob("*.tmp")]
    assert not left, f"temporary files are left: {left[:3]}"
    return Counter((Path(path).suffix[1:], next(iter(by_file))) for path, by_file in outcomes.items())


def originals(folder: Path) -> list[Path]:
    """Write the same 1.5 s of music in every format.

    Args:
        folder: Where the files go.

    Returns:
        The files.
    """
    audio = compose(1, 1.5).mixture
    files = []
    for kind, depth in SEEDS.items():
        write(folder / f"song.{kind}", audio, RATE, name=kind, depth=depth)
        files.append(folder / f"song.{kind}")
    return [*files, m4a(folder / "song.m4a", audio)]


def m4a(path: Path, audio: np.ndarray) -> Path:
    """Write AAC in an MP4 container.

    Args:
        path: The file to write.
        audio: float32 (2, samples), at `RATE`.

    Returns:
        `path`.
    """
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """A file with one to three mutations; of a third of the files only one to three bits, so that decoders get far.

    Args:
        data: The file's contents.
        random: Decides on the mutations.
    """
    changed = bytearray(data)
    if random.random() < 1 / 3:
        for place in random.integers(len(changed), size=int(random.integers(1, 4))):
            changed[place] ^= 1 << int(random.integers(8))
        return bytes(changed)
    for _ in range(int(random.integers(1, 4))):
        if len(changed) < 8:
            break
        at = int(random.integers(len(changed)))
        kind = random.integers(6)
        if kind == 0:  # bits anywhere
            for place in random.integers(len(changed), size=int(random.integers(1, 20))):
                changed[place] ^= 1 << int(random.integers(8))
        elif kind == 1:  # the header
            for place in random.integers(min(64, len(changed)), size=4):
                changed[place] = int(random.integers(256))
        elif kind == 2:  # cut off
            del changed[at:]
        elif kind == 3:  # a hole
            del changed[at : at + int(random.integers(1, 4000))]
        elif kind == 4:  # a stretch twice
            changed[at:at] = changed[at : at + int(random.integers(1, 4000))]
        else:  # a number that is too large, or zero
            value = int(random.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF]))
            changed[at : at + 4] = value.to_bytes(4, "little" if random.integers(2) else "big")
    return bytes(changed)


if __name__ == "__main__":
    main()
