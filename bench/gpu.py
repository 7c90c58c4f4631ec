"""Measures separation and training on a GPU, in one call of under eight minutes, and prints a table for the docs.

    python bench/gpu.py [--device auto] [--model stereo] [--batches 1 4 8 16 32] [--songs FILE …] [--store STORE]
                        [--parts agreement device catalog training] [--minutes 7.5] [--write FILE] [--quick]

agreement: how far stems are from the CPU's float32 ones in dB, and whether a file beside others has the bits of the
file alone. device: × real time by segments per batch, from memory to memory, without decoding and encoding. catalog: a
catalog of FLACs through the real flow, into FLAC stems with metrics and rows. training: examples and steps per second
(the parts of bench/training.py), with the network as it is and compiled.

Beside each figure stands how busy the GPU was (NVML, else nvidia-smi; on a CPU the cores) and its peak memory. A part
that fails, or for which no time is left, says so and leaves the others as they are. `--device cpu --quick` runs the
same code in about a minute. The table goes to --write FILE too, row by row, so that a call that is cut off leaves one.
"""

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH.parent), str(BENCH)]
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="unbraid-bench-"))

import numpy as np
import psutil
import torch

from model.separation.arithmetic import multiplies_bfloat16, resolved_device
from model.separation.stream import Separator
from tasks.loading import load_weights

_LOOK_SECONDS = 0.2
_BLOCK_SECONDS = 5.0  # about what a decoder hands over at a time
PARTS = ("agreement", "device", "catalog", "training")


@dataclass
class Table:
    """What was measured, as a Markdown table that grows."""

    file: Path | None
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: str, beside: str = "") -> None:
        """Print a row and keep it.

        Args:
            what: What was measured.
            figure: The figure, with its unit.
            beside: How busy the device was, and other remarks.
        """
        print(f"{what:44} {figure:>22}   {beside}", flush=True)
        self.rows.append((what, figure, beside))
        if self.file is not None:
            self.file.write_text(str(self))

    def __str__(self) -> str:
        rows = (" | ".join(cell.replace("|", "/") for cell in row) for row in self.rows)
        lines = ["| | | beside it |", "| --- | --- | --- |", *(f"| {row} |" for row in rows)]
        return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="stereo")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--songs", type=Path, nargs="*", default=[])
    parser.add_argument("--store", help="of waveforms, to train on; made of made songs where it is not given")
    parser.add_argument("--preset", default="stereo", help="what is trained")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=7.5, help="in all; parts that would begin later are left out")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement on the device")
    parser.add_argument("--tracks", type=int, default=96, help="of the catalog")
    parser.add_argument("--song-seconds", type=float, default=240.0, help="length of each of its tracks")
    parser.add_argument("--steps", type=int, default=400, help="of each measurement of training")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--quick", action="store_true", help="little of everything, for a look that the code runs")
    options = parser.parse_args()
    if options.quick:
        options.batches = [batch for batch in options.batches if batch <= 4]
        options.seconds, options.steps = min(2.0, options.seconds), min(4, options.steps)
        options.tracks, options.song_seconds = min(2, options.tracks), min(20.0, options.song_seconds)
    began = time.monotonic()
    options.device = resolved_device(options.device)
    table = Table(options.write)
    table.add("machine", machine(options.device), f"torch {torch.__version__}, {cores()} cores, {platform.machine()}")
    measure: dict[str, Callable[[argparse.Namespace, Table], None]] = {
        "agreement": agreement, "device": device_alone, "catalog": catalog, "training": training,
    }  # fmt: skip
    failed = False
    for part in options.parts:
        spent = (time.monotonic() - began) / 60
        if spent > options.minutes:
            table.add(part, "left out", f"after {spent:.1f} minutes")
            continue
        try:
            measure[part](options, table)
        except Exception as error:  # the other parts' figures are worth having
            failed = True
            table.add(part, "failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200])
    table.add("all of this", f"{time.monotonic() - began:.0f} s")
    print(f"\n{table}")
    sys.exit(failed)


def machine(device: str) -> str:
    """The name of the device, with its memory."""
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, {properties.total_memory >> 30} GiB"
    return platform.processor() or device


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Busy:
    """How busy a device is while a body runs: `share` as a mean (0 … 1) and `bytes` at its peak, over all processes.

    Args:
        device: "cuda", "mps" or "cpu"; where it is not CUDA the cores are looked at.
    """

    def __init__(self, device: str) -> None:
        self._look = _looks(device)
        self._samples: list[tuple[float, int]] = []
        self.what = "GPU" if device == "cuda" and self._look is not None else "cores"

    @contextlib.contextmanager
    def watching(self) -> Iterator["Busy"]:
        """Sample while the body runs."""
        ended = threading.Event()
        self._samples = []
        psutil.cpu_percent()

        def sample() -> None:
            while not ended.wait(_LOOK_SECONDS):
                used = self._look() if self._look is not None else None
                self._samples.append(used or (psutil.cpu_percent() / 100, 0))

        watcher = threading.Thread(target=sample, daemon=True)
        watcher.start()
        try:
            yield self
        finally:
            ended.set()
            watcher.join()

    def __str__(self) -> str:
        if not self._samples:
            return "too short to look"
        share = np.mean([share for share, _ in self._samples])
        most = max(used for _, used in self._samples)
        return f"{self.what} {share:.0%} busy" + (f", {most / 2**30:.1f} GiB" if most else "")


def _looks(device: str) -> Callable[[], tuple[float, int] | None] | None:
    """What reads the GPU's utilisation and memory; None where nothing can."""
    if device != "cuda":
        return None
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return lambda: (
            pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
        )
    return _by_command if shutil.which("nvidia-smi") else None


def _by_command() -> tuple[float, int] | None:
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        share, mebibytes = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split(",")
        return float(share) / 100, int(mebibytes) << 20
    except (subprocess.CalledProcessError, ValueError):
        return None


def separator(options: argparse.Namespace, device: str, precision: str, batch: int | None = None) -> Separator:
    """The model on a device.

    Args:
        options: The command line, of which `model` counts.
        device: Where it runs.
        precision: The precision.
        batch: How many segments share a batch; None for the default.
    """
    model_id, weights = load_weights(options.model)
    return Separator.from_weights(weights, model_id=model_id, device=device, precision=precision, batch=batch)


def precisions(options: argparse.Namespace) -> list[str]:
    """float32, and bfloat16 where the device has it."""
    return ["float32", *(["bfloat16"] if multiplies_bfloat16(torch.device(options.device)) else [])]


def music(options: argparse.Namespace, seconds: float) -> tuple[np.ndarray, int]:
    """A song of so many seconds, (2, samples) and its rate: of the command line, else a made one."""
    if options.songs:
        from storage.audio.reader import read

        audio, rate = read(options.songs[0])
    else:
        from tasks.demo.synthesiser import RATE, compose

        audio, rate = compose(1, min(30.0, seconds)).mixture, RATE
    audio = np.repeat(audio, 2, axis=0) if len(audio) == 1 else audio[:2]
    samples = round(seconds * rate)
    return np.tile(audio, (1, -(-samples // audio.shape[1])))[:, :samples].astype(np.float32), rate


def agreement(options: argparse.Namespace, table: Table) -> None:
    """Stems against those of the CPU in float32, alone and beside others."""
    audio, rate = music(options, min(options.song_seconds, 8.0 if options.quick else 60.0))
    torch.set_num_threads(cores())
    expected = separator(options, "cpu", "float32").separate(audio, rate)
    torch.set_num_threads(1)
    batch = max(options.batches[:2])
    for precision in precisions(options):
        model = separator(options, options.device, precision, batch)
        stems, again = (model.separate(audio, rate) for _ in range(2))
        levels = ", ".join(f"{stem} {_apart(expected[stem], stems[stem])}" for stem in stems)
        starts = (0, rate, 0, 2 * rate)
        with ThreadPoolExecutor(len(starts)) as pool:
            futures = [pool.submit(model.separate, audio[:, start:], rate) for start in starts]
            beside = [future.result() for future in futures]
        same = all(np.array_equal(stems[stem], again[stem]) for stem in stems)
        neighbours = all(np.array_equal(stems[stem], beside[place][stem]) for stem in stems for place in (0, 2))
        table.add(
            f"difference from the CPU, {precision}", levels,
            f"a second time {'the same bits' if same else 'OTHER bits'}; "
            f"beside others {'the same bits' if neighbours else 'OTHER bits'}",
        )  # fmt: skip


def _apart(expected: np.ndarray, signal: np.ndarray) -> str:
    """The energy of the difference against that of what is expected, in words."""
    difference = np.square(expected.astype(np.float64) - signal).sum()
    if not difference:
        return "none"
    return f"{10 * np.log10(difference / np.square(expected.astype(np.float64)).sum()):.1f} dB"


def device_alone(options: argparse.Namespace, table: Table) -> None:
    """× real time by batch, from memory to memory, a stream per core."""
    audio, rate = music(options, min(options.song_seconds, 120.0))
    streams = 2 if options.quick else cores()
    for precision in reversed(precisions(options)):
        for batch in options.batches:
            model = separator(options, options.device, precision, batch)
            model.separate(audio[:, : 12 * rate], rate)  # contexts, algorithms, memory
            if options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with Busy(options.device).watching() as busy:
                speed = _pumped(model, audio, rate, streams, options.seconds)
            own = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} of it ours" if options.device == "cuda" else ""
            table.add(f"network and transforms, {precision}, batch {batch}", f"{speed:.0f} × real time", f"{busy}{own}")


def _pumped(model: Separator, audio: np.ndarray, rate: int, streams: int, seconds: float) -> float:
    """How many seconds of audio come out of so many streams side by side per second, files following each other."""
    began = time.monotonic()
    size = round(_BLOCK_SECONDS * rate)

    def files() -> int:
        done = 0
        while time.monotonic() - began < seconds:
            stream = model.stream(rate, len(audio))
            for start in range(0, audio.shape[1], size):
                done += sum(piece.mixture.shape[1] for piece in stream.push(audio[:, start : start + size]))
            done += sum(piece.mixture.shape[1] for piece in stream.finish())
        return done

    with ThreadPoolExecutor(streams) as pool:
        samples = sum(future.result() for future in [pool.submit(files) for _ in range(streams)])
    return samples / rate / (time.monotonic() - began)


def catalog(options: argparse.Namespace, table: Table) -> None:
    """A catalog through the flow: decoding, separation, meters, encoding, rows."""
    from flows.running.cluster import sharing_here
    from flows.separate import separate
    from storage.audio.writer import write
    from storage.files.layout import OutputLayout
    from storage.results.metrics import read_all
    from tasks.settings import ModelRequest

    audio, rate = music(options, options.song_seconds)
    with tempfile.TemporaryDirectory() as folder:
        songs = Path(folder) / "catalog"
        different = min(8, options.tracks)
        with ThreadPoolExecutor(different) as pool:
            list(pool.map(
                lambda n: write(songs / f"{n:03}.flac", np.roll(audio, 997 * n, axis=1), rate, name="flac"),
                range(different),
            ))  # fmt: skip
        for number in range(different, options.tracks):
            os.link(songs / f"{number % different:03}.flac", songs / f"{number:03}.flac")
        request = ModelRequest(model=options.model, device=options.device)
        layouts: list[int | None] = [None] if options.quick or options.device != "cuda" else [None, 1, cores() // 2]
        for workers in layouts:
            sharing = sharing_here(request, workers, options.tracks)
            out = Path(folder) / f"out-{workers}"
            began = time.monotonic()
            with Busy(options.device).watching() as busy, _CoresBusy() as decoders:
                summary = separate(
                    str(songs), str(out), model=options.model, device=options.device, workers=workers, tags=False
                )
            wall = time.monotonic() - began
            rows = [row for row in read_all(OutputLayout(out), summary.run_id).to_pylist() if row["status"] == "ok"]
            done = {row["track_id"]: (row["finished_at"].timestamp(), row["duration_s"]) for row in rows}
            if len(done) < options.tracks:
                raise RuntimeError(f"{options.tracks - len(done)} of {options.tracks} tracks failed")
            name = f"catalog, {sharing.processes} processes × {sharing.files} tracks"
            beside = f"{busy}, cores {decoders.share:.0%} busy"
            ends = sorted(done.values())
            first = ends[: sharing.processes * sharing.files]  # as many as were begun together
            if len(ends) > len(first):
                steady = sum(seconds for _, seconds in ends[len(first) :]) / (ends[-1][0] - first[-1][0])
                table.add(f"{name}, steady", f"{steady:.0f} × real time", beside)
            all_of_it = sum(seconds for _, seconds in ends) / wall
            table.add(f"{name}, with start and end", f"{all_of_it:.0f} × real time", f"{wall:.0f} s, {beside}")
            shutil.rmtree(out)


class _CoresBusy:
    """The share of all cores that is used while a body runs."""

    share = 0.0

    def __enter__(self) -> "_CoresBusy":
        self._before = psutil.cpu_times()
        return self

    def __exit__(self, *_: object) -> None:
        spent = [after - before for after, before in zip(psutil.cpu_times(), self._before, strict=True)]
        idle = psutil.cpu_times()._fields.index("idle")
        self.share = 1 - spent[idle] / max(1e-9, sum(spent))


def training(options: argparse.Namespace, table: Table) -> None:
    """Examples and steps per second, each alone and together."""
    import training as bench

    with tempfile.TemporaryDirectory() as folder:
        store = options.store or _store(Path(folder), songs=4 if options.quick else 16)
        arguments = argparse.Namespace(
            store=store, preset=options.preset, device=options.device, steps=options.steps, workers=None
        )
        with Busy(options.device).watching() as busy:
            alone = bench.examples_and_network(arguments)
        table.add("examples per core", f"{alone.made:.1f} per second", f"read alone {alone.read or 0:.1f}")
        table.add("steps, network alone", f"{alone.steps:.2f} per second", f"{alone.batch} examples each; {busy}")
        if options.device == "cuda":
            with Busy(options.device).watching() as busy:
                compiled = bench.network_steps(arguments, bench.one_batch(arguments), compiler="inductor")
            table.add("steps, network alone, compiled", f"{compiled:.2f} per second", str(busy))
        with Busy(options.device).watching() as busy:
            both = bench.together(BENCH.parent, arguments)
        examples = both["steps_per_s"] * alone.batch
        table.add("training", f"{both['steps_per_s']:.2f} steps per second", f"{examples:.0f} examples/s, {busy}")
        table.add("training, network without a batch", f"{both['waiting']:.0%} of the time")


def _store(folder: Path, songs: int) -> str:
    """A store of made songs, as waveforms."""
    from storage.sources.datasets import discover
    from storage.store import Store, StoreFormat
    from tasks.demo.compose import write_songs
    from tasks.ingest import ingest_batch

    write_songs(folder / "songs", train=songs, test=0, seconds=12.0)
    store = Store.create(folder / "store.zarr", StoreFormat(n_fft=0, hop=0))
    ingest_batch(str(folder / "store.zarr"), discover(folder / "songs"))
    store.consolidate()
    return str(folder / "store.zarr")


if __name__ == "__main__":
    main()
