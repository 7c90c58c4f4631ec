"""Keys, and by how many semitones one song must move to go with another."""

from dataclasses import dataclass

import numpy as np

from tasks.mashup.chroma import Chromagram

_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
# Albrecht & Shanahan, "The use of large corpora to train a new type of key-finding algorithm", Music Perception
# 2013: shares of the pitch classes in major and minor pieces.
_MAJOR = np.array([0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081])
_MINOR = np.array([0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052])
MOST_SEMITONES = 4


@dataclass(frozen=True)
class Key:
    """A tonic as pitch class (0 is C) and its mode. `confidence`, 0…1, is the lead over the best unrelated key."""

    tonic: int
    minor: bool
    confidence: float = 1.0

    def __str__(self) -> str:
        return f"{_NAMES[self.tonic]} {'minor' if self.minor else 'major'}"

    def shifted(self, semitones: int) -> "Key":
        """The key of the same music transposed; mode and confidence stay.

        Args:
            semitones: Upwards; negative for downwards.
        """
        return Key((self.tonic + semitones) % 12, self.minor, self.confidence)

    @property
    def place(self) -> int:
        """Place on the circle of fifths, 0…11, that of the relative major: keys at one place share their notes."""
        return (self.tonic + (3 if self.minor else 0)) * 7 % 12


def find_key(chroma: Chromagram) -> Key:
    """The key of music without drums, by correlating its sustained sound with key profiles.

    Args:
        chroma: The music's chromagram.

    Returns:
        The key; C major with confidence 0 for silence.
    """
    return key_of_chroma(chroma.sustained)


def key_of_chroma(chroma: np.ndarray) -> Key:
    """The key whose profile (Albrecht & Shanahan 2013) correlates best with twelve pitch classes' energies.

    Args:
        chroma: (12,) shares or energies, C first.

    Returns:
        The key; C major with confidence 0 where all are 0.
    """
    if not chroma.any():
        return Key(0, False, 0.0)
    fits = {
        (tonic, minor): float(np.corrcoef(np.roll(profile, tonic), chroma)[0, 1])
        for minor, profile in ((False, _MAJOR), (True, _MINOR))
        for tonic in range(12)
    }
    (tonic, minor), best = max(fits.items(), key=lambda item: item[1])
    key = Key(tonic, minor)
    rival = max(fit for (t, m), fit in fits.items() if distance(key, Key(t, m)) > 0)
    return Key(tonic, minor, float(np.clip((best - rival) / max(1 - rival, 1e-6) * 2, 0, 1)))


def distance(a: Key, b: Key) -> int:
    """Steps on the circle of fifths, 0…6: 0 for the same key and its relative, 1 for a fifth up or down.

    Args:
        a: One key.
        b: The other; the order makes no difference.
    """
    steps = (a.place - b.place) % 12
    return min(steps, 12 - steps)


def fewest_semitones(a: Key, b: Key) -> int:
    """The smallest shift of A, within ±4, that makes it compatible with B: the same key, its relative, or a fifth.

    A fifth of the other mode is none of these and counts as one step further.

    Args:
        a: Key of the song that is shifted.
        b: Key of the song that stays.

    Returns:
        Semitones, −4 … 4, negative for downwards; the shift that comes nearest where none makes them compatible.
    """

    def unfit(semitones: int) -> int:
        moved = a.shifted(semitones)
        steps = distance(moved, b)
        return max(0, steps - 1) + (1 if steps == 1 and moved.minor != b.minor else 0)

    return min(range(-MOST_SEMITONES, MOST_SEMITONES + 1), key=lambda s: (unfit(s), abs(s), s))


def key_table() -> list[dict]:
    """For every ordered pair of the 24 keys, the semitones that A moves by and the distance that then remains."""
    keys = [Key(tonic, minor) for tonic in range(12) for minor in (False, True)]
    return [
        {
            "tonic_a": a.tonic,
            "minor_a": a.minor,
            "tonic_b": b.tonic,
            "minor_b": b.minor,
            "semitones": (semitones := fewest_semitones(a, b)),
            "distance": distance(a.shifted(semitones), b),
        }
        for a in keys
        for b in keys
    ]
