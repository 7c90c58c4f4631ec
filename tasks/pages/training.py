"""A training run on one page: its progress, and what the network makes of validation tracks; also a search's trials."""

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from model.separation.stream import Separator
from storage.errors import MetricsError
from storage.files.atomic import write_bytes
from storage.files.layout import OutputLayout, TrainingLayout
from storage.results.rows import read_rows
from tasks.pages.charts import LineChart, line_chart
from tasks.pages.kept import keep_players, kept_players
from tasks.pages.players import MIXTURE, Lane, Player, interesting_start, player
from tasks.pages.render import number, render

log = logging.getLogger("unbraid.pages")

PAGE = "report.html"
_EXAMPLE_SECONDS = 6.0
_EXAMPLES = 2
_AT_STEP = " at step "  # between the stem's name and the step in a lane's name
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


def write_training_page(folder: TrainingLayout) -> Path:
    """Write the page of a training run into its folder, and TensorBoard's event file beside it.

    Args:
        folder: The run's folder; the run may still be going on. Its players are those of the last validation.

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
        players=kept_players(folder.players),
    )  # fmt: skip
    write_bytes(folder.root / PAGE, page.encode(), durable=False)
    _write_events(folder, lines)
    return folder.root / PAGE


def refresh_training_page(
    folder: TrainingLayout, separator: Separator, references: Iterable[tuple[dict, int]], step: int
) -> None:
    """Write the page of a run that has just validated; a failure is logged, as it must not end the training.

    Args:
        folder: The run's folder. Its file of players keeps what the network made of the same excerpts at the first
            validation and at the one before this, so that progress can be heard.
        separator: The network as it is now.
        references: (stems, rate) of validation tracks: name → (channels, samples), and Hz; the first two get players.
        step: The step of this validation.
    """
    try:
        kept, players = kept_players(folder.players), []
        for index, (stems, rate) in enumerate(islice(references, _EXAMPLES)):
            earlier = kept[index].lanes if index < len(kept) else []
            players.append(_compared(f"validation track {index + 1}", stems, rate, separator, step, earlier))
        keep_players(folder.players, players)
        write_training_page(folder)
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


def _compared(
    title: str, stems: dict[str, np.ndarray], rate: int, separator: Separator, step: int, earlier: list[Lane]
) -> Player:
    """A player of an excerpt: the mixture, the true vocals, and those separated at the first validation, the one before
    and now, of which the last sounds first.
    """
    lead = separator.stems[0]
    samples = min(stem.shape[1] for stem in stems.values())
    channels = max(stem.shape[0] for stem in stems.values())
    complete = {name: np.broadcast_to(stem[:, :samples], (channels, samples)) for name, stem in stems.items()}
    backing = np.sum([stem for name, stem in complete.items() if name != lead], axis=0, dtype=np.float32)
    start = interesting_start([(complete[lead], rate), (np.atleast_2d(backing), rate)], _EXAMPLE_SECONDS)
    cut = slice(round(start * rate), round((start + _EXAMPLE_SECONDS) * rate))
    true, mixture = complete[lead][:, cut], (complete[lead] + backing)[:, cut]
    now = f"{lead}{_AT_STEP}{step}"
    signals = {MIXTURE: mixture, f"true {lead}": true, now: np.asarray(separator.separate(mixture, rate)[lead])}
    made = player(title, signals, rate, start=start)
    before = [lane for lane in earlier if -1 < _step(lane) < step]  # a resumed run goes back to its last checkpoint
    lanes = [*made.lanes[:2], *before[:1], *before[1:][-1:], *made.lanes[2:]]
    return dataclasses.replace(made, lanes=lanes, muted=[lane.name for lane in lanes[:-1]])


def _step(lane: Lane) -> int:
    """The step at which a lane was separated, -1 where it is the mixture or the truth."""
    _, separated, step = lane.name.partition(_AT_STEP)
    return int(step) if separated else -1


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
