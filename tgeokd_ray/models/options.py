"""The options of a network, checked all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from tgeokd_ray.errors import Problem


@dataclass(frozen=True)
class ModelOptions:
    """Widths of the ReLU layers, width D of an embedding, cross layers (used by dcnv2), share of units dropped; of
    networks of images (resnet, wrn) layers and a factor of the channels."""

    hidden: tuple[int, ...] = (64, 64)
    embedding: int = 8
    cross_layers: int = 2
    dropout: float = 0.0
    depth: int | None = None
    width: int = 1


def read_options(options: Mapping[str, Any], where: str) -> tuple[ModelOptions, list[Problem]]:
    """The options with defaults filled in, and everything wrong with them; they are the defaults if anything is."""
    known = [field.name for field in fields(ModelOptions)]
    problems = [unknown("option", name, known, where) for name in options if name not in known]
    for name, (rule, holds) in RULES.items():
        if name in options and not holds(options[name]):
            problems.append(Problem(f"{where}.{name} must be {rule}", got=repr(options[name])))
    if problems:
        return ModelOptions(), problems
    chosen = ModelOptions(**options)
    return replace(chosen, hidden=tuple(chosen.hidden)), []


def unknown(what: str, name: object, known: list[str], where: str) -> Problem:
    """`unknown option 'hiden' in model; did you mean 'hidden'?`"""
    near = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return Problem(f"unknown {what} {name!r} in {where}; {hint}")


def is_count(value: object) -> bool:
    """A whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(is_count(item) for item in value)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


RULES = {
    "hidden": ("a list of whole numbers >= 1", _are_counts),
    "embedding": ("a whole number >= 1", is_count),
    "cross_layers": ("a whole number >= 1", is_count),
    "dropout": (">= 0 and < 1", _is_share),
    "depth": ("a whole number >= 1, or nothing", lambda value: value is None or is_count(value)),
    "width": ("a whole number >= 1", is_count),
}
