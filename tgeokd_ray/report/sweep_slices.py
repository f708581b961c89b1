"""Where a sweep looked, parameter by parameter: the metric on valid against the values that its trials had."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgeokd_ray.report import svg
from tgeokd_ray.report.markup import Markup
from tgeokd_ray.report.plots import plot
from tgeokd_ray.report.sweep_wording import ENDS, finite, of_trial, paths, short
from tgeokd_ray.report.wording import fixed, measure

FINISHED, STOPPED, BEST = 1, 0, 2  # colours
REACH = 4.0  # of the axis beyond the best value, in distances of the median from it: one collapse must not flatten all
GOLDEN = 0.6180339887  # dots of one category lie beside each other at places that are spread evenly, however many
TICK_WIDTH = 6.5  # of a letter

Sweep = Mapping[str, Any]
Trial = Mapping[str, Any]


@dataclass(frozen=True)
class _Axis:
    """The span of a parameter, its ticks, and where the trial of this number lies on it, None for one that does not."""

    span: svg.Point
    ticks: Mapping[float, str]
    place: Callable[[Trial, int], float | None]


def slices(sweep: Sweep) -> list[Markup]:
    """A scatter plot for each parameter that some trial with a value had, in the order of the space."""
    shown = [trial for trial in sweep["trials"] if finite(trial["value"]) is not None]
    names, drawn = short(paths(sweep)), []
    span, _ = reach(sweep)
    for path, name in names.items():
        having = [trial for trial in shown if path in trial["point"]]
        axis = _axis(path, sweep["space"].get(path) or {}, having)
        dots = [
            svg.Dot(x, float(trial["value"]), _colour(sweep, trial), _title(trial, path, name), _hollow(trial))
            for number, trial in enumerate(having)
            if (x := axis.place(trial, number)) is not None
        ]
        if dots:
            caption = f"{measure(sweep['metric'])} on valid by {name}"
            plotted = svg.scatter(
                dots[::-1],
                name=caption,
                x_name=name,
                y_name=measure(sweep["metric"]),
                x_span=axis.span,
                y_span=span,
                x_ticks=axis.ticks,
            )
            drawn.append(plot(caption, plotted))
    return drawn


def reach(sweep: Sweep) -> tuple[svg.Point, int]:
    """The span of the metric that all slices share, and how many trials are worse than it shows."""
    sign = 1 if sweep["higher_is_better"] else -1
    values = sorted((v for trial in sweep["trials"] if (v := finite(trial["value"])) is not None), reverse=sign > 0)
    if not values:
        return (0.0, 1.0), 0
    best, limit = values[0], REACH * abs(values[0] - statistics.median(values))
    inside = [value for value in values if limit == 0 or abs(best - value) <= limit]
    return svg.padded(min(inside), max(inside)), len(values) - len(inside)


def _colour(sweep: Sweep, trial: Trial) -> int:
    if trial["name"] == sweep["best"]:
        return BEST
    return STOPPED if _hollow(trial) else FINISHED


def _hollow(trial: Trial) -> bool:
    return bool(trial["status"] != "finished")


def _title(trial: Trial, path: str, name: str) -> str:
    return f"{trial['name']}: {name} {of_trial(trial, path)}, {fixed(trial['value'])}, {trial['status']}"


def _axis(path: str, parameter: Mapping[str, Any], trials: Sequence[Trial]) -> _Axis:
    ends = next((parameter[kind] for kind in ENDS if parameter.get(kind)), None)
    if ends is None:
        return _categories(path, parameter, trials)
    log = bool(parameter.get("log_uniform"))

    def place(trial: Trial, number: int) -> float | None:
        del number
        value = finite(trial["point"][path])
        if value is None or (log and value <= 0):
            return None
        return math.log10(value) if log else value

    known = [x for trial in trials if (x := place(trial, 0)) is not None]
    known += [math.log10(end) if log else float(end) for end in ends]
    span = svg.padded(min(known), max(known))
    return _Axis(span, svg.log_ticks(*span) if log else svg.ticks(*span, 6), place)


def _categories(path: str, parameter: Mapping[str, Any], trials: Sequence[Trial]) -> _Axis:
    listed = [
        of_trial({"point": {path: value}}, path) for kind in ("choice", "grid") for value in parameter.get(kind) or ()
    ]
    values = list(dict.fromkeys([*listed, *(of_trial(trial, path) for trial in trials)]))

    def place(trial: Trial, number: int) -> float:
        return values.index(of_trial(trial, path)) + ((number * GOLDEN) % 1 - 0.5) * 0.5

    letters = max(int((svg.WIDTH - svg.LEFT - svg.RIGHT) / max(len(values), 1) / TICK_WIDTH), 4)
    every = max(1, math.ceil(len(values) / 16))
    ticks = {float(k): _clipped(v, letters * every) for k, v in enumerate(values) if k % every == 0}
    return _Axis((-0.5, max(len(values), 1) - 0.5), ticks, place)


def _clipped(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
