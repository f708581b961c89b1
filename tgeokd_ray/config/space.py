"""What a sweep searches: parameters by their path in a job's configuration, and points of that space.

A point is a dict of path to value. As a search algorithm sees it, a value of a list is the place in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import model_validator

from tgeokd_ray.tables.validation import Strict, did_you_mean, raise_all

Point = dict[str, Any]
COUNTED = 10_000  # combinations of lists
MOST_POINTS = 100_000  # of a list that is made before anything starts
KINDS = ("log_uniform", "uniform", "int_uniform", "choice", "grid")


class Parameter(Strict):
    """One parameter in plain words: `log_uniform: [1e-4, 1e-1]`, `uniform`, `int_uniform` (both ends are in), `choice`,
    or `grid`, whose values are all tried. `when: {rule: constant}` names the values of other parameters without which
    it has no meaning; then it is left out of the point."""

    log_uniform: tuple[float, float] | None = None
    uniform: tuple[float, float] | None = None
    int_uniform: tuple[int, int] | None = None
    choice: tuple[Any, ...] | None = None
    grid: tuple[Any, ...] | None = None
    when: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        problems = [] if len(given) == 1 else [f"needs one of {', '.join(KINDS)}, got {', '.join(given) or 'none'}"]
        for kind in given:
            value = getattr(self, kind)
            if kind in ("choice", "grid"):
                problems += [] if value else [f"{kind} must name at least one value, got none"]
            elif not value[0] < value[1]:
                problems.append(f"{kind} must go from the smaller to the larger end, got {list(value)}")
            elif kind == "log_uniform" and value[0] <= 0:
                problems.append(f"log_uniform must be > 0, got {list(value)}")
        raise_all(problems)
        return self

    @property
    def kind(self) -> str:
        """The one of KINDS that it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> tuple[Any, ...] | None:
        """The values of a list, None between two ends."""
        return self.choice if self.choice is not None else self.grid

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of what is no list."""
        found: tuple[float, float] = getattr(self, self.kind)
        return found

    def samples(self) -> tuple[Any, ...]:
        """Values that stand for all: the list, or both ends."""
        return self.values if self.values is not None else self.ends

    def has(self, value: Any) -> bool:
        """Whether it could be this value: one of its list, or one between its ends."""
        if self.values is not None:
            return _plain(value) in [*map(_plain, self.values)]
        low, high = self.ends
        number = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        return number and (self.kind != "int_uniform" or value == int(value))

    @property
    def between(self) -> tuple[float, ...]:
        """A value between two ends that is no whole number; none of what has whole numbers only, or is a list."""
        if self.values is not None or self.kind == "int_uniform":
            return ()
        low, high = self.ends
        return (low + (high - low) / math.sqrt(2),)

    def draw(self, generator: np.random.Generator) -> Any:
        """A value at random."""
        if self.values is not None:
            return self.values[int(generator.integers(len(self.values)))]
        low, high = self.ends
        if self.kind == "int_uniform":
            return int(generator.integers(int(low), int(high) + 1))
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        return float(math.exp(generator.uniform(math.log(low), math.log(high))))

    def encoded(self, value: Any) -> Any:
        """The value as a search algorithm sees it. ValueError for one that is not in the list."""
        return value if self.values is None else [*map(_plain, self.values)].index(_plain(value))

    def decoded(self, value: Any) -> Any:
        """The value that a search algorithm means."""
        return value if self.values is None else self.values[int(value)]

    def settled(self, value: Any) -> Any:
        """A value of a user as a search itself would give it: 1 between two ends is 1.0, so that both are one trial.
        ValueError for one that is not in the list."""
        if self.values is not None:
            return self.decoded(self.encoded(value))
        return int(value) if self.kind == "int_uniform" else float(value)


Space = Mapping[str, Parameter]


def effective(space: Space, point: Point) -> Point:
    """The point without parameters whose condition does not hold in it, in the order of the space."""
    kept: Point = {}
    for name, parameter in space.items():
        if name in point and all(_holds(kept, other, wanted) for other, wanted in (parameter.when or {}).items()):
            kept[name] = point[name]
    return kept


def grid_points(space: Space) -> list[Point]:
    """Every combination of the lists, the last parameter moving fastest, each effective point once."""
    names = list(space)
    lists = [space[name].samples() for name in names]
    return distinct(effective(space, dict(zip(names, values, strict=True))) for values in itertools.product(*lists))


def size_of(space: Space) -> float:
    """How many points there are; infinitely many between two ends, and where lists have too many to count."""
    lists = [parameter.values for parameter in space.values()]
    combinations = math.prod(math.inf if values is None else len(values) for values in lists)
    return len(grid_points(space)) if combinations <= COUNTED else math.inf


def random_points(space: Space, draws: int, seed: int) -> list[Point]:
    """`draws` points at random for each combination of the `grid` lists, each once; the first ones do not depend on how
    many are asked for."""
    grids = {name: parameter for name, parameter in space.items() if parameter.kind == "grid"}
    # Whether a condition holds is known only with what is drawn.
    lists = itertools.product(*(parameter.samples() for parameter in grids.values()))
    combinations = [dict(zip(grids, values, strict=True)) for values in lists]
    found = []
    for draw in range(draws):
        generator = np.random.default_rng([seed, draw])
        drawn = {name: parameter.draw(generator) for name, parameter in space.items() if name not in grids}
        found += [effective(space, {**one, **drawn}) for one in combinations]
    return distinct(found)


def distinct(points: Iterable[Point]) -> list[Point]:
    """Each point once, in the order of their first time."""
    found: dict[str, Point] = {}
    for point in points:
        found.setdefault(repr(sorted((name, _plain(value)) for name, value in point.items())), point)
    return list(found.values())


def order_of(space: Space) -> list[str]:
    """The names with conditions after what they depend on. ValueError names what is missing, or goes in a circle."""
    order: list[str] = []
    waiting = dict(space)
    while waiting:
        ready = [n for n, p in waiting.items() if not any(other in waiting for other in p.when or {})]
        if not ready:
            raise ValueError(f"the conditions of {', '.join(waiting)} go in a circle")
        order += ready
        for name in ready:
            del waiting[name]
    return order


def never_held(space: Space, name: str) -> list[str]:
    """What is wrong with the conditions of a parameter: what is not in the space, and values that another never has."""
    problems = []
    for other, wanted in (space[name].when or {}).items():
        if other not in space:
            problems.append(f"{other!r} is not in the space{did_you_mean(other, space)}")
            continue
        values = space[other].values or ()
        for one in _several(wanted):
            if not space[other].has(one):
                near = did_you_mean(str(one), [value for value in values if isinstance(value, str)])
                problems.append(f"{other} is never {one!r}{near}")
    return problems


def listed(space: Space, search: str, draws: int) -> float:
    """How many combinations a list of all points is made of: those of the lists, or of the grids for each draw."""
    grids = [p for p in space.values() if search == "grid" or p.kind == "grid"]
    return math.prod(len(parameter.values or ()) for parameter in grids) * (1 if search == "grid" else draws)


def _several(wanted: Any) -> Sequence[Any]:
    """The values of a condition; a value that is a list itself stands in a list: [[8]]."""
    return wanted if isinstance(wanted, list | tuple) else [wanted]


def _holds(point: Point, other: str, wanted: Any) -> bool:
    return other in point and any(_plain(point[other]) == _plain(one) for one in _several(wanted))


def _plain(value: Any) -> Any:
    """Lists and tuples alike, since YAML has the one and pydantic the other."""
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
