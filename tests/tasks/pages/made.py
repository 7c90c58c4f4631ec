"""A made run folder: short stems on disk and rows about them, without a separation."""

import datetime
from pathlib import Path

import numpy as np

from storage import runs
from storage.audio.writer import write
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import FAILED, OK, StemRow
from storage.results.windows import WindowScores, write_windows

HOSTILE = "<script>document.title='owned'</script> \"quoted\" & 'more' <img src=x onerror=document.title='owned'>.wav"
RATE = 44100
MODEL = "stereo-00000000"


def clicks(seconds: float = 8.0) -> np.ndarray:
    """A click ten times a second at uneven distances: two copies that are apart can be told by correlation."""
    rng = np.random.default_rng(7)
    signal = np.zeros(round(seconds * RATE), np.float32)
    places = np.cumsum(rng.integers(2000, 7000, 60))
    signal[places[places < len(signal)]] = 0.8
    return np.stack([signal, signal])


def made_run(root: Path, run_id: str = "separate-20260101T000000-aaaaaa", *, tracks: int = 4, shift: float = 0.0,
             source: Path | None = None) -> OutputLayout:  # fmt: skip
    """Rows of `tracks` tracks, the first with a hostile name, and one failed track; three have stems on disk."""
    out = OutputLayout(root)
    runs.begin(out, run_id, {"source": str(source or "/music"), "tracks": tracks + 1, "model_id": MODEL})
    when = datetime.datetime.now(datetime.UTC)
    rows = []
    for index in range(tracks):
        name = HOSTILE if index == 0 else f"song {index}.wav"
        for stem in ("vocals", "accompaniment"):
            place = out.stems / f"track-{index}" / f"{stem}.wav"
            if index < 3:
                write(place, clicks() * (0.5 if stem == "vocals" else 0.4), RATE)
            rows.append(
                StemRow(
                    MODEL, f"id/{name}", name, stem, OK, sdr=4.0 + index + shift, predicted_sdr=5.0 + index,
                    duration_s=8.0, sample_rate=RATE, channels=2, loudness_lufs=-14.0 - index, true_peak_db=-1.0,
                    activity=0.5, seconds=1.0, stem_path=place.relative_to(out.root).as_posix(), finished_at=when,
                    source=str(source / name) if source else f"/music/{name}",
                )
            )  # fmt: skip
    rows.append(
        StemRow(MODEL, "id/bad", "bad <b>.wav", None, FAILED, error="/music/bad <b>.wav is empty (0 bytes); copy it",
                error_class="AudioError", finished_at=when)
    )  # fmt: skip
    metrics.write_part(out, run_id, rows)
    scores = tuple(float(value) for value in range(3))
    write_windows(out, run_id, [WindowScores(MODEL, f"id/{HOSTILE}", "vocals", scores, scores, scores, scores)])
    metrics.compact(out, run_id)
    runs.end(out, run_id, runs.COMPLETED, {"before": 7, "failed_before": 0})
    return out
