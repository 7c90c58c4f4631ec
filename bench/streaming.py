"""Measures peak memory and speed of separating one file, by its length.

    python bench/streaming.py [--minutes 2 10 60 600] [--model stereo]

Each length runs in a separate process, which writes a FLAC of stereo noise, separates it as it would a catalog's track,
with a worker's allocator settings, and reports its peak memory. The files begin alike; so must their stems, up to the
last seconds of the shorter one, whose context is the end of the file.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
RATE = 44100
_COMPARED_MINUTES = 10
_CONTEXT_SECONDS = 20  # a segment and its context

from flows.running.environment import WORKERS


def measure(minutes: float, model: str) -> dict:
    """Separate noise in this process and measure it.

    Args:
        minutes: Length of the noise.
        model: The model's name.

    Returns:
        `peak_mb`, the process's peak memory in MiB; `realtime`, how many times faster than real time it was; `begins`,
        the `beginning` of each stem.

    Raises:
        SystemExit: The separation failed.
    """
    from storage.audio.writer import AudioWriter, StemFormat
    from storage.results.metrics import StemRow
    from storage.sources.catalog import CatalogTrack
    from tasks.loading import model_stems
    from tasks.separate import SeparateSettings, separate_batch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        random = np.random.default_rng(0)
        with AudioWriter(path, StemFormat("flac", "int16"), RATE, 2, None) as writer:
            for _ in range(round(minutes * 6)):
                writer.write((0.1 * random.standard_normal((2, 10 * RATE))).astype(np.float32))
        model_id, stems = model_stems(model)
        settings = SeparateSettings(out=folder, model=model, device="cpu", model_id=model_id, stems=stems)
        began = time.perf_counter()
        done = separate_batch(settings, [CatalogTrack("long", "long.flac", str(path))])
        rows = [row for row in done if isinstance(row, StemRow)]
        seconds = time.perf_counter() - began
        begins = [beginning(Path(folder) / row.stem_path) for row in rows if row.stem_path]
    if rows[0].status != "ok":
        raise SystemExit(rows[0].error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mb": peak, "realtime": minutes * 60 / seconds, "begins": begins}


def beginning(stem: Path) -> str:
    """The SHA-256 of a stem's first ten minutes less 20 s, which no file's end can affect.

    Args:
        stem: The stem's file.
    """
    import soundfile

    with soundfile.SoundFile(stem) as file:
        compared = file.read((_COMPARED_MINUTES * 60 - _CONTEXT_SECONDS) * RATE, dtype="int16")
    return hashlib.sha256(compared.tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="*", default=[2, 10, 60])
    parser.add_argument("--model", default="stereo")
    parser.add_argument("--measure", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.model)))
        return
    begins = {}
    for minutes in options.minutes:
        command = [sys.executable, __file__, "--measure", str(minutes), "--model", options.model]
        environment = {**os.environ, **WORKERS}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        run = json.loads(done.stdout)
        print(f"{minutes:6.0f} min: peak {run['peak_mb']:.0f} MB, {run['realtime']:.0f} × real time", flush=True)
        if minutes >= _COMPARED_MINUTES:
            begins[minutes] = run["begins"]
    if len(begins) > 1:
        same = len({tuple(stems) for stems in begins.values()}) == 1
        print(
            f"the first {_COMPARED_MINUTES} minutes are {'the same' if same else 'NOT the same'} in all that have them"
        )
        sys.exit(not same)


if __name__ == "__main__":
    main()
