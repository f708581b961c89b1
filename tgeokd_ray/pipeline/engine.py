"""Who does the work: this process, or a Ray cluster. The chain asks for one only when something must be done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

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

    def close(self) -> None:
        return


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
