"""Fits the calibration of the predicted scores for some weights, and writes the weights with it.

    python bench/calibrate.py WEIGHTS.safetensors OUT.safetensors [--remixes 2] [--unseen HALF0 HALF1 | --like OLD]

For the preset of the weights and for every preset that borrows them, each applied as its TOML file now says, on music
of ../shared/data that no score is judged on: musdb18_7s/train, real_stems, two clips of each MIR-1K singer but annar
and Kenshin, and three quarters of `instrumentals` for music without a voice; each song at several vocal levels from
−12 to +6 dB. A preset that borrows the weights gets one level per song and a quarter of `instrumentals`, since it takes
several times as long. With --unseen the songs are separated by other weights than those that are calibrated: each half
of them by weights that did not learn from it (bench/halves.py trains them), since a network is surer of songs that it
has learned from than of a catalog's. With --like the calibrations of other weights, which learned from these songs too,
are carried over: fitted is the step from one network to the other (`model.separation.fitting.carried_over`).

The tensors are copied unchanged. Run it before bench/ship.py: the calibration is part of the file, so the model's id
changes with it. It takes four to five CPU minutes for stereo and about six for hq, shared by the cores;
`bench/predict.py OUT.safetensors [PRESET]` judges the result.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from halves import half

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from model.checkpoint import Weights
from model.preset import borrowing_presets, load_preset
from model.separation.fitting import Observation, carried_over
from model.separation.prediction import Calibration
from model.separation.stream import Separator
from storage.audio.reader import read
from tasks.training.calibrate import borrowed, calibrated, observations

SHARED = ROOT.parent / "shared" / "data"
HELD_OUT_SINGERS = ("annar", "Kenshin")
Song = tuple[str, dict[str, np.ndarray], int]
_AUDIO = (".wav", ".flac", ".opus", ".ogg")


def main() -> None:
    """Fit the calibrations, print how well they hold, and write them with the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--remixes", type=int, default=2, help="vocal levels per song for the preset of the weights")
    parser.add_argument("--unseen", type=Path, nargs=2, default=(), metavar=("HALF0", "HALF1"))
    parser.add_argument("--like", type=Path, metavar="OLD", help="weights whose calibrations are carried over")
    options = parser.parse_args()
    if options.like and options.unseen:
        parser.error("--like carries a calibration over, --unseen fits one: give one of them")
    weights = as_applied(options.source)
    old = as_applied(options.like) if options.like else None
    separating = [as_applied(path) for path in options.unseen] or ([old, weights] if old else [weights])
    trained = weights.preset.name
    observed: dict[str, list[list[Observation]]] = {}  # preset → what each network did
    for preset in (trained, *(name for name, lender in borrowing_presets().items() if lender == trained)):
        began = time.perf_counter()
        lent = preset != trained
        observed[preset] = []
        for index, network in enumerate(separating):
            separator = borrowed(network, preset) if lent else Separator.from_weights(network)
            songs = material(separator.stems, quarters=(0,) if lent else (0, 1, 3))
            if options.unseen:
                songs = (song for song in songs if half(song[0]) == index)
            observed[preset].append(observations(separator, songs, 1 if lent else options.remixes))
        print(
            f"{preset}: {sum(map(len, observed[preset]))} mixtures in {time.perf_counter() - began:.0f} s", flush=True
        )
    if old:
        carried = {}
        for preset, seen in observed.items():
            calibration = Calibration.from_dict(old.calibrations[preset])
            carried[preset] = carried_over(calibration, list(zip(*seen, strict=True))).to_dict()
        fitted = replace(weights, calibrations={**weights.calibrations, **carried})
    else:
        fitted = calibrated(weights, {preset: list(chain(*seen)) for preset, seen in observed.items()})
    for preset, calibration in fitted.calibrations.items():
        for stem, line in calibration["stems"].items():
            print(
                f"{preset}, {stem}: mean error {line['error']:.2f} dB on songs left out, "
                f"80 % within {line['low']:+.1f} … {line['high']:+.1f} dB, {line['songs']} songs"
            )
    options.target.write_bytes(fitted.to_bytes())


def as_applied(path: Path) -> Weights:
    """Weights, applied as their preset's TOML file now says, which may have changed since they were trained.

    Args:
        path: The weights.
    """
    weights = Weights.from_bytes(path.read_bytes(), path.name)
    return replace(weights, preset=replace(weights.preset, inference=load_preset(weights.preset.name).inference))


def material(stems: tuple[str, ...], quarters: tuple[int, ...]) -> Iterator[Song]:
    """Songs to fit on, as the stems of a model.

    Args:
        stems: The model's stems.
        quarters: Which quarters of `instrumentals` are among them, 0…3; quarter 2 is kept for judging.

    Returns:
        (name, stem → float32 (channels, samples), rate in Hz) of each song.
    """
    yield from real_songs(stems, seconds=9)
    if len(stems) == 2:
        yield from mir1k(lambda singer: singer not in HELD_OUT_SINGERS, each=2)
    for index, path in enumerate(sorted((SHARED / "instrumentals").iterdir())):
        if index % 4 in quarters:
            yield without_voice(path, stems)


def real_songs(stems: tuple[str, ...], seconds: int) -> Iterator[Song]:
    """The songs of musdb18_7s/train, and two stretches of each of real_stems.

    Args:
        stems: The model's stems.
        seconds: Length of a stretch.

    Returns:
        (name, stem → float32 (channels, samples), rate in Hz) of each.
    """
    for folder in sorted((SHARED / "musdb18_7s" / "train").iterdir()):
        yield from as_stems(folder.name, *stem_folder(folder), stems)
    for folder in sorted((SHARED / "real_stems").iterdir()):
        parts, rate = stem_folder(folder)
        for start in (25, 60):
            cut = {stem: signal[:, start * rate : (start + seconds) * rate] for stem, signal in parts.items()}
            yield from as_stems(folder.name, cut, rate, stems)


def mir1k(chosen, each: int) -> Iterator[Song]:
    """The first clips of each chosen singer of MIR-1K, 8 s of each at most.

    Args:
        chosen: Says of a singer's name whether to take their clips.
        each: How many clips per singer.

    Returns:
        (singer, vocals and accompaniment of one channel each, rate in Hz) of each clip: what a singer sang in one room
        counts as one song.
    """
    taken: dict[str, int] = {}
    for path in sorted((SHARED / "mir1k" / "voice").iterdir()):
        singer = path.name.split("_")[0]
        if not chosen(singer) or taken.get(singer, 0) == each:
            continue
        taken[singer] = taken.get(singer, 0) + 1
        (voice, rate), (music, _) = read(path), read(SHARED / "mir1k" / "music" / path.name)
        samples = min(voice.shape[1], music.shape[1], 8 * rate)
        yield singer, {"vocals": voice[:, :samples], "accompaniment": music[:, :samples]}, rate


def without_voice(path: Path, stems: tuple[str, ...]) -> Song:
    """Up to eight seconds of music without vocals, all in the stem that takes the rest.

    Args:
        path: The music.
        stems: The model's stems; the last takes the rest, the others are silent.
    """
    music, rate = read(path)
    start = max(0, min(10 * rate, music.shape[1] - 8 * rate))
    music = music[:, start : start + 8 * rate]
    return path.stem, {**{stem: np.zeros_like(music) for stem in stems[:-1]}, stems[-1]: music}, rate


def stem_folder(folder: Path) -> tuple[dict[str, np.ndarray], int]:
    """The stems in a folder, and their rate.

    Args:
        folder: Audio files named after their stems; one named mixture is left out.

    Returns:
        Stem → float32 (channels, samples), and Hz.
    """
    files = {path.stem: read(path) for path in sorted(folder.iterdir()) if path.suffix in _AUDIO}
    parts = {stem: signal for stem, (signal, _) in files.items() if stem != "mixture"}
    return parts, next(iter(files.values()))[1]


def as_stems(name: str, parts: dict[str, np.ndarray], rate: int, stems: tuple[str, ...]) -> Iterator[Song]:
    """The parts of a song as the stems of a model, all of one shape.

    Args:
        name: The song's name.
        parts: Stem → (channels, samples); all but the vocals are summed where the model has an accompaniment instead.
        rate: Sample rate in Hz.
        stems: The model's stems, the first one sung.

    Returns:
        The song; nothing where parts are missing, it is no longer than a second, or the first stem is silent.
    """
    if "accompaniment" in stems and "accompaniment" not in parts:
        backing = [signal for stem, signal in parts.items() if stem != "vocals"]
        if not backing:
            return
        parts = {"vocals": parts.get("vocals", np.zeros((1, 0))), "accompaniment": _sum(backing)}
    if set(stems) - parts.keys():
        return
    samples = min(parts[stem].shape[1] for stem in stems)
    channels = max(parts[stem].shape[0] for stem in stems)
    shaped = {
        stem: np.ascontiguousarray(np.broadcast_to(parts[stem][:, :samples], (channels, samples)), np.float32)
        for stem in stems
    }
    if samples > rate and shaped[stems[0]].any():
        yield name, shaped, rate


def _sum(signals: list[np.ndarray]) -> np.ndarray:
    samples = min(signal.shape[1] for signal in signals)
    channels = max(signal.shape[0] for signal in signals)
    return np.sum([np.broadcast_to(signal[:, :samples], (channels, samples)) for signal in signals], axis=0)


if __name__ == "__main__":
    main()
