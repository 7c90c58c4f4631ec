"""Measures what running a catalog costs besides separating it: empty tracks through the real flow.

    python bench/orchestration.py [--tracks 100000]

Lists a manifest of so many tracks, plans, batches, sends every batch to worker processes that only return rows,
writes the parts, compacts, reports. Then the same again, when all is done. Prints seconds, tracks per second, the
memory of the flow process, and the minutes that a million tracks would take.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="unbraid-bench-"))
os.environ["PYTHONPATH"] = f"{Path(__file__).resolve().parent}:{os.environ.get('PYTHONPATH', '')}"

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
    tracks = parser.parse_args().tracks
    from orchestration import noop_batch as importable  # by a name that worker processes can import too

    import flows.separate  # not above: the workers import this module, and need no Prefect

    flows.separate.separate_batch = importable
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with open(root / "list.csv", "w") as file:
            file.write("path\n")
            for number in range(tracks):
                path = root / f"{number // 1000:05}" / f"{number:08}.flac"
                if number % 1000 == 0:
                    path.parent.mkdir()
                path.touch()
                file.write(f"{path.relative_to(root)}\n")
        for turn in ("first", "again, all done"):
            memory: list[int] = []
            ended = threading.Event()
            watcher = threading.Thread(target=watch, args=(memory, ended), daemon=True)
            watcher.start()
            began = time.perf_counter()
            summary = flows.separate.separate(str(root / "list.csv"), str(root / "out"))
            seconds = time.perf_counter() - began
            ended.set()
            watcher.join()
            assert summary.done + summary.before == tracks, summary
            third = max(1, len(memory) // 3)
            print(
                f"{turn}: {tracks} tracks in {seconds:.1f} s ({tracks / seconds:.0f} a second; a million in "
                f"{seconds * 1e6 / tracks / 60:.1f} min), memory {sum(memory[:third]) / third / 1e6:.0f} MB in the "
                f"first third, {sum(memory[-third:]) / third / 1e6:.0f} in the last, {max(memory) / 1e6:.0f} at most"
            )


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
