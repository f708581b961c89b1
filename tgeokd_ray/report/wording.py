"""How a figure, a duration and a model are written, on a terminal and in a report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "-"


def plain(text: object) -> str:
    """`text` on one line, every character that does not print written as its escape (`\\n`, `\\x1b`, `\\u202e`)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def printable(text: object, encoding: str) -> str:
    """`plain(text)`, with an escape also for each character that `encoding` does not have."""
    return plain(text).encode(encoding, "backslashreplace").decode(encoding)


def fixed(value: float | None, digits: int = 4) -> str:
    """`0.7312`, or `-` where the value is null or not finite."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """`12,345`, or `-` where the value is null."""
    return MISSING if value is None else f"{value:,.0f}"


def interval(bounds: list[float] | tuple[float, float] | None) -> str:
    """`0.7290 to 0.7334`, or nothing where there is none."""
    return "" if not bounds else f"{fixed(bounds[0])} to {fixed(bounds[1])}"


def duration(seconds: float | None) -> str:
    """`0.42 s`, `12.3 s`, `2 min 05 s` or `1 h 02 min`."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def pace(per_second: float, unit: str = "") -> str:
    """`37,500/s`, `2.4/s`; `2.4 trials/min`, with the unit ` trials`, where less than one comes in a second."""
    figure, word = (per_second, "s") if per_second >= 1 else (per_second * 60, "min")
    return f"{figure:.1f}{unit}/{word}" if figure < 9.95 else f"{count(figure)}{unit}/{word}"


def displayed(display: Mapping[str, str], classes: Sequence[str]) -> list[str]:
    """The classes by their names for reports where `display` has one; one that another class has too is told beside
    the class's own."""
    names = [str(display.get(name, name)) for name in classes]
    return [
        f"{shown} ({name})" if shown != name and names.count(shown) > 1 else shown
        for name, shown in zip(classes, names, strict=True)
    ]


def title(model: Mapping[str, Any]) -> str:
    """What a model is in a comparison: `teacher`, `student on labels`, `best constant 0.75`, `TGeo-KD`, or its name."""
    rule = model.get("rule") or {}
    kind = str(rule.get("kind") or "")
    if model.get("role") == "teacher":
        return "teacher" if model["name"] == "teacher" else f"teacher {plain(model['name'])}"
    if kind == "labels":
        return "student on labels" if model["name"] == "labels" else plain(model["name"])
    if kind == "constant":
        word = "best constant" if model.get("chosen") else "constant"
        value = rule.get("value")
        weights = value if isinstance(value, list) else [value]
        return " ".join([word, *(f"{weight:g}" for weight in weights if isinstance(weight, int | float))])
    return "TGeo-KD" if model["name"] == "tgeo" else plain(model["name"])


def detail(model: Mapping[str, Any]) -> str:
    """What TGeo-KD chose: `strength 2, shift +1.5`, or `the constant 0.75` where that won; nothing of other models."""
    rule = model.get("rule") or {}
    if rule.get("kind") != "tgeo":
        return ""
    return point(rule) if rule.get("strength") else f"the constant {mixture(rule['value'])}"


def point(rule: Mapping[str, Any]) -> str:
    """`strength 2, shift +1.5`, with the temperature where it is not 1."""
    warm = f", temperature {rule['temperature']:g}" if rule.get("temperature", 1) != 1 else ""
    return f"strength {rule['strength']:g}, shift {rule['shift']:+g}{warm}"


def mixture(value: float | Sequence[float]) -> str:
    """A constant, or the weights of several teachers: `0.5 0.25`."""
    return " ".join(f"{weight:g}" for weight in (value if isinstance(value, Sequence) else [value]))


def measure(metric: str) -> str:
    """What a metric is called: `AUC`, `macro-F1`, `average precision`."""
    return {"auc": "AUC", "nll": "NLL", "macro_f1": "macro-F1"}.get(metric, metric.replace("_", " "))


def contenders(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The models of the final comparison: all but the constants that were not chosen, where one was."""
    models: list[Mapping[str, Any]] = list(results["models"])
    if not any(model.get("chosen") for model in models):
        return models
    return [model for model in models if model.get("chosen") or (model.get("rule") or {}).get("kind") != "constant"]


def many_classes(results: Mapping[str, Any]) -> bool:
    """Whether the table has more than two classes, as far as its models tell."""
    return any(len(model.get("recall") or {}) > 2 for model in results["models"])


def best_possible(results: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The best AUC that any model can have, where a synthetic table knows it: of what all models see, and of what the
    teacher sees if that is more."""
    extra = results.get("extra") or {}
    names = {"bayes_auc": "best possible (Bayes)", "teacher_bayes_auc": "best possible for the teacher (Bayes)"}
    return [(name, extra[key]) for key, name in names.items() if extra.get(key) is not None]
