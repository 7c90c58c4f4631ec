"""Checks that a separation is the same to the last byte, however it is run.

    python bench/same_bytes.py [MODEL] [SONG] [SECONDS]

Compares hashes of the stems' samples: torch with 1, 2 and 4 threads × 1 and 4 segments at a time through the network ×
blocks of 0.1 s, 3 s and the complete song; then the song alone and in a catalog of four (`unbraid separate`). MODEL is
stereo if none is given, SONG the first of ../shared/data/songs, of which SECONDS (22) are taken.
"""

import hashlib
import itertools
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch

from model.separation.grid import on_grid
from model.separation.stream import Separator
from storage.audio.reader import read
from storage.audio.writer import write
from tasks.loading import load_separator

THREADS, BATCHES, BLOCKS = (1, 2, 4), (1, 4), (4410, 131072, None)


def main(model: str, song: Path, seconds: float) -> int:
    """Print the hash of every way to separate a song.

    Args:
        model: One of our networks.
        song: The song's file.
        seconds: How much of its beginning is taken.

    Returns:
        0 where all hashes are equal, else 1.

    Raises:
        SystemExit: The model is not one of our networks.
    """
    audio, rate = read(song)
    audio = audio[:, : int(seconds * rate)]
    audio = np.round(np.clip(audio, -1, 1 - 2**-15) * 32768).astype(np.float32) / 32768
    hashes = {}
    for threads, batch in itertools.product(THREADS, BATCHES):
        torch.set_num_threads(threads)
        separator = load_separator(model, device="cpu")
        if not isinstance(separator, Separator):
            raise SystemExit(f"{model} is not one of our networks")
        separator.batch = batch
        for block in BLOCKS:
            stems = in_blocks(separator, audio, rate, block or audio.shape[1])
            way = f"{threads} threads, batch {batch}, blocks of {block or 'all'}"
            hashes[way] = digest(on_grid(audio, stems, separator.stems[-1], 16))
            print(f"{hashes[way]}  {way}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for way, stems in through_catalogs(model, Path(folder), audio, rate):
            hashes[way] = digest(stems)
            print(f"{hashes[way]}  {way}", flush=True)
    same = len(set(hashes.values())) == 1
    print("one hash" if same else f"{len(set(hashes.values()))} different hashes", f"of {len(hashes)} ways")
    return 0 if same else 1


def in_blocks(separator, audio: np.ndarray, rate: int, size: int) -> dict[str, np.ndarray]:
    """The stems of a song that is pushed block by block.

    Args:
        separator: What separates it.
        audio: float32 (channels, samples).
        rate: Sample rate in Hz.
        size: Samples per block.

    Returns:
        Stem → (channels, samples).
    """
    stream = separator.stream(rate, audio.shape[0])
    pieces = [p for start in range(0, audio.shape[1], size) for p in stream.push(audio[:, start : start + size])]
    pieces += stream.finish()
    return {stem: np.concatenate([piece.stems[stem] for piece in pieces], axis=1) for stem in separator.stems}


def through_catalogs(model: str, folder: Path, audio: np.ndarray, rate: int):
    """The stems that `unbraid separate` writes for a song, alone and then in a catalog of four.

    Args:
        model: The model's name.
        folder: An empty folder for catalogs and outputs.
        audio: (channels, samples), on the 16-bit grid.
        rate: Sample rate in Hz.

    Returns:
        (name of the way, stem → (channels, samples)) of either catalog.
    """
    from flows.separate import separate

    for name, others in (("alone", 0), ("in a catalog of four", 3)):
        catalog = folder / f"catalog{others}"
        catalog.mkdir()
        write(catalog / "song.wav", audio, rate)
        for other in range(others):
            write(catalog / f"other{other}.wav", np.roll(audio, 7919 * (other + 1), axis=1), rate)
        out = folder / f"out{others}"
        separate(str(catalog), str(out), model=model, format="wav", device="cpu")
        stems = {file.stem: read(file)[0] for file in sorted((out / "stems").glob("song.wav/*.wav"))}
        if not stems:
            stems = {file.stem: read(file)[0] for file in sorted((out / "stems").glob("song*/*.wav"))}
        yield f"{name}, {os.cpu_count()} cores", stems


def digest(stems: dict[str, np.ndarray]) -> str:
    """Sixteen hex digits of SHA-256 over the 16-bit samples of all stems, in the order of their names.

    Args:
        stems: Stem → (channels, samples).
    """
    sha = hashlib.sha256()
    for _, signal in sorted(stems.items()):
        sha.update(np.ascontiguousarray(np.round(signal * 32768).astype(np.int32)).tobytes())
    return sha.hexdigest()[:16]


if __name__ == "__main__":
    songs = sorted((ROOT.parent / "shared" / "data" / "songs").glob("*.ogg"))
    chosen = Path(sys.argv[2]) if len(sys.argv) > 2 else songs[0]
    length = float(sys.argv[3]) if len(sys.argv) > 3 else 22.0
    raise SystemExit(main(sys.argv[1] if len(sys.argv) > 1 else "stereo", chosen, length))
