"""Times the pages of a large catalog: `unbraid browse` over a million tracks, a report over a hundred thousand.

    python bench/pages.py [--tracks 1000000] [--report-tracks 100000] [--times 5]

The rows are made: two stems per track, with scores, levels and names of usual lengths, and one track in a hundred
failed. Every search of the browser is run `--times` times; the medians of wall-clock and CPU time (this process's, all
threads) are printed, so that a busy machine can be told from a slow search. The report's page is timed in Debian's
Chromium where it is installed, from navigation to the end of its first layout.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from storage import runs
from storage.audio.writer import write
from storage.files.layout import OutputLayout
from storage.results import metrics, parquet
from storage.results.browsing import Filter, Search, TrackTable
from tasks.pages.catalog import CatalogFiles, Place, catalog_page, track_page
from tasks.pages.report import write_report

MODEL, STEMS = "stereo-00000000", ("accompaniment", "vocals")
_WORDS = np.array(["night", "river", "glass", "hollow", "morning", "paper", "silver", "engine", "winter", "signal"])
_CHROMIUM = Path("/usr/bin/chromium")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--report-tracks", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.tracks:
        with tempfile.TemporaryDirectory(prefix="unbraid-bench-pages-") as folder:
            browse(make_run(Path(folder), arguments.tracks), arguments.times)
    if arguments.report_tracks:
        with tempfile.TemporaryDirectory(prefix="unbraid-bench-pages-") as folder:
            report(make_run(Path(folder), arguments.report_tracks))


def make_run(root: Path, tracks: int) -> OutputLayout:
    """Make a run folder with one compacted run; its rows share two stems on disk, for a report to play.

    Args:
        root: An empty folder.
        tracks: How many tracks the run has.
    """
    out, run_id = OutputLayout(root), "separate-20260101T000000-aaaaaa"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 12 * 44100)).astype(np.float32)
    for stem in STEMS:
        write(out.stems / f"{stem}.wav", noise, 44100)
    runs.begin(out, run_id, {"source": "/music", "tracks": tracks, "model_id": MODEL})
    parquet.write_rows(_rows(tracks), metrics.SCHEMA, metrics.compacted(out, run_id), out.staging, {})
    runs.end(out, run_id, runs.COMPLETED, {"before": 0, "failed_before": 0})
    return out


def _rows(tracks: int) -> Iterator[pa.RecordBatch]:
    """Rows in compacted order, by track and stem; a failed track has one, without a stem."""
    generator, schema = np.random.default_rng(0), metrics.SCHEMA
    for start in range(0, tracks, 25_000):
        numbers = np.arange(start, min(tracks, start + 25_000))
        words = _WORDS[generator.integers(0, len(_WORDS), (3, len(numbers)))]
        names = [f"{n // 12:06} {a} {b}/{n:07} {c} {a}.flac" for n, a, b, c in zip(numbers, *words, strict=True)]
        stems = np.tile(np.array(STEMS), len(numbers))
        kept = (np.repeat(numbers, 2) % 100 != 99) | (stems == STEMS[1])
        failed = pa.array(np.repeat(numbers % 100 == 99, 2)[kept])
        paths, n = pa.array(np.repeat(names, 2)[kept]), int(kept.sum())

        def of_done(values: np.ndarray, failed: pa.Array = failed) -> pa.Array:
            return pc.if_else(failed, None, pa.array(values))

        stem = of_done(stems[kept])
        columns = {
            "track_id": paths, "path": paths, "stem": stem,
            "model_id": pa.array([MODEL] * n), "settings_hash": pa.array([""] * n),
            "status": pc.if_else(failed, "failed", "ok"),
            "error": pc.if_else(failed, "the file is empty (0 bytes); copy it", None),
            "error_class": pc.if_else(failed, "AudioError", None),
            "stem_path": pc.binary_join_element_wise("stems/", stem, ".wav", ""),
            "predicted_sdr": of_done(generator.normal(5, 2, n)),
            "duration_s": of_done(generator.uniform(60, 400, n)),
            "loudness_lufs": of_done(generator.normal(-16, 4, n)),
            "true_peak_db": of_done(generator.normal(-1, 1, n)),
            "activity": of_done(generator.uniform(0, 1, n)),
            "seconds": of_done(generator.uniform(1, 5, n)),
            "finished_at": pa.array(1_767_225_600_000 + np.repeat(numbers, 2)[kept], pa.timestamp("ms", "UTC")),
        }  # fmt: skip
        yield pa.RecordBatch.from_arrays(
            [columns.get(field.name, pa.nulls(n, field.type)).cast(field.type) for field in schema], schema=schema
        )


def browse(out: OutputLayout, times: int) -> None:
    """Print what opening the catalog and each kind of search costs, rendering of the page included.

    Args:
        out: The run folder.
        times: How many times each search is run.
    """
    began, cpu = time.perf_counter(), time.process_time()
    table = TrackTable(out)
    print(
        f"{table.count:,} tracks gathered in {time.perf_counter() - began:.1f} s, {time.process_time() - cpu:.1f} CPU s"
    )
    searches = {
        "first page": Search(),
        "page in the middle": Search(page=table.count // 100),
        "part of a path": Search(text="silver engine"),
        "part of a path, one track": Search(text=f"{table.count // 2:07}"),
        "two filters": Search(filters=(Filter("predicted_sdr", "<", "3"), Filter("duration_s", ">", "300"))),
        "sorted by a score": Search(order="predicted_sdr"),
        "sorted, last page": Search(order="predicted_sdr", page=table.count // 50),
        "filtered and sorted": Search(
            filters=(Filter("activity", ">", "0.5"),), order="loudness_lufs", descending=True
        ),
        "failed": Search(filters=(Filter("status", "=", "failed"),)),
        "condition in SQL": Search(condition="predicted_sdr < 3 and path ilike '%winter%'"),
    }
    for name, search in searches.items():
        _print(name, times, lambda search=search: catalog_page(table, search))
    sql = "select status, count(*) as tracks, median(predicted_sdr) as predicted from tracks group by all"
    _print("a SELECT over all", times, lambda: catalog_page(table, Search(), sql))
    (row,) = table.search(Search(text=f"{table.count // 2:07}")).rows
    place, files = Place(row["track_id"], row["model_id"]), CatalogFiles(out)
    _print("a track's page", times, lambda: track_page(table, files, place))
    table.close()


def _print(name: str, times: int, ask) -> None:
    walls, cpus = [], []
    for _ in range(times):
        began, cpu = time.perf_counter(), time.process_time()
        ask()
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - cpu)
    wall, cpu = (1000 * statistics.median(values) for values in (walls, cpus))
    print(f"{name:<28} {wall:6.0f} ms, {cpu:6.0f} CPU ms, at best {1000 * min(walls):.0f} ms", flush=True)


def report(out: OutputLayout) -> None:
    """Print how large the report of a run is, what writing it costs, and how long a browser takes to open it.

    Args:
        out: The run folder, as `make_run` makes it.
    """
    began, cpu = time.perf_counter(), time.process_time()
    page = write_report(out, "separate-20260101T000000-aaaaaa")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"report: {page.stat().st_size / 1e6:.2f} MB, written in {seconds:.1f} s, {cpu:.1f} CPU s")
    if not _CHROMIUM.exists():
        print(f"{_CHROMIUM} is not installed: not opened")
        return
    print(f"opened in {_opened(page):.2f} s")


def _opened(page: Path) -> float:
    """Seconds from navigation until the page has been laid out."""
    code = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox", "--disable-gpu"])
    page = browser.new_page()
    page.goto(sys.argv[2])
    page.evaluate("document.documentElement.scrollHeight")
    print(page.evaluate("performance.now()") / 1000)
    browser.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(_CHROMIUM), page.as_uri()], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
