"""A training run on one page: its progress, and what the network makes of validation tracks; also a search's trials."""

import contextlib
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ModelError
from model.separation.stream import Separator
from storage.errors import MetricsError, StorageError
from storage.files.atomic import write_bytes
from storage.files.layout import OutputLayout, TrainingLayout
from storage.results.rows import read_rows
from storage.store import Store
from tasks.pages.charts import LineChart, line_chart
from tasks.pages.players import Player, player
from tasks.pages.render import number, render

log = logging.getLogger("unbraid.pages")

PAGE = "report.html"
_EXAMPLE_SECONDS = 8.0
_EXAMPLES = 2
# Column of the log, title, unit. A log that lacks a column lacks its chart.
_CURVES = (
    ("loss", "loss", ""),
    ("csdr", "validation cSDR", "dB"),
    ("usdr", "validation uSDR", "dB"),
    ("learning_rate", "learning rate", ""),
    ("gradient_norm", "gradient norm", ""),
    ("examples_per_second", "examples per second", ""),
    ("waiting", "time the network waited for data", "share"),
)


def write_training_page(folder: TrainingLayout, players: list[Player] | None = None) -> Path:
    """Write the page of a training run into its folder, and TensorBoard's event file beside it.

    Args:
        folder: The run's folder; the run may still be going on.
        players: Validation tracks to hear and see; made here with the best weights so far where None.

    Returns:
        The page.

    Raises:
        MetricsError: There is no log.
    """
    lines, record = read_log(folder.log), _record(folder)
    steps = (record.get("settings") or {}).get("training", {}).get("steps")
    best = max((line for line in lines if line.get("csdr") is not None), key=lambda line: line["csdr"], default={})
    page = render(
        "training.html", name=folder.root.name, record=record, steps=steps, facts=_facts(record), best=best,
        step=lines[-1]["step"] if lines else 0, charts=curves(lines, steps),
        seconds=max((line["seconds"] for line in lines if line.get("seconds")), default=None),
        players=_examples(folder, record) if players is None else players,
    )  # fmt: skip
    write_bytes(folder.root / PAGE, page.encode(), durable=False)
    _write_events(folder, lines)
    return folder.root / PAGE


def refresh_training_page(
    folder: TrainingLayout, separator: Separator | None = None, references: Iterable[tuple[dict, int]] = ()
) -> None:
    """Write the page of a run that is going on; a failure is logged, as it must not end the training.

    Args:
        folder: The run's folder.
        separator: The network as it is now; without one the page has no players.
        references: (stems, rate) of validation tracks: name → (channels, samples), and Hz; the first two get players.
    """
    try:
        players = []
        for index, (stems, rate) in enumerate(list(references)[:_EXAMPLES]):
            if separator is not None:
                players.append(_compared(f"validation track {index + 1}", stems, rate, separator))
        write_training_page(folder, players)
    except Exception as error:  # whatever goes wrong with a page, hours of training are worth more
        log.warning("the page of %s could not be written: %s", folder.root, error)


def read_log(log: Path) -> list[dict]:
    """The lines of a training log; one that is half-written is left out.

    Args:
        log: The log, one JSON object per line.

    Returns:
        One dict per line, each with its `step`.

    Raises:
        MetricsError: There is no log, or it cannot be read.
    """
    try:
        text = log.read_text()
    except OSError as error:
        raise MetricsError(
            f"{log} cannot be read ({error.strerror or error}); give the folder of a training"
        ) from error
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                lines.append(value)
    return lines


def curves(lines: list[dict], steps: int | None = None) -> list[LineChart]:
    """One chart per column of the log that has numbers.

    Args:
        lines: The log's lines, as `read_log` returns them.
        steps: How many steps are planned, where the axis then ends; at the last line's step where None.
    """
    charts = []
    for column, title, unit in _CURVES:
        points = [(line["step"], float(line[column])) for line in lines if isinstance(line.get(column), (int, float))]
        if points:
            xs, ys = zip(*points, strict=True)
            high = float(steps) if steps and steps >= max(xs) else None
            charts.append(line_chart(title, unit, {column: (list(xs), list(ys))}, x_label="step", x_high=high))
    return [chart for chart in charts if chart is not None]


def write_search_page(out: OutputLayout) -> Path:
    """Write OUT/reports/search.html: the trials of a search as lines over its settings.

    Args:
        out: The search's folder.

    Returns:
        The page's path.

    Raises:
        MetricsError: The folder has no trials, or they cannot be read.
    """
    rows = read_rows(out, "trials").to_pylist()
    if not rows:
        raise MetricsError(f"{out.root} has no trials; search with `unbraid tune` first")
    target = out.reports / "search.html"
    page = render("search.html", name=str(out.root), rows=_trials(rows), plot=parallel(_trials(rows)))
    write_bytes(target, page.encode(), durable=False)
    return target


def parallel(trials: list[dict], width: float = 900.0, height: float = 260.0) -> dict:
    """Trials as polylines over one vertical axis per setting, the score last (parallel coordinates).

    Args:
        trials: Dicts of `trial` (its number), `csdr` (dB, None where it failed) and `settings` (name → value).
        width: Of the plot, in the SVG's units.
        height: Of the plot, in the SVG's units.

    Returns:
        `axes` with `x`, `name`, `low` and `high`; `lines`, the worst first, with `points`, `text` and `good`, from 0
        for the worst or a failed trial to 1 for the best; `width` and `height`.
    """
    names = [*dict.fromkeys(name for trial in trials for name in trial["settings"]), "cSDR"]
    step = width / max(1, len(names) - 1)
    axes, places = [], {}
    for index, name in enumerate(names):
        values = [trial["csdr"] if name == "cSDR" else trial["settings"].get(name) for trial in trials]
        kept = [value for value in values if value is not None]
        numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in kept)
        order = sorted(set(kept)) if numeric else sorted(set(map(str, kept)))
        low, high = (order[0], order[-1]) if order else (0, 1)

        def place(value, numeric=numeric, order=order, low=low, high=high) -> float:
            if numeric:
                return height - height * (value - low) / ((high - low) or 1)
            return height - height * order.index(str(value)) / max(1, len(order) - 1)

        places[name] = place
        ends = [f"{order[0]:.3g}", f"{order[-1]:.3g}"] if numeric and order else [str(one) for one in order]
        axes.append({"x": round(index * step, 1), "name": name, "low": ends[0] if ends else "",
                     "high": ends[-1] if ends else ""})  # fmt: skip
    scores = [trial["csdr"] for trial in trials if trial["csdr"] is not None]
    lines = []
    for trial in sorted(trials, key=lambda trial: -math.inf if trial["csdr"] is None else trial["csdr"]):
        settings = {**trial["settings"], "cSDR": trial["csdr"]}
        points = [f"{axes[i]['x']},{places[name](settings[name]):.1f}" for i, name in enumerate(names)
                  if settings.get(name) is not None]  # fmt: skip
        spread = (max(scores) - min(scores)) if scores else 0
        good = 0.0 if trial["csdr"] is None else (trial["csdr"] - min(scores)) / spread if spread else 1.0
        lines.append({"points": " ".join(points), "good": round(good, 3),
                      "text": f"trial {trial['trial']}: {number(trial['csdr'], 2)} dB"})  # fmt: skip
    return {"axes": axes, "lines": lines, "width": width, "height": height}


def _trials(rows: list[dict]) -> list[dict]:
    ordered = sorted(rows, key=lambda row: -math.inf if row["csdr"] is None else row["csdr"], reverse=True)
    return [{**row, "settings": json.loads(row["settings"])} for row in ordered]


def _record(folder: TrainingLayout) -> dict:
    try:
        return json.loads(folder.record.read_text())
    except (OSError, ValueError):
        return {}


def _facts(record: dict) -> list[tuple[str, str]]:
    names = ("preset", "seed", "started_from", "device", "precision", "threads", "parameters", "machine", "python")
    facts = [(name.replace("_", " "), str(record[name])) for name in names if record.get(name) is not None]
    for name, entry in (record.get("datasets") or {}).items():
        facts.append((f"dataset {name}", f"{entry.get('tracks')} tracks, {number(entry.get('hours'), 2)} hours"))
    return facts


def _examples(folder: TrainingLayout, record: dict) -> list[Player]:
    """Players of validation tracks: mixture, true and predicted vocals; none where the store or weights are missing."""
    places = [Path(str(record.get("store") or "")), Path(folder.root.resolve().parent.as_posix().removesuffix(".runs"))]
    place = next((place for place in places if (place / "zarr.json").exists()), None)
    if place is None or not folder.best.exists():
        return []
    try:
        from tasks.loading import load_separator

        store, separator = Store.open(place), load_separator(str(folder.best), device="cpu")
        lead, rate = separator.stems[0], store.format.sample_rate
        known = {track.track_id: track for track in store.tracks()}
        tracks = [known[name] for name in record.get("validation_tracks", []) if name in known]
        players = []
        for track in [t for t in tracks if lead in t.stems and len(t.stems) > 1][:_EXAMPLES]:
            stems = {name: store.waveform(track, name) for name in track.stems if name != "mixture"}
            players.append(_compared(track.track_id, stems, rate, separator))
        return players
    except (StorageError, ModelError, OSError):
        return []


def _compared(title: str, stems: dict[str, np.ndarray], rate: int, separator: Any) -> Player:
    """A player of a track's middle: its mixture, its true vocals, and those that the network separates from it."""
    lead = separator.stems[0]
    samples = min(stem.shape[1] for stem in stems.values())
    start = max(0, samples // 2 - round(_EXAMPLE_SECONDS * rate / 2))
    stop = min(samples, start + round(_EXAMPLE_SECONDS * rate))
    channels = max(stem.shape[0] for stem in stems.values())
    parts = {name: np.broadcast_to(stem[:, start:stop], (channels, stop - start)) for name, stem in stems.items()}
    mixture = np.asarray(np.sum(list(parts.values()), axis=0, dtype=np.float32))
    made = np.asarray(separator.separate(mixture, rate)[lead])
    heard = {"mixture": mixture, f"true {lead}": parts[lead], f"predicted {lead}": made}
    return player(title, heard, rate, start=start / rate)


def _write_events(folder: TrainingLayout, lines: list[dict]) -> None:
    """Write the log as TensorBoard's events under RUN/tensorboard, where tensorboardX is installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return
    target = folder.root / "tensorboard"
    for old in target.glob("events.out.*"):  # before writing: a file made within the same second has the same name
        old.unlink(missing_ok=True)
    with SummaryWriter(str(target)) as writer:
        for line in lines:
            for column, title, _ in _CURVES:
                if isinstance(line.get(column), (int, float)):
                    writer.add_scalar(title.replace(" ", "_"), line[column], line["step"])
