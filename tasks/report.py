"""A run on one page: what was done, how well, what failed and why."""

import html
from pathlib import Path

import numpy as np

from storage import runs
from storage.atomic import write_bytes
from storage.layout import OutputLayout
from storage.metrics import FAILED, read_all

_TRACKS_SHOWN = 500
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2430 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .7rem; border-bottom: 1px solid #dde3ea;
text-align: left; vertical-align: top } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
td, th { white-space: nowrap }
td.w { white-space: normal; overflow-wrap: anywhere; min-width: 10rem }
.failed { color: #a31d1d } .quiet { color: #66707c }
"""


def write_report(out: OutputLayout, run_id: str) -> Path:
    """Write OUT/reports/<run>.html from the run's rows and record; returns its path."""
    rows = read_all(out, run_id).to_pylist()
    record = runs.read(out, run_id)
    good = [row for row in rows if row["status"] != FAILED]
    bad = [row for row in rows if row["status"] == FAILED]
    tracks = {row["track_id"] for row in good}
    seconds = {row["track_id"]: row["duration_s"] for row in good}
    head = (
        f"<h1>{html.escape(run_id)}</h1><p>{len(tracks)} tracks done, "
        f"<span class='{'failed' if bad else 'quiet'}'>{len(bad)} failed</span>, "
        f"{sum(s or 0 for s in seconds.values()) / 3600:.2f} hours of audio, model "
        f"{html.escape(str(record['parameters'].get('model_id', '')))}, "
        f"started {html.escape(record['started_at'])}.</p>"
    )
    parts = [head, "<h2>By model and stem</h2>", _by_stem(good)]
    if bad:
        parts += ["<h2>Failed</h2>", _table(["track", "why"], [[row["path"], row["error"]] for row in bad])]
    parts += ["<h2>Tracks</h2>", _tracks(good)]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{run_id}</title><style>{_STYLE}</style>" + "".join(
        parts
    )
    write_bytes(out.report(run_id), page.encode("utf-8", "replace"), durable=False)
    return out.report(run_id)


def by_model_and_stem(rows: list[dict]) -> list[dict]:
    """Medians over tracks of each model's stems, in the order models and stems first appear."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        if row["stem"]:
            groups.setdefault((row["model_id"], row["stem"]), []).append(row)
    return [
        {
            "model_id": model_id,
            "stem": stem,
            "tracks": len(group),
            **{
                name: _median(group, name)
                for name in ("sdr", "sdr_mean", "usdr", "si_sdr", "loudness_lufs", "activity")
            },
            "realtime": _median([{"x": (r["duration_s"] or 0) / r["seconds"]} for r in group if r["seconds"]], "x"),
        }
        for (model_id, stem), group in groups.items()
    ]


def _by_stem(rows: list[dict]) -> str:
    names = ["model", "stem", "tracks", "cSDR dB", "uSDR dB", "SI-SDR dB", "LUFS", "active", "× real time"]
    keys = ["model_id", "stem", "tracks", "sdr", "usdr", "si_sdr", "loudness_lufs", "activity", "realtime"]
    return _table(names, [[group[key] for key in keys] for group in by_model_and_stem(rows)])


def _tracks(rows: list[dict]) -> str:
    names = ["track", "model", "stem", "cSDR dB", "uSDR dB", "LUFS", "true peak dB", "active", "seconds", "note"]
    keys = ["path", "model_id", "stem", "sdr", "usdr", "loudness_lufs", "true_peak_db", "activity", "seconds", "error"]
    shown = _table(names, [[row[key] for key in keys] for row in rows[:_TRACKS_SHOWN]])
    left = len(rows) - _TRACKS_SHOWN
    return shown + (f"<p class=quiet>{left} more rows are in the Parquet file.</p>" if left > 0 else "")


def _table(names: list[str], rows: list[list]) -> str:
    """An HTML table; columns in which no row has anything are left out."""
    shown = [i for i in range(len(names)) if not rows or any(row[i] is not None for row in rows)]
    kinds = {i: _kind(names[i], [row[i] for row in rows]) for i in shown}
    head = "".join(f"<th{kinds[i]}>{html.escape(names[i])}" for i in shown)
    body = "".join("<tr>" + "".join(f"<td{kinds[i]}>{html.escape(_cell(row[i]))}" for i in shown) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _kind(name: str, values: list) -> str:
    """The class of a column: numbers to the right, names and sentences wrapped."""
    if any(isinstance(value, (int, float)) for value in values):
        return " class=n"
    return " class=w" if name in ("track", "why", "note") else ""


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _median(rows: list[dict], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.median(values)) if values else None
