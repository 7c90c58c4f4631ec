"""A run on one page: what was done, how well, what failed and why."""

import html
from pathlib import Path

from storage import runs
from storage.files.atomic import write_bytes
from storage.files.layout import OutputLayout
from storage.results.summary import by_model_and_stem, failures, first_stems, totals

_SHOWN = 500
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
    record = runs.read(out, run_id)
    sums = totals(out, run_id)
    head = (
        f"<h1>{html.escape(run_id)}</h1><p>{sums['done']} tracks done, "
        f"<span class='{'failed' if sums['failed'] else 'quiet'}'>{sums['failed']} failed</span>, "
        f"{sums['seconds'] / 3600:.2f} hours of audio, model "
        f"{html.escape(str(record['parameters'].get('model_id', '')))}, "
        f"started {html.escape(record['started_at'])}.</p>"
    )
    parts = [head, "<h2>By model and stem</h2>", _by_stem(by_model_and_stem(out, run_id))]
    if sums["failed"]:
        bad = failures(out, run_id, _SHOWN)
        rows = [[row["path"], row["error"]] for row in bad]
        parts += ["<h2>Failed</h2>", _table(["track", "why"], rows), _more(sums["failed"] - len(bad))]
    parts += ["<h2>Tracks</h2>", _tracks(*first_stems(out, run_id, _SHOWN))]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{run_id}</title><style>{_STYLE}</style>" + "".join(
        parts
    )
    write_bytes(out.report(run_id), page.encode("utf-8", "replace"), durable=False)
    return out.report(run_id)


def _by_stem(groups: list[dict]) -> str:
    names = ["model", "stem", "tracks", "cSDR dB", "uSDR dB", "SI-SDR dB", "LUFS", "active", "× real time"]
    keys = ["model_id", "stem", "tracks", "sdr", "usdr", "si_sdr", "loudness_lufs", "activity", "realtime"]
    return _table(names, [[group[key] for key in keys] for group in groups])


def _tracks(rows: list[dict], all_rows: int) -> str:
    names = ["track", "model", "stem", "cSDR dB", "uSDR dB", "LUFS", "true peak dB", "active", "seconds", "note"]
    keys = ["path", "model_id", "stem", "sdr", "usdr", "loudness_lufs", "true_peak_db", "activity", "seconds", "error"]
    return _table(names, [[row[key] for key in keys] for row in rows]) + _more(all_rows - len(rows))


def _more(rows: int) -> str:
    return f"<p class=quiet>{rows} more rows are in the Parquet file.</p>" if rows > 0 else ""


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
