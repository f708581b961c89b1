"""What the seeds of a ladder say of each size: figures with and without distillation, and where the knee is.

S seeds, paired. The constant of a size is the one with the best mean on valid; nothing is chosen by test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from tgeokd_ray.metrics.intervals import paired_difference
from tgeokd_ray.pipeline.ladder_cell import FIGURES
from tgeokd_ray.training.spec import sign_of

Told = Mapping[str, Any]


def summarise(cells: Sequence[Told]) -> dict[str, Any]:
    """`metric`, `teacher`, `rungs` from the largest size on, and `knee`, the text of its size.

    A rung has means over seeds of test figures, `labels` and `distilled`; `kept` is the share of the teacher's mean
    figure for each of those that are better when larger; `gain` the paired difference of the metric between the two,
    `low` to `high` its 95 % interval (null for one seed). The knee is the smallest size whose metric on valid is, in
    the mean of paired differences, not more than one standard error of them below that of the best size (Breiman et
    al., 1984, section 3.4.3, for sizes of trees); of one seed, the best. A size too small for any student has null for
    its model.
    """
    metric = cells[0]["metric"]
    teacher = _model([cell["teacher"] for cell in cells])
    rungs = [_rung(parts, teacher, metric) for parts in zip(*(cell["rungs"] for cell in cells), strict=True)]
    rungs.sort(key=lambda rung: -rung["most"])
    return {"metric": metric, "teacher": teacher, "rungs": rungs, "knee": _knee(rungs, metric)}


def _rung(parts: Sequence[Told], teacher: Told, metric: str) -> dict[str, Any]:
    first = parts[0]
    rung: dict[str, Any] = {"size": first["size"], "most": first["most"]}
    nothing = ("model", "parameters", "latency_ms", "constant", "labels", "distilled", "kept", "gain", "low", "high")
    if any("model" not in part for part in parts):
        return rung | dict.fromkeys((*nothing, "valid"))
    names = [one["name"] for one in first["students"] if one["name"] != "labels"]
    found = {name: [_named(part, name) for part in parts] for name in ("labels", *names)}
    sign = sign_of(metric)
    best = max(names, key=lambda name: _value(found[name], metric, sign))
    distilled, labels = _model(found[best])["test"], _model(found["labels"])["test"]
    shares = {name: _share(distilled[name], teacher["test"][name]) for name in FIGURES if name != "nll"}
    ours, theirs = ([one["test"][metric] for one in found[name]] for name in (best, "labels"))
    gain: tuple[float | None, ...] = (None, None, None)
    if None not in (*ours, *theirs):
        plain = mean(ours) - mean(theirs)
        gain = paired_difference(ours, theirs) if len(parts) > 1 else (plain, None, None)
    return rung | {
        "model": first["model"],
        "parameters": first["parameters"],
        "latency_ms": mean(part["latency_ms"] for part in parts),
        "constant": best.removeprefix("constant-"),
        "labels": labels,
        "distilled": distilled,
        "kept": shares,
        **dict(zip(("gain", "low", "high"), gain, strict=True)),
        "valid": [one["valid"][metric] for one in found[best]],
    }


def _named(part: Told, name: str) -> Told:
    return next(one for one in part["students"] if one["name"] == name)


def _value(found: Sequence[Told], metric: str, sign: float) -> float:
    values = [one["valid"][metric] for one in found]
    return -math.inf if any(value is None for value in values) else sign * mean(values)


def _model(parts: Sequence[Told]) -> dict[str, Any]:
    """Means over the seeds of the figures on test, with size and time of a model."""
    test = {name: _mean([part["test"][name] for part in parts]) for name in FIGURES}
    latency = _mean([part.get("latency_ms") for part in parts])
    return {"parameters": parts[0].get("parameters"), "latency_ms": latency, "test": test}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _share(value: float | None, of: float | None) -> float | None:
    return None if value is None or not of else value / of


def _knee(rungs: Sequence[Told], metric: str) -> str | None:
    sign = sign_of(metric)
    known = [rung for rung in rungs if rung["valid"] is not None and None not in rung["valid"]]
    if not known:
        return None
    best = max(known, key=lambda rung: sign * mean(rung["valid"]))
    near = [rung for rung in known if _is_near(rung["valid"], best["valid"], sign)]
    return str(min(near, key=lambda rung: rung["parameters"])["size"])


def _is_near(values: Sequence[float], best: Sequence[float], sign: float) -> bool:
    below = [sign * (top - value) for value, top in zip(values, best, strict=True)]
    error = stdev(below) / math.sqrt(len(below)) if len(below) > 1 else 0.0
    return mean(below) <= error
