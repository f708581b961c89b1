"""How a sweep is told, on a terminal and in a report alike: its space, its counts and cost, why trials failed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tgeokd_ray.report.wording import MISSING, count, duration, fixed, measure

SEARCHES = {"random": "random search", "grid": "the whole grid", "tpe": "tree-structured Parzen estimators (TPE)"}
SCHEDULERS = {
    "none": "no trial is stopped early",
    "asha": "asynchronous successive halving (ASHA) stops the weak ones early",
    "pbt": "population based training (PBT) goes on from the strong ones",
}
ENDS = ("log_uniform", "uniform", "int_uniform")

Sweep = Mapping[str, Any]
Trial = Mapping[str, Any]


def paths(sweep: Sweep) -> list[str]:
    """All parameters of the sweep: those of its space, then any that only a trial has."""
    return list(dict.fromkeys([*sweep["space"], *(path for trial in sweep["trials"] for path in trial["point"])]))


def short(names: Sequence[str]) -> dict[str, str]:
    """Each dotted path by as much of its end as tells it from the others."""
    found = {}
    for name in names:
        parts = name.split(".")
        tails = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        others = [other for other in names if other != name]
        found[name] = next((t for t in tails if not any(f".{o}".endswith(f".{t}") for o in others)), name)
    return found


def written(value: object) -> str:
    """A parameter's value: `0.00123`, `[32, 16]`, `tgeo`, `true`; a number has four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)


def of_trial(trial: Trial, path: str) -> str:
    """The trial's value of a parameter, `-` where it has none."""
    return written(trial["point"][path]) if path in trial["point"] else MISSING


def described(parameter: Mapping[str, Any]) -> str:
    """What is searched of a parameter: `0.0001 to 0.1, on a log scale`, `one of 16, 32; where rule is constant`."""
    words = {"log_uniform": ", on a log scale", "uniform": "", "int_uniform": ", whole numbers"}
    told = [f"{written(parameter[k][0])} to {written(parameter[k][1])}{words[k]}" for k in ENDS if parameter.get(k)]
    told += [
        f"{word} of {', '.join(map(written, parameter[kind]))}"
        for kind, word in (("choice", "one"), ("grid", "each"))
        if parameter.get(kind)
    ]
    for other, wanted in (parameter.get("when") or {}).items():
        several = wanted if isinstance(wanted, list | tuple) else [wanted]
        told.append(f"where {short([other])[other]} is {' or '.join(map(written, several))}")
    return "; ".join(told)


def finite(value: object) -> float | None:
    """The value as a number that can be drawn, None where it is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None  # type: ignore[arg-type]


def counted(sweep: Sweep) -> str:
    """`10 trials finished, 3 stopped early, 1 failed`."""
    counts, several = sweep["counts"], sweep["counts"]["finished"] != 1
    words = {"stopped": "stopped early", "failed": "failed", "unfinished": "unfinished"}
    told = [f"{count(counts['finished'])} trial{'s' if several else ''} finished"]
    return ", ".join([*told, *(f"{count(counts[key])} {word}" for key, word in words.items() if counts.get(key))])


def spent(sweep: Sweep) -> str:
    """`3 min 51 s, of at most 10 minutes; 0.12 CPU hours, 0 GPU hours`."""
    cost, budget = sweep["cost"], sweep.get("budget_minutes")
    most = f", of at most {budget:g} minutes" if budget is not None else ""
    hours = [f"{_hours(cost[key])} {word} hours" for key, word in (("cpu_hours", "CPU"), ("gpu_hours", "GPU"))]
    return f"{duration(sweep['seconds'])}{most}; {', '.join(hours)}"


def _hours(value: float) -> str:
    return count(value) if value >= 100 else f"{value:.2g}"


def failures(sweep: Sweep) -> dict[str, list[Trial]]:
    """The trials that failed, by their reason on one line, the commonest reason first."""
    found: dict[str, list[Trial]] = {}
    for trial in sweep["trials"]:
        if trial["status"] == "failed":
            code = f"{trial['code']}: " if trial.get("code") else ""
            reason = reason_of(trial) or "no reason is known"
            found.setdefault(reason if reason.startswith(code) else f"{code}{reason}", []).append(trial)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def reason_of(trial: Trial) -> str:
    """Why a trial was stopped or failed, on one line; nothing where that is not told."""
    return "; ".join(part.strip() for part in str(trial.get("reason") or "").splitlines() if part.strip())


def best_trial(sweep: Sweep) -> Trial | None:
    """The trial that won, None where none did."""
    return next((trial for trial in sweep["trials"] if trial["name"] == sweep["best"]), None)


def winner(results: Mapping[str, Any]) -> str:
    """What won on valid, and what its student and the teacher reach on test."""
    sweep = results["extra"]["sweep"]
    trial = best_trial(sweep)
    if trial is None:
        return "No trial finished: there is no best student."
    told = f"Best on valid: {trial['name']}, {measure(sweep['metric'])} {fixed(trial['value'])}."
    student = next((m for m in results["models"] if m["name"] == "best" and m.get("role") != "teacher"), None)
    if student is None:
        return f"{told} It was not trained again."
    teachers = [model for model in results["models"] if model.get("role") == "teacher"]
    beside = f"; the teacher {_on_test(teachers[0], sweep['metric'])}" if len(teachers) == 1 else ""
    return f"{told} Trained again, the student reaches {_on_test(student, sweep['metric'])} on test{beside}."


def confirmed(sweep: Sweep) -> str | None:
    """Whether the winner replaces the first known point, and by how much it differs on test; None unless asked for."""
    found = sweep.get("confirmation")
    if found is None:
        return None
    if found["same"]:
        return f"The first known point, {found['known']}, won: there is nothing to replace."
    name, figures = measure(found["metric"]), found["figures"][found["metric"]]
    if figures["difference"] is None:
        return f"The winner was not compared: {name} is undefined on test."
    told = f"{figures['difference']:+.4f} {name} on test, {figures['low']:+.4f} to {figures['high']:+.4f}"
    verdict = "it replaces it" if found["replaces"] else "the known point stays"
    beside = f"On {len(found['seeds'])} fresh seeds the winner is beside the first known point, {found['known']}"
    return f"{beside}: {told}: {verdict}."


def _on_test(model: Mapping[str, Any], metric: str) -> str:
    keys = dict.fromkeys([metric, "auc", "nll", "accuracy"])
    return ", ".join(f"{measure(key)} {fixed(model[key])}" for key in keys if model.get(key) is not None) or MISSING
