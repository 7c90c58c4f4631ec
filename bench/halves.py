"""Trains a network twice, each time without one half of the songs, so that both halves can be judged as unseen.

    python bench/halves.py STORE FOLDER --from WEIGHTS [--preset stereo] [KEY=VALUE …]

Songs of musdb18_7s and real_stems and singers of MIR-1K are halved by the hash of their names; all else is in both
halves. Half 0 is missing in FOLDER/0.zarr, whose training is FOLDER/0, half 1 in FOLDER/1.zarr and FOLDER/1. KEY=VALUE
are settings of the preset, such as steps=110. Start from weights that have seen none of these songs. Then
`bench/calibrate.py WEIGHTS OUT --unseen FOLDER/0/best.safetensors FOLDER/1/best.safetensors`.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

HALVED = ("musdb18_7s", "real_stems", "mir1k")


def main() -> None:
    """Train without either half, one after the other."""
    from storage.store import Store
    from tasks.training.train import TrainRequest, train

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--from", dest="start", required=True)
    parser.add_argument("--preset", default="stereo")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args()
    settings = tuple((key, json.loads(value)) for key, value in (pair.split("=", 1) for pair in options.settings))
    for index in (0, 1):
        store = options.folder / f"{index}.zarr"
        without(options.store, store, index)
        Store.create(store, Store.open(options.store).format).consolidate()
        folder = options.folder / str(index)
        print(
            train(
                TrainRequest(
                    store=str(store), folder=str(folder), preset=options.preset, overrides=settings,
                    start=options.start, resume=(folder / "checkpoint.safetensors").exists(),
                )
            ),
            flush=True,
        )  # fmt: skip


def half(song: str) -> int:
    """Which half a song belongs to, 0 or 1.

    Args:
        song: Its name, or that of its singer.
    """
    return int(hashlib.sha256(song.encode()).hexdigest(), 16) % 2


def without(store: Path, target: Path, missing: int) -> None:
    """Lay out a store of links to the tracks of another, without those of one half.

    Args:
        store: The other store.
        target: The new one, whose metadata are not consolidated yet.
        missing: The half that is left out.
    """
    for track in store.glob("*/*/*"):
        dataset = track.parent.name
        name = track.name.split("_")[0] if dataset == "mir1k" else track.name
        link = target / track.relative_to(store)
        if track.is_dir() and not link.exists() and not (dataset in HALVED and half(name) == missing):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(track.resolve())
    for attributes in (store / "zarr.json", *store.glob("*/zarr.json"), *store.glob("*/*/zarr.json")):
        copy = target / attributes.relative_to(store)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(attributes.read_bytes())


if __name__ == "__main__":
    main()
