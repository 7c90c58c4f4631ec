"""Separates a catalog while workers and the flow itself are killed.

    python bench/chaos.py [--seeds 10] [--first 0] [--tracks 200] [--workers 20] [--flows 5] [--deadline 5]

While short tracks are separated, random workers are killed 20 times and the flow 5 times, by SIGKILL. Among the tracks
are one that crashes its worker, one that hangs, one that exhausts memory and three that are corrupt. At the end every
track must be there exactly once, every stem must decode and add up to its mixture, nothing temporary may be left, and
the failures must be named. Prints one line per seed; fails at the first broken promise. On a busy machine kill fewer
and give a longer deadline, or a run may not end within its ten minutes.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from weights import random_weights

from storage.audio.reader import read
from storage.audio.writer import write
from storage.files.layout import OutputLayout
from storage.results.query import query

RATE = 8000
_SECONDS_A_TRACK = 0.3
BAD = {"crash": "died while", "hang": "died while", "hog": "died while", "corrupt": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="The first seed.")
    parser.add_argument("--tracks", type=int, default=200)
    parser.add_argument("--workers", type=int, default=20, help="Workers to kill.")
    parser.add_argument("--flows", type=int, default=5, help="Flows to kill.")
    parser.add_argument("--deadline", type=float, default=5.0, help="Seconds after which a track is given up.")
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            killed, flows = chaos(
                Path(folder), seed, options.tracks,
                workers=options.workers, flows=options.flows, deadline=options.deadline,
            )  # fmt: skip
            print(
                f"seed {seed}: {options.tracks} tracks complete and once, {killed} workers and {flows} flows killed, "
                f"{time.perf_counter() - began:.0f} s", flush=True,
            )  # fmt: skip


def chaos(root: Path, seed: int, tracks: int, *, workers: int, flows: int, deadline: float = 5.0) -> tuple[int, int]:
    """Separate a made catalog while workers and flows are killed, then check the result.

    Args:
        root: An empty folder for the catalog, the output and the log.
        seed: Of the catalog and of every choice of when and what to kill.
        tracks: How many tracks the catalog has, the six bad ones among them.
        workers: How many workers to kill.
        flows: How many flows to kill.
        deadline: Seconds after which a track is given up.

    Returns:
        How many workers and flows were killed.

    Raises:
        AssertionError: A promise is broken, or fewer could be killed than intended.
    """
    random = np.random.default_rng(seed)
    make_catalog(root / "catalog", tracks, random)
    # A network that needs a tenth of a second of a core per track: "cnn" needs 1.2 s, and on a busy machine good tracks
    # would pass the deadline one after the other, each with the start of a new worker.
    model = random_weights("stereo", root)
    killed = ended = 0
    for turn in range(flows + 1):
        last = turn == flows
        process = start(root, model, deadline)
        until = time.monotonic() + 600
        mine = -(-(workers - killed) // (flows + 1 - turn))
        quiet = float(random.uniform(0, 5))  # some workers are killed while they start, some in the middle of a track
        while process.poll() is None and (mine or last) and time.monotonic() < until:
            time.sleep(float(random.uniform(0.3, 1.2)))
            if quiet and workers_of(process.pid):
                time.sleep(quiet)
                quiet = 0.0
            if mine and kill_a_worker(process.pid, random):
                mine, killed = mine - 1, killed + 1
        assert time.monotonic() < until, "a run did not end within ten minutes"
        if process.poll() is None:
            time.sleep(float(random.uniform(0.1, 2.0)))
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.wait()
            ended += 1
            for child in family:  # as when a machine goes down
                with contextlib.suppress(psutil.Error):
                    child.kill()
    log = (root / "log.txt").read_text()
    assert (killed, ended) == (workers, flows), (
        f"only {killed} workers and {ended} flows could be killed:\n{log[-3000:]}"
    )
    # Killed workers may have taken tracks with them for good: they are named, and one more run does them.
    final = start(root, model, deadline, "--retry-failed")
    final.wait(600)
    check(root, tracks)
    return killed, ended


def make_catalog(folder: Path, tracks: int, random: np.random.Generator) -> None:
    """Write a catalog of short noise with six bad files in it.

    Args:
        folder: Where it goes.
        tracks: How many files, at least six.
        random: Decides on the noise, its lengths, and which files are bad.
    """
    names = [f"{number:04}" for number in range(tracks)]
    kinds = ["crash", "hang", "hog", "corrupt", "corrupt", "corrupt"]
    bad = dict(zip(random.choice(tracks, len(kinds), replace=False), kinds, strict=True))
    for number, name in enumerate(names):
        audio = (0.1 * random.standard_normal((2, int(RATE * random.uniform(0.5, 2.0))))).astype(np.float32)
        path = folder / f"{name}-{bad.get(number, 'good')}.wav"
        write(path, audio, RATE)
        if bad.get(number) == "corrupt":
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 3])


def start(root: Path, model: str, deadline: float, *more: str) -> subprocess.Popen:
    """Start `unbraid separate` in a process whose workers treat the bad files as a faulty decoder would.

    Args:
        root: Folder with the catalog; output and log go there too.
        model: The weights' file.
        deadline: Seconds after which a track is given up.
        *more: Further options of `unbraid separate`.
    """
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'bench')!r}]; import chaos, flows.separate; "
        "flows.separate.separate_batch = chaos.dangerous_batch; from flows.cli import main; main()"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'bench'}",
        "PREFECT_HOME": str(root / "prefect"),
        "UNBRAID_MODELS": str(root / "models"),
    }
    command = [sys.executable, "-c", code, "separate", str(root / "catalog"), "--out", str(root / "out")]
    command += ["--model", model, "--deadline", str(deadline), "--memory", "2GB", *more]
    with open(root / "log.txt", "a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def dangerous_batch(settings, tracks):
    """`separate_batch`, but slower, to leave time to kill; files named crash, hang or hog do so while they are read.

    Args:
        settings: The run's settings.
        tracks: The batch.

    Returns:
        The rows of `separate_batch`.
    """
    from tasks import separate
    from tasks.worker import deadline

    rows = []
    for track in tracks:
        time.sleep(_SECONDS_A_TRACK)
        with deadline(settings.seconds_per_track):
            if "crash" in track.path:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "hang" in track.path:
                time.sleep(3600)
            if "hog" in track.path:
                _eat()
        rows += separate.separate_batch(settings, [track])
    return rows


def _eat() -> None:
    """Allocate until the worker's limit (--memory) ends it."""
    eaten = []
    while psutil.Process().memory_info().rss < 8 << 30:
        eaten.append(np.ones(4 << 20))
    raise RuntimeError("the memory limit did not hold")


def workers_of(flow: int) -> list[psutil.Process]:
    """The worker processes that Dask's nannies have started below the flow.

    Args:
        flow: The flow's process id.

    Returns:
        The processes; none where the flow has ended.
    """
    try:
        below = psutil.Process(flow).children(recursive=True)
    except psutil.Error:
        return []
    workers = []
    for process in below:
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(process.cmdline()):
                workers.append(process)
    return workers


def kill_a_worker(flow: int, random: np.random.Generator) -> bool:
    """Send SIGKILL to one of the flow's workers.

    Args:
        flow: The flow's process id.
        random: Decides on the worker.

    Returns:
        Whether the flow had any.
    """
    workers = workers_of(flow)
    if not workers:
        return False
    with contextlib.suppress(psutil.Error):
        workers[int(random.integers(len(workers)))].kill()
    return True


def check(root: Path, tracks: int) -> None:
    """Check every promise about what a run leaves.

    Args:
        root: Folder with the catalog, the output and the log.
        tracks: How many tracks the catalog has.

    Raises:
        AssertionError: A promise is broken.
    """
    out = OutputLayout(root / "out")
    rows = query(root / "out", "select track_id, stem, status, error, stem_path from metrics").to_pylist()
    by_track: dict[str, list[dict]] = {}
    for row in rows:
        by_track.setdefault(row["track_id"], []).append(row)
    assert len(by_track) == tracks, f"{tracks - len(by_track)} tracks have no row"
    for name, of_track in by_track.items():
        if "-good" in name:
            assert {row["stem"] for row in of_track} == {"vocals", "accompaniment"}, f"{name}: {of_track}"
            assert len(of_track) == 2, f"{name} has {len(of_track)} rows"
            mixture, _ = read(root / "catalog" / name)
            stems = [read(out.root / row["stem_path"])[0] for row in of_track]
            assert np.array_equal(sum(stems), mixture), f"{name} does not add up"
        else:
            kind = name.split("-")[1].removesuffix(".wav")
            assert len(of_track) == 1, f"{name}: {of_track}"
            assert of_track[0]["status"] == "failed", f"{name}: {of_track}"
            assert BAD[kind] in of_track[0]["error"], f"{name}: {of_track[0]['error']}"
    left = list((root / "out").rglob("*.tmp"))
    assert not left, f"temporary files are left: {left[:3]}"
    assert "Traceback" not in (root / "log.txt").read_text(), "there is a traceback on the screen"


if __name__ == "__main__":
    main()
