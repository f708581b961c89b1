"""Small plots as inline SVG: intervals, bars, curves, a band, a histogram, calibration, dots.

Colours come from plots.css.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tgeokd_ray.report.markup import Markup, tag
from tgeokd_ray.report.wording import count

WIDTH = 520
LABEL_WIDTH = 150  # of the row names beside an interval plot
FIGURE_WIDTH = 64
ROW_HEIGHT = 34
PLOT_HEIGHT = 250
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 46
PAD = 0.06

Point = tuple[float, float]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Row:
    """One row of an interval plot: its name, value, interval if there is one, and the colour it has everywhere; a thin
    line shows a wider interval behind it."""

    name: str
    value: float
    interval: tuple[float, float] | None
    colour: int
    wider: tuple[float, float] | None = None


@dataclass(frozen=True)
class Series:
    """One curve: its name, points in the order of x, and the colour it has everywhere."""

    name: str
    points: Sequence[Point]
    colour: int


@dataclass(frozen=True)
class Dot:
    """One dot of a scatter plot, what it says when pointed at, and whether it is hollow."""

    x: float
    y: float
    colour: int
    title: str
    hollow: bool = False


def intervals(
    rows: Sequence[Row],
    *,
    name: str,
    digits: int = 4,
    span: tuple[float, float] | None = None,
    mark: float | None = None,
) -> Markup:
    """A dot and its interval per row over a common axis, with the figure at the right. `span` fixes the axis, `mark` is
    a value to compare all rows with."""
    ends = [end for row in rows for end in (row.value, *(row.interval or ()), *(row.wider or ()))]
    ends += [] if mark is None else [mark]
    low, high = span or padded(min(ends), max(ends))
    left, right, bottom = LABEL_WIDTH, WIDTH - FIGURE_WIDTH, TOP + ROW_HEIGHT * len(rows)
    x = _scale(low, high, left, right)
    children: list[Markup] = []
    for tick, written in ticks(low, high, 5).items():
        children.append(_line(x(tick), TOP, x(tick), bottom, "grid"))
        children.append(_text(x(tick), bottom + 18, written, "tick mid"))
    children += [] if mark is None else [_line(x(mark), TOP, x(mark), bottom, "diagonal")]
    for number, row in enumerate(rows):
        y = TOP + ROW_HEIGHT * (number + 0.5)
        children.append(_text(0, y + 4, _clipped(row.name), "label"))
        if row.wider:
            children.append(_line(x(row.wider[0]), y, x(row.wider[1]), y, f"wider c{row.colour}"))
        if row.interval:
            ends_x = x(row.interval[0]), x(row.interval[1])
            children.append(_line(ends_x[0], y, ends_x[1], y, f"whisker c{row.colour}"))
            children += [_line(end, y - 4, end, y + 4, f"whisker c{row.colour}") for end in ends_x]
        children.append(_dot(x(row.value), y, 5, row.colour, f"{row.name}: {row.value:.{digits}f}"))
        children.append(_text(WIDTH - 2, y + 4, f"{row.value:.{digits}f}", "figure end"))
    said = "; ".join(f"{row.name} {row.value:.{digits}f}" for row in rows)
    return _svg(bottom + 26, name, said, children)


def bars(rows: Sequence[Row], *, name: str, digits: int = 2) -> Markup:
    """A bar per row from zero to its value, which is not negative, with the figure beside it."""
    bottom = TOP + ROW_HEIGHT * len(rows)
    x = _scale(0, max([row.value for row in rows]) or 1, LABEL_WIDTH, WIDTH - FIGURE_WIDTH)
    children: list[Markup] = []
    for number, row in enumerate(rows):
        y, end, figure = TOP + ROW_HEIGHT * (number + 0.5), x(row.value), f"{row.value:.{digits}f}"
        shape = {
            "x": f"{LABEL_WIDTH}",
            "width": f"{max(end - LABEL_WIDTH, 1):.1f}",
            "y": f"{y - 8:.1f}",
            "height": "16",
        }
        children.append(_text(0, y + 4, _clipped(row.name), "label"))
        children.append(
            tag("rect", tag("title", f"{row.name}: {figure}"), class_=f"bar c{row.colour}", rx="2", **shape)
        )
        children.append(_text(end + 8, y + 4, figure, "figure"))
    said = "; ".join(f"{row.name} {row.value:.{digits}f}" for row in rows)
    return _svg(bottom + 8, name, said, children)


def scatter(
    dots: Sequence[Dot],
    *,
    name: str,
    x_name: str,
    y_name: str,
    x_span: Point,
    y_span: Point,
    x_ticks: Mapping[float, str],
) -> Markup:
    """Dots in the order given, later ones on top; what lies above or below `y_span` is drawn at its edge."""
    frame, x, y = _frame(x_span, y_span, x_name, y_name, x_ticks)
    for dot in dots:
        height = y(min(max(dot.y, y_span[0]), y_span[1]))
        frame.append(_dot(x(dot.x), height, 4.5, dot.colour, dot.title, hollow=dot.hollow))
    return _svg(PLOT_HEIGHT, name, f"{len(dots)} dots", frame)


def curves(series: Sequence[Series], *, name: str, x_name: str, y_name: str, log: bool = False) -> Markup:
    """A line per series with a dot at each point; a series of one point is that dot. With `log` the axis of x, which is
    positive, is one of powers of ten."""
    said = "; ".join(f"{one.name} ends at {one.points[-1][1]:.4f}" for one in series)
    titles = [[f"{one.name}: {x_name} {a:g}, {b:.4f}" for a, b in one.points] for one in series]
    if log:
        series = [replace(one, points=[(math.log10(a), b) for a, b in one.points]) for one in series]
    points = [point for one in series for point in one.points]
    xs, ys = sorted(x for x, _ in points), sorted(y for _, y in points)
    x_span = (xs[0], xs[-1]) if xs[-1] > xs[0] else (xs[0] - 1, xs[0] + 1)
    x_span = padded(*x_span) if log else x_span
    frame, x, y = _frame(x_span, padded(ys[0], ys[-1]), x_name, y_name, log_ticks(*x_span) if log else None)
    for one, own in zip(series, titles, strict=True):
        frame.append(tag("polyline", points=_path(one.points, x, y), class_=f"curve c{one.colour}"))
        frame += [_dot(x(a), y(b), 2.6, one.colour, title) for (a, b), title in zip(one.points, own, strict=True)]
    return _svg(PLOT_HEIGHT, name, said, frame)


def band(
    xs: Sequence[float], low: Sequence[float], middle: Series, high: Sequence[float], *, name: str, x_name: str
) -> Markup:
    """A curve over `xs` within the band from `low` to `high`, on an axis from 0 to 1."""
    x_span = (xs[0], xs[-1]) if xs[-1] > xs[0] else (xs[0] - 1, xs[0] + 1)
    frame, x, y = _frame(x_span, (0.0, 1.0), x_name, middle.name)
    edge = [*zip(xs, high, strict=True), *reversed(list(zip(xs, low, strict=True)))]
    frame.append(tag("polygon", points=_path(edge, x, y), class_=f"band c{middle.colour}"))
    frame.append(tag("polyline", points=_path(middle.points, x, y), class_=f"curve c{middle.colour}"))
    for (a, b), least, most in zip(middle.points, low, high, strict=True):
        said = f"{x_name} {a:g}: {b:.3f}, from {least:.3f} to {most:.3f}"
        frame.append(_dot(x(a), y(b), 2.6, middle.colour, said))
    said = f"at the end {middle.points[-1][1]:.3f}, from {low[-1]:.3f} to {high[-1]:.3f}"
    return _svg(PLOT_HEIGHT, name, said, frame)


def histogram(edges: Sequence[float], counts: Sequence[float], *, name: str, x_name: str, colour: int) -> Markup:
    """Bars from each edge to the next, from zero up."""
    frame, x, y = _frame((edges[0], edges[-1]), (0, max([*counts, 1]) * (1 + PAD)), x_name, "rows")
    for low, high, rows in zip(edges, edges[1:], counts, strict=False):
        shape = {"x": f"{x(low) + 1:.1f}", "width": f"{max(x(high) - x(low) - 2, 1):.1f}"}
        shape |= {"y": f"{y(rows):.1f}", "height": f"{y(0) - y(rows):.1f}"}
        title = tag("title", f"{low:g} to {high:g}: {count(rows)} rows")
        frame.append(tag("rect", title, class_=f"bar c{colour}", rx="1.5", **shape))
    peak = max(range(len(counts)), key=lambda k: counts[k])
    said = f"most rows lie between {edges[peak]:g} and {edges[peak + 1]:g}"
    return _svg(PLOT_HEIGHT, name, said, frame)


def calibration(series: Sequence[Series], *, name: str) -> Markup:
    """Share predicted right against mean confidence; the diagonal is a perfect match."""
    lowest = min(min(point) for one in series for point in one.points)
    span = (math.floor(min(max(lowest, 0), 0.9) * 10) / 10, 1.0)
    frame, x, y = _frame(span, span, "mean confidence", "share predicted right")
    frame.append(_line(x(span[0]), y(span[0]), x(1), y(1), "diagonal"))
    for one in series:
        frame.append(tag("polyline", points=_path(one.points, x, y), class_=f"curve c{one.colour}"))
        frame += [
            _dot(x(a), y(b), 2.6, one.colour, f"{one.name}: {a:.3f} predicted, {b:.3f} right") for a, b in one.points
        ]
    return _svg(PLOT_HEIGHT, name, "; ".join(one.name for one in series), frame)


def ticks(low: float, high: float, most: int) -> dict[float, str]:
    """About `most` round values (1, 2 or 5 times a power of ten apart) within [low, high], and how to write them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return {round(k * step, 12): f"{k * step:,.{digits}f}" for k in numbers}


def log_ticks(low: float, high: float, most: int = 6) -> dict[float, str]:
    """Round values between the powers of ten of `low` and `high`, and how to write them, by their logarithm."""
    powers = range(math.ceil(low), math.floor(high) + 1)
    if len(powers) >= 3:
        return {float(k): f"{10.0**k:g}" for k in powers[:: math.ceil(len(powers) / most)]}
    steps = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    inside = {math.log10(step): f"{step:g}" for step in steps if low <= math.log10(step) <= high}
    return inside if len(inside) >= 2 else {math.log10(v): w for v, w in ticks(10**low, 10**high, 4).items()}


def padded(low: float, high: float) -> tuple[float, float]:
    """The span with a little room at both ends; it is never empty."""
    room = (high - low) * PAD or max(abs(high), 1e-6) * 0.05
    return low - room, high + room


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _frame(
    x_span: Point, y_span: Point, x_name: str, y_name: str, x_ticks: Mapping[float, str] | None = None
) -> tuple[list[Markup], Scale, Scale]:
    left, right, bottom = LEFT, WIDTH - RIGHT, PLOT_HEIGHT - BOTTOM
    x, y = _scale(*x_span, left, right), _scale(*y_span, bottom, TOP)
    frame: list[Markup] = []
    for tick, written in ticks(*y_span, 5).items():
        frame.append(_line(left, y(tick), right, y(tick), "grid"))
        frame.append(_text(left - 8, y(tick) + 4, written, "tick end"))
    x_ticks = ticks(*x_span, 8) if x_ticks is None else x_ticks
    frame += [_text(x(tick), bottom + 17, written, "tick mid") for tick, written in x_ticks.items()]
    frame.append(_line(left, bottom, right, bottom, "axis"))
    frame.append(_text((left + right) / 2, PLOT_HEIGHT - 8, x_name, "axis-name mid"))
    middle = (TOP + bottom) / 2
    frame.append(_text(13, middle, y_name, "axis-name mid", transform=f"rotate(-90 13 {middle:.0f})"))
    return frame, x, y


def _path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)


def _clipped(name: str) -> str:
    return name if len(name) <= 21 else f"{name[:20]}…"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _text(x: float, y: float, text: str, kind: str, transform: str | None = None) -> Markup:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", class_=kind, transform=transform)


def _dot(x: float, y: float, radius: float, colour: int, title: str, *, hollow: bool = False) -> Markup:
    kind = f"dot {'hollow ' if hollow else ''}c{colour}"
    return tag("circle", tag("title", title), cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius, class_=kind)


def _svg(height: int, name: str, said: str, children: Sequence[Markup]) -> Markup:
    label = f"{name}. {said}"
    return tag("svg", children, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label)
