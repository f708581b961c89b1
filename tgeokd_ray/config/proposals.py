"""What a sweep is to try: a list of units, or points that a search algorithm thinks of as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tgeokd_ray.config.space import Space

Raw = Mapping[str, Any]  # a point as a search algorithm sees it: places in lists, conditions unheard


@dataclass(frozen=True)
class Listed:
    """Units that are all known before; each is one trial of whoever runs them."""

    units: tuple[Any, ...]

    @property
    def number(self) -> int:
        """How many trials that makes."""
        return len(self.units)

    def unit(self, config: Raw) -> Any:
        """The unit of {"unit": place in the list}."""
        return self.units[config["unit"]]


@dataclass(frozen=True)
class Asked:
    """So many more points of TPE (Optuna): the `first` ones before its own, which follow from the `known` points with
    their values, None for one that failed; larger values are better. `make` turns a raw point into a unit, `key` is the
    same for those that are one trial."""

    space: Space
    number: int
    seed: int
    first: tuple[Raw, ...]
    known: tuple[tuple[Raw, float | None], ...]
    make: Callable[[Raw], Any]
    key: Callable[[Raw], str]

    def unit(self, config: Raw) -> Any:
        """The unit of a raw point."""
        return self.make(config)
