"""What an engine is handed of a sweep: what to try, listed or thought of as it goes, and who hears."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tgeokd_ray.config.space import Space
from tgeokd_ray.config.sweep import Sweep
from tgeokd_ray.training.spec import RunSpec

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
    """So many more points of TPE (Optuna): the `first` ones before its own, which follow from `seed` and the `known`
    points with their values, None for one that failed; larger values are better. `make` turns a raw point into a unit,
    `key` is the same for those that are one trial."""

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


class Listener(Protocol):
    """Hears how trials go, by unit. `curves`: the metric after each epoch of trials that are over, larger better."""

    @property
    def curves(self) -> Mapping[str, Sequence[float]]: ...

    def began(self, unit: Any) -> None:
        """A trial starts, or starts again."""

    def told(self, unit: Any, epoch: int, value: float) -> None:
        """A trial says how good it is, larger is better."""

    def ended(self, unit: Any, lost: str | None) -> None:
        """A trial is over: by itself, stopped by the scheduler, or, with a reason, its process was lost for good."""


@dataclass(frozen=True)
class Round:
    """Trials of `proposals` by the settings of `sweep`, each of which does `run(unit, tell, source)` (a member of a
    population has more arguments). It may tell {"epoch", "value"}, a larger value being better and `epochs` more than
    its own last one, and is stopped by a SystemExit out of that call. What `specs` read, all trials read. `seconds` may
    pass, None: as many as it takes."""

    run: Callable[..., None]
    proposals: Listed | Asked
    sweep: Sweep
    epochs: int
    specs: Sequence[RunSpec]
    listener: Listener
    seconds: float | None = None
