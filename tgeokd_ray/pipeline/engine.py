"""Who does the work: this process, or a Ray cluster. The chain asks for one only when something must be done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from tgeokd_ray.config.proposals import Round
from tgeokd_ray.config.sweep import Sweep
from tgeokd_ray.errors import ResourceError
from tgeokd_ray.events import Progress
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Maps stage functions over items and executes plans. `task_device` is where a mapped task may compute."""

    task_device: str

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, stage: str) -> Iterator[Result]:
        """The results in the order of the items; functions and items are small and picklable."""

    def train(self, plan: Plan, progress: Progress, means: Iterable[str] = ()) -> list[Finished]:
        """Execute the plan; `means` are logits artifacts whose class means are shared with every worker."""

    def check_trials(self, sweep: Sweep) -> None:
        """ConfigError where not as many trials fit at once as the sweep asks for."""

    def trials(self, what: Round, progress: Progress) -> bool:
        """Run the trials of a round; whether there was time for all of them."""

    def close(self) -> None:
        """Give back what was started."""


class LocalEngine:
    """This process alone, without Ray: the same functions, the same numbers."""

    def __init__(self, device: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        if device == "cuda" and not torch.cuda.is_available():
            raise ResourceError("--device cuda: no CUDA device here", fix="use --device cpu or auto")
        self.task_device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, stage: str) -> Iterator[Result]:
        del stage
        return map(function, items)

    def train(self, plan: Plan, progress: Progress, means: Iterable[str] = ()) -> list[Finished]:
        from tgeokd_ray.training.data import DirectSource
        from tgeokd_ray.training.plan import execute
        from tgeokd_ray.training.worker import LocalWorker

        del means
        return execute(plan, LocalWorker(self.task_device), DirectSource(), progress)

    def check_trials(self, sweep: Sweep) -> None:
        del sweep

    def trials(self, what: Round, progress: Progress) -> bool:
        from tgeokd_ray.training.data import DirectSource

        del progress
        until = math.inf if what.seconds is None else time.monotonic() + what.seconds
        for index in range(what.proposals.number):
            if time.monotonic() >= until:
                return False
            unit = what.proposals.unit({"unit": index})
            what.listener.began(unit)
            try:
                what.run(unit, partial(_pass_on, what, unit, until), DirectSource())
            except _TimeIsUp:
                return False
            what.listener.ended(unit, None)
        return True

    def close(self) -> None:
        return


class _TimeIsUp(SystemExit):
    """Ends a trial that is not over, which leaves its checkpoint."""


def _pass_on(what: Round, unit: Any, until: float, told: Mapping[str, float]) -> None:
    if told["epoch"] < what.epochs and time.monotonic() >= until:
        raise _TimeIsUp
    what.listener.told(unit, int(told["epoch"]), told["value"])


class Lazy:
    """An engine that is opened at its first use and closed once; a chain that re-uses everything never opens it."""

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self._opener = opener
        self._engine: Engine | None = None

    def __call__(self) -> Engine:
        if self._engine is None:
            self._engine = self._opener()
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
