"""Who does the work: this process, or a Ray cluster. The chain asks for one only when something must be done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from tgeokd_ray.config.proposals import Asked, Listed
from tgeokd_ray.config.sweep import Resolved, Sweep
from tgeokd_ray.errors import ResourceError
from tgeokd_ray.events import Progress
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished, RunSpec

Item = TypeVar("Item")
Result = TypeVar("Result")
# What one trial does with (unit, tell, source); a member of a population has more arguments (`sweep_population`).
Run = Callable[..., None]


class Heard(Protocol):
    """Who hears how trials go: that one began, its metric (larger is better) after an epoch, that it is over, `lost`
    where it could not say so itself. `curves` has that metric after each epoch of trials that are over."""

    @property
    def curves(self) -> Mapping[str, Sequence[float]]: ...

    def began(self, unit: Any) -> None: ...

    def told(self, unit: Any, epoch: int, value: float) -> None: ...

    def ended(self, unit: Any, lost: str | None) -> None: ...


class Engine(Protocol):
    """Maps stage functions over items and executes plans. `task_device` is where a mapped task may compute."""

    task_device: str

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, stage: str) -> Iterator[Result]:
        """The results in the order of the items; functions and items are small and picklable."""

    def train(self, plan: Plan, progress: Progress, means: Iterable[str] = ()) -> list[Finished]:
        """Execute the plan; `means` are logits artifacts whose class means are shared with every worker."""

    def check_trials(self, sweep: Sweep) -> None:
        """ConfigError where not as many trials fit at once as the sweep asks for."""

    def trials(
        self,
        run: Run,
        what: Listed | Asked,
        resolved: Resolved,
        *,
        specs: Sequence[RunSpec],
        board: Heard,
        seconds: float | None,
        progress: Progress,
    ) -> bool:
        """Run trials, which read what `specs` read; whether `seconds`, None for ever, were enough for all of them."""

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

    def trials(
        self,
        run: Run,
        what: Listed | Asked,
        resolved: Resolved,
        *,
        specs: Sequence[RunSpec],
        board: Heard,
        seconds: float | None,
        progress: Progress,
    ) -> bool:
        from tgeokd_ray.training.data import DirectSource

        del specs, progress
        until = math.inf if seconds is None else time.monotonic() + seconds
        for index in range(what.number):
            if time.monotonic() >= until:
                return False
            unit = what.unit({"unit": index})
            board.began(unit)
            try:
                run(unit, partial(_pass_on, board, unit, until, resolved.most_epochs), DirectSource())
            except _TimeIsUp:
                return False
            board.ended(unit, None)
        return True

    def close(self) -> None:
        return


class _TimeIsUp(SystemExit):
    """Ends a trial that is not over, which leaves its checkpoint."""


def _pass_on(board: Heard, unit: Any, until: float, epochs: int, told: Mapping[str, float]) -> None:
    board.told(unit, int(told["epoch"]), told["value"])
    if told["epoch"] <= epochs and time.monotonic() >= until:
        raise _TimeIsUp


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
