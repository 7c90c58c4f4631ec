"""Measures what running a catalog costs besides separating it: empty tracks through the real flow.

    python bench/orchestration.py [--tracks 100000] [--against COMMIT]

Lists a manifest of so many tracks, plans, batches, sends every batch to worker processes that only return rows,
writes the parts, compacts, reports. Then the same again, when all is done. Prints seconds, core-seconds, tracks per
second, and the memory of the flow process in the first and the last third of the run and at most.
"""

import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path

import psutil

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH))

from against import Figure, Stopwatch, add_options, compared, finish

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="unbraid-bench-"))
os.environ["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}:{BENCH}".strip(":")

from storage.results.metrics import OK, StemRow


def noop_batch(settings, tracks):
    """Write empty stems for every track, as if it had been separated.

    Args:
        settings: The run's settings, which name the stems.
        tracks: The batch.

    Returns:
        One row per track and stem.
    """
    shared = {"status": OK, "duration_s": 240.0, "sample_rate": 44100, "channels": 2, "settings_hash": settings.hash}
    rows = []
    for track in tracks:
        folder = settings.folder() / track.place
        folder.mkdir(parents=True, exist_ok=True)
        for stem in settings.stems:
            path = folder / f"{stem}.flac"
            path.touch()
            rows.append(StemRow(
                settings.model_id, track.track_id, track.path, stem, source=track.source, format="flac",
                source_fingerprint=track.state.fingerprint, stem_path=str(path.relative_to(settings.out)), **shared,
            ))  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=100_000)
    add_options(parser)
    options = parser.parse_args()
    if compared(__file__, options):
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_catalog(root, options.tracks)
        finish([*turn(root, options.tracks, "first"), *turn(root, options.tracks, "again, all done")], options)


def write_catalog(root: Path, tracks: int) -> None:
    """Write a manifest of empty files, a thousand per folder.

    Args:
        root: Where `list.csv` and the files go.
        tracks: How many files.
    """
    with open(root / "list.csv", "w") as file:
        file.write("path\n")
        for number in range(tracks):
            path = root / f"{number // 1000:05}" / f"{number:08}.flac"
            if number % 1000 == 0:
                path.parent.mkdir()
            path.touch()
            file.write(f"{path.relative_to(root)}\n")


def turn(root: Path, tracks: int, name: str) -> list[Figure]:
    """Run the catalog through the flow once.

    Args:
        root: The folder of `write_catalog`; the output goes there too.
        tracks: How many files the manifest lists.
        name: What the figures are called.
    """
    from orchestration import noop_batch as importable  # by a name that worker processes can import too

    import flows.separate  # not above: the workers import this module, and need no flow

    flows.separate.separate_batch = importable
    memory: list[int] = []
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(memory, ended), daemon=True)
    watcher.start()
    stopwatch = Stopwatch()
    summary = flows.separate.separate(str(root / "list.csv"), str(root / "out"))
    spent = stopwatch.figures(name)
    ended.set()
    watcher.join()
    assert summary.done + summary.before == tracks, summary
    third = max(1, len(memory) // 3)
    shares = {"first third": sum(memory[:third]) / third, "last third": sum(memory[-third:]) / third}
    return [
        *spent,
        Figure(name, tracks / spent[0].value, "per second"),
        *(Figure(f"{name}: memory, {part}", size / 1e6, "MB") for part, size in shares.items()),
        Figure(f"{name}: memory, at most", max(memory) / 1e6, "MB"),
    ]


def watch(memory: list[int], ended: threading.Event) -> None:
    """Sample this process's memory four times per second.

    Args:
        memory: Grows by the resident bytes of every sample.
        ended: Ends the sampling once set.
    """
    process = psutil.Process()
    while not ended.wait(0.25):
        memory.append(process.memory_info().rss)


if __name__ == "__main__":
    main()
