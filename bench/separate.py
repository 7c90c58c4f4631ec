"""Measures how fast a catalog is separated, end to end and stage by stage.

    python bench/separate.py [--tracks 20] [--minutes 4] [--model stereo] [--workers N] [--against COMMIT] [SONG …]

Makes a catalog of FLACs (the songs given, cut or repeated to length; else made songs), separates it through the
real flow into FLAC stems with metrics, and prints × real time, how busy the cores were, and where one core's time
goes. Demucs and Open-Unmix are measured for comparison, with random weights of their published sizes, where their
packages are installed; a Spleeter-shaped network (an untrained four-stem of more channels) always is. With --against or
--json only what a commit changes is measured: the flow end to end, and one song on one core.
"""

import argparse
import functools
import inspect
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))

from against import Figure, Stopwatch, add_options, compared, finish

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="unbraid-bench-"))

from weights import random_weights

from flows.separate import separate
from model.errors import ModelError
from storage.audio.reader import read
from storage.audio.writer import write
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from tasks.demo.synthesiser import RATE, compose

# Stage → the functions that are it, as (module, class or None, name). Each is replaced where it is looked up.
STAGES: dict[str, list[tuple[str, str | None, str]]] = {
    "decode": [("storage.audio.reader", "_SoundfileReader", "_decoded")],
    "STFT": [("model.separation.stream", None, "analysis"), ("model.separation.stream", None, "magnitudes")],
    "network": [("model.separation.masking", "Masker", "_forward")],
    "inverse STFT": [("model.separation.stream", None, "synthesis")],
    "predicted scores": [
        ("model.separation.stream", None, "mask_sums"),
        ("model.separation.evidence", "Evidence", "add_frames"),
        ("model.separation.evidence", "Evidence", "add_samples"),
    ],
    "meters": [
        ("model.scoring.meters", "LoudnessMeter", "weighted"),
        ("model.scoring.meters", "LoudnessMeter", "add"),
        ("model.scoring.meters", "TruePeakMeter", "push"),
    ],
    "encode": [("storage.audio.writer", "AudioWriter", "write")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("songs", nargs="*", type=Path)
    parser.add_argument("--tracks", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--model", default="stereo")
    parser.add_argument("--workers", type=int)
    add_options(parser)
    options = parser.parse_intermixed_args()
    if compared(__file__, options):
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        catalog(root / "catalog", options.songs, options.tracks, options.minutes)
        figures = end_to_end(root, options.model, options.workers)
        song = next((root / "catalog").iterdir())
        finish([*figures, *one_core(song, root, options.model, options.minutes * 60)], options)
        if not options.json:
            stages(song, root, options.model, options.minutes * 60)
            peers(root)


def catalog(folder: Path, songs: list[Path], tracks: int, minutes: float) -> None:
    """Write a catalog of FLACs of one length, each beginning elsewhere in its song.

    Args:
        folder: Where they go.
        songs: Songs to take in turn; made ones where there are none.
        tracks: How many files.
        minutes: Length of each.
    """
    sources = [read(song) for song in songs] or [(compose(seed, 30.0).mixture, RATE) for seed in range(4)]
    for number in range(tracks):
        audio, rate = sources[number % len(sources)]
        samples = round(minutes * 60 * rate)
        repeated = np.tile(audio, (1, -(-samples // audio.shape[1]) + 1))
        start = number * 997 % audio.shape[1]
        write(folder / f"{number:03}.flac", np.clip(repeated[:, start : start + samples], -1, 1), rate, name="flac")


def end_to_end(root: Path, model: str, workers: int | None) -> list[Figure]:
    """Separate the catalog through the real flow and measure how fast that is.

    Args:
        root: Folder with the catalog; the output goes there too.
        model: The model's name.
        workers: How many worker processes; chosen by the flow where None.
    """
    cores = len(os.sched_getaffinity(0))
    used: list[tuple[float, float]] = []
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(used, ended), daemon=True)
    watcher.start()
    began, stopwatch = time.perf_counter(), Stopwatch()
    summary = separate(str(root / "catalog"), str(root / "out"), model=model, workers=workers, tags=False)
    spent = stopwatch.figures("the flow")
    wall = spent[0].value
    ended.set()
    watcher.join()
    rows = read_all(OutputLayout(root / "out"), summary.run_id).to_pylist()
    done = {row["track_id"]: row for row in rows if row["status"] == "ok"}
    finished = sorted((row["finished_at"].timestamp(), row["duration_s"]) for row in done.values())
    audio = sum(duration for _, duration in finished)
    first = finished[: max(1, min(len(finished) - 1, workers or cores))]
    steady = (audio - sum(duration for _, duration in first)) / max(1e-9, finished[-1][0] - first[-1][0])
    busy = [share for when, share in used if began + 0.2 * wall < when < began + 0.8 * wall]
    print(f"{len(done)} tracks, {audio / 60:.0f} minutes of audio, {cores} cores")
    return [
        *spent,
        Figure("end to end", audio / wall, "× real time"),
        Figure("after the first track of each worker", steady, "× real time"),
        Figure("all cores busy, whoever with", 100 * float(np.mean(busy)), "%"),
        Figure("per hour of audio", spent[1].value / (audio / 3600), "core-seconds"),
    ]


_LOOK = 0.5


def watch(used: list[tuple[float, float]], ended: threading.Event) -> None:
    """Sample how busy the machine's cores are, twice per second.

    Args:
        used: Grows by (seconds of `time.perf_counter`, share of all cores, 0 … 1) of every sample.
        ended: Ends the sampling once set.
    """
    psutil.cpu_percent()
    while not ended.wait(_LOOK):
        used.append((time.perf_counter(), psutil.cpu_percent() / 100))


def one_core(song: Path, root: Path, model: str, seconds: float) -> list[Figure]:
    """Separate one song on one core, as a worker does, the model loaded already.

    Args:
        song: The song's file.
        root: Folder for the output.
        model: The model's name.
        seconds: The song's length.
    """
    track_once(song, root, model)
    began = time.process_time()
    track_once(song, root, model)
    spent = time.process_time() - began
    megabytes = sum(stem.stat().st_size for stem in (root / "stages").rglob("*.flac")) / 1e6
    return [
        Figure("one song on one core", seconds / spent, "× real time"),
        Figure("one song on one core", 3600 * spent / seconds, "core-seconds per hour of audio"),
        Figure("its stems", 60 * megabytes / seconds, "MB per minute of audio"),
    ]


def track_once(song: Path, root: Path, model: str) -> None:
    """Separate one song in this process on one thread.

    Args:
        song: The song's file.
        root: Folder for the output.
        model: The model's name.
    """
    import torch

    from storage.sources.catalog import CatalogTrack
    from tasks.separate import SeparateSettings, separate_track

    torch.set_num_threads(1)
    settings = SeparateSettings(
        out=str(root / "stages"), model=model, device="cpu", model_id="bench", stems=("vocals", "accompaniment")
    )
    rows = separate_track(settings, CatalogTrack(song.name, song.name, str(song)))
    assert all(getattr(row, "status", "ok") == "ok" for row in rows), rows


def stages(song: Path, root: Path, model: str, seconds: float) -> None:
    """Print where the time of separating one song on one core goes.

    Args:
        song: The song's file.
        root: Folder for the output.
        model: The model's name.
        seconds: The song's length.
    """
    spent = dict.fromkeys(STAGES, 0.0)
    for stage, functions in STAGES.items():
        for module, owner, name in functions:
            holder = import_module(module)
            holder = getattr(holder, owner) if owner else holder
            setattr(holder, name, timed(getattr(holder, name), stage, spent))
    began = time.process_time()
    track_once(song, root, model)
    total = time.process_time() - began
    print("\nof the processor time of one core")
    for stage, used in spent.items():
        print(f"  {stage:16} {100 * used / total:4.0f} %   {seconds / max(used, 1e-9):7.0f} × real time alone")
    print(f"  {'all else':16} {100 * (1 - sum(spent.values()) / total):4.0f} %")


def timed(function: Callable, stage: str, spent: dict[str, float]) -> Callable:
    """The function or generator function, adding the processor time of each call on its thread to its stage."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        began = time.thread_time()
        result = function(*args, **kwargs)
        spent[stage] += time.thread_time() - began
        return result

    @functools.wraps(function)
    def generate(*args, **kwargs):
        items = function(*args, **kwargs)
        while True:
            began = time.thread_time()
            item = next(items, None)
            spent[stage] += time.thread_time() - began
            if item is None:
                return
            yield item

    return generate if inspect.isgeneratorfunction(function) else call


_TURNS = 9
_SPLEETER_WIDTHS = [32, 64, 128, 192, 256, 256]  # four stems by one network; Spleeter has one of 16 to 512 for each
_LONG = 5.0  # seconds that a minute of audio takes; whoever takes longer has one turn


def peers(root: Path) -> None:
    """Print how fast separators of others are, and ours: separation alone, all cores, a minute of noise.

    Args:
        root: Folder for random weights.
    """
    import torch

    from tasks.loading import load_separator

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    shaped = random_weights("four-stem", root, **{"network_options.widths": _SPLEETER_WIDTHS})
    names = {"ours": "stereo", "Spleeter-shaped": shaped}
    for name, make in (("Open-Unmix", openunmix), ("HTDemucs", htdemucs)):
        try:
            names[name] = make(root / name)
        except (ImportError, ModelError):
            print(f"{name}: its package is not installed")
    audio = np.random.default_rng(0).standard_normal((2, 60 * RATE)).astype(np.float32) * 0.1
    # As its users run it: only our models profit from our int8.
    separators = {
        name: load_separator(model, device="cpu", precision="float32" if name == "Spleeter-shaped" else "auto")
        for name, model in names.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in separators}
    for _ in range(_TURNS):
        for name, separator in separators.items():
            if not seconds[name]:
                separator.separate(audio[:, : 30 * RATE], RATE)
            elif seconds[name][0] > _LONG:
                continue
            began = time.perf_counter()
            separator.separate(audio, RATE)
            seconds[name].append(time.perf_counter() - began)
    print(f"\nseparation alone, all cores, random weights but for ours, medians of up to {_TURNS} turns:")
    ours = float(np.median(seconds["ours"]))
    for name, each in seconds.items():
        median = float(np.median(each))
        print(f"  {name:16} {60 / median:7.1f} × real time (ours {median / ours:.1f} times as fast)")


def openunmix(folder: Path) -> str:
    """Write random weights of Open-Unmix with umxhq's sizes: four targets, 512 hidden units, 16 kHz.

    Args:
        folder: Where they go; it must not exist.

    Returns:
        The model's name for `load_separator`.

    Raises:
        ModelError: The package openunmix is not installed.
    """
    import torch

    from model.separation.adapters.openunmix import loader

    loader()
    from openunmix.model import OpenUnmix

    folder.mkdir(parents=True)
    for target in ("vocals", "drums", "bass", "other"):
        torch.save(OpenUnmix(2049, 2, 512, max_bin=1487).state_dict(), folder / f"{target}.pth")
        arguments = {"nfft": 4096, "nhop": 1024, "nb_channels": 2, "hidden_size": 512, "bandwidth": 16000}
        (folder / f"{target}.json").write_text(json.dumps({"args": arguments}))
    (folder / "separator.json").write_text(
        json.dumps({"sample_rate": RATE, "nfft": 4096, "nhop": 1024, "nb_channels": 2})
    )
    return f"openunmix:{folder}"


def htdemucs(folder: Path) -> str:
    """Write random weights of HTDemucs with its default sizes.

    Args:
        folder: Where they go; it must not exist.

    Returns:
        The model's name for `load_separator`.

    Raises:
        ImportError: The package demucs is not installed.
    """
    from demucs.htdemucs import HTDemucs
    from demucs.states import save_with_checksum

    folder.mkdir(parents=True)
    network = HTDemucs(sources=["drums", "bass", "other", "vocals"], bottom_channels=512)
    arguments, named = network._init_args_kwargs
    package = {
        "klass": HTDemucs, "args": arguments, "kwargs": named, "state": network.state_dict(), "training_args": {},
    }  # fmt: skip
    save_with_checksum(package, folder / "00000000.th")
    return f"demucs:{folder}#00000000"


if __name__ == "__main__":
    main()
