"""Synthetic songs onto disk, in DSD100's layout."""

from pathlib import Path

import numpy as np

from storage.audio.writer import write
from tasks.demo.synthesiser import RATE, compose


def write_songs(root: Path, *, train: int, test: int, seconds: float = 20.0, seed: int = 0) -> list[Path]:
    """Make songs in DSD100's layout; a song that is there already stays.

    Args:
        root: The dataset's folder.
        train: How many songs under Dev.
        test: How many under Test.
        seconds: The length of each song.
        seed: The seed of the first song; the others count up from there.

    Returns:
        The paths of the mixtures.
    """
    mixtures = []
    for number in range(train + test):
        half = "Dev" if number < train else "Test"
        name = f"{number + 1:03} - The Synthetics - Song {seed + number}"
        mixture = root / "Mixtures" / half / name / "mixture.wav"
        mixtures.append(mixture)
        if mixture.exists():
            continue
        # Stems are rounded to 16 bits first, so that the mixture is exactly their sum.
        stems = {k: np.round(v * 32768) / 32768 for k, v in compose(seed + number, seconds).stems.items()}
        for stem, audio in stems.items():
            write(root / "Sources" / half / name / f"{stem}.wav", audio, RATE)
        write(mixture, np.sum(list(stems.values()), axis=0), RATE)
    return mixtures
