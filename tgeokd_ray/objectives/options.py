"""Checks of named options: every wrong one in one ConfigError, with the nearest known name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tgeokd_ray.errors import ConfigError, Problem


@dataclass(frozen=True)
class Check:
    """An option's name, the rule it must keep in words, its value, and whether it keeps it."""

    name: str
    rule: str
    value: object
    kept: bool


def require(owner: str, checks: Sequence[Check], problems: Sequence[Problem] = ()) -> None:
    """ConfigError that lists `problems` and every broken check as `owner.name must be rule; got value`."""
    broken = [
        Problem(f"{owner}.{check.name} must be {check.rule}", got=repr(check.value))
        for check in checks
        if not check.kept
    ]
    if problems or broken:
        raise ConfigError([*problems, *broken])


def suggestion(name: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, else all of them."""
    names = list(known)
    near = get_close_matches(str(name), names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if names else "; there are no options"


def is_number(value: object) -> bool:
    """True for int and float, not for bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)
