"""Charts as coordinates, which a template draws as SVG; there is no HTML here."""

import math
from dataclasses import dataclass, field
from typing import TypeGuard

WIDTH, HEIGHT = 320.0, 120.0  # of the plotted area, in the SVG's units


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in the SVG's units, and its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """Bars of shares of tracks, with the outline of an earlier run behind them.

    Attributes:
        title: What was measured.
        unit: Unit of the horizontal axis.
        bars: (x, y, width, height, sentence) each, in the SVG's units.
        before: The earlier run's outline as points of a polyline, "" where there is none.
        ticks: Of the horizontal axis.
        median: Median over tracks, None where unknown.
        median_before: Median of the earlier run.
        low_decile: First decile.
        high_decile: Last decile.
        marker: Where the median lies on the horizontal axis, in the SVG's units.
        tracks: How many are counted.
        name: What the chart is of, e.g. a stem.
    """

    title: str
    unit: str
    bars: list[tuple[float, float, float, float, str]]
    before: str
    ticks: list[Tick]
    median: float | None
    median_before: float | None
    low_decile: float | None
    high_decile: float | None
    marker: float | None
    tracks: int
    name: str = ""


@dataclass(frozen=True)
class Line:
    """One curve of a chart; `last` is its last value, None where it has none."""

    name: str
    points: list[str]  # a list of polylines: a gap in the data is a gap in the curve
    colour: str = ""
    last: float | None = None


@dataclass(frozen=True)
class LineChart:
    """Curves over one axis; `unit` is that of the values, `x_label` names the horizontal axis."""

    title: str
    unit: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_label: str = ""
    notes: list[Tick] = field(default_factory=list)
    width: float = WIDTH
    height: float = HEIGHT


def histogram(
    title: str, unit: str, low: float, high: float, counts: list[int], before: list[int] | None = None, *,
    quantiles: tuple[float | None, float | None, float | None] = (None, None, None),
    median_before: float | None = None, name: str = "",
) -> Histogram:  # fmt: skip
    """Turn counts per bin into bars; both runs are drawn as shares, so runs of different sizes can be compared.

    Args:
        title: What was measured.
        unit: Unit of the horizontal axis.
        low: Where the first bin begins; values below it are counted in it.
        high: Where the last bin ends; values above it are counted in it.
        counts: Tracks per bin.
        before: Tracks per bin of the previous run, None where there is none.
        quantiles: First decile, median and last decile.
        median_before: Median of the previous run.
        name: What the chart is of, e.g. a stem.
    """
    bins, total = len(counts), sum(counts) or 1
    earlier_total = sum(before or []) or 1
    tallest = max([n / total for n in counts] + [n / earlier_total for n in before or []] + [1e-9])
    step, width = (high - low) / bins, WIDTH / bins
    bars = []
    for index, n in enumerate(counts):
        if n:
            height = HEIGHT * n / total / tallest
            sentence = f"{low + index * step:g} to {low + (index + 1) * step:g} {unit}: {n:,}".replace(",", " ")
            bars.append((_r(index * width + 0.5), _r(HEIGHT - height), _r(width - 1), _r(height), sentence))
    outline = []
    for index, n in enumerate(before or []):
        top = HEIGHT - HEIGHT * n / earlier_total / tallest
        outline += [f"{_r(index * width)},{_r(top)}", f"{_r((index + 1) * width)},{_r(top)}"]
    middle = quantiles[1]
    marker = None if middle is None else _r(WIDTH * (min(max(middle, low), high) - low) / (high - low))
    ticks = [Tick(_r(WIDTH * (value - low) / (high - low)), f"{value:g}") for value in nice_ticks(low, high, 6)]
    return Histogram(title, unit, bars, " ".join(outline) if before and sum(before) else "", ticks, middle,
                     median_before, quantiles[0], quantiles[2], marker, sum(counts), name)  # fmt: skip


def line_chart(
    title: str, unit: str, curves: dict[str, tuple[list[float], list[float | None]]], *, x_label: str = "",
    low: float | None = None, high: float | None = None, x_high: float | None = None, log_x: bool = False,
    width: float = WIDTH, height: float = HEIGHT, x_text=lambda value: f"{value:g}",
) -> LineChart | None:  # fmt: skip
    """Turn curves into polylines.

    Args:
        title: What was measured.
        unit: Unit of the values.
        curves: Name → (positions, values), ascending positions; a value that is None or not finite is a gap.
        x_label: Name or unit of the horizontal axis.
        low: Where the axis of values begins; at the least value where None.
        high: Where it ends; at the greatest value where None.
        x_high: Where the horizontal axis ends; at the last position where None.
        log_x: Whether the horizontal axis is logarithmic, as for frequencies in Hz.
        width: Width of the plotted area, in the SVG's units.
        height: Its height.
        x_text: Makes the label of a position.

    Returns:
        The chart, None where no value is a number.
    """
    values = [v for _, ys in curves.values() for v in ys if _is_number(v)]
    positions = [x for xs, _ in curves.values() for x in xs]
    if not values or not positions:
        return None
    bottom = min(values) if low is None else low
    top = max(values) if high is None else high
    if top - bottom <= 1e-9 * max(abs(bottom), abs(top)):  # a constant lies in the middle of its axis
        margin = abs(top) / 2 or 0.5
        bottom, top = bottom - margin, top + margin
    x_low, x_high = min(positions), max(positions) if x_high is None else x_high
    scale = math.log10 if log_x else float
    left, right = scale(x_low), scale(x_high)

    def across(x: float) -> float:
        return _r(width * (scale(x) - left) / ((right - left) or 1.0))

    def down(y: float) -> float:
        return _r(height - height * (min(max(y, bottom), top) - bottom) / (top - bottom))

    lines = []
    for name, (xs, ys) in curves.items():
        pieces: list[list[str]] = [[]]
        for x, y in zip(xs, ys, strict=True):
            if _is_number(y):
                pieces[-1].append(f"{across(x)},{down(y)}")
            elif pieces[-1]:
                pieces.append([])
        known = [y for y in ys if _is_number(y)]
        lines.append(Line(name, [" ".join(piece) for piece in pieces if piece], last=known[-1] if known else None))
    at = [v for v in _DECADES if x_low <= v <= x_high] if log_x else nice_ticks(x_low, x_high, 6)
    return LineChart(
        title, unit, lines, [Tick(across(x), x_text(x)) for x in at],
        [Tick(down(y), f"{y:g}") for y in nice_ticks(bottom, top, 4)], x_label, width=width, height=height,
    )  # fmt: skip


_DECADES = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers between `low` and `high`: steps of 1, 2 or 5 times a power of ten.

    Args:
        low: Where the axis begins.
        high: Where it ends.
        most: How many steps there may be at most.

    Returns:
        The numbers, ascending; `low` alone where the axis is empty or not finite.
    """
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _r(value: float) -> float:
    return round(value, 2)
