"""Runs in this process, to their end or to a step where something stops them."""

from __future__ import annotations

from tgeokd_ray.events import Silent
from tgeokd_ray.training.data import DirectSource
from tgeokd_ray.training.plan import execute
from tgeokd_ray.training.spec import Finished, RunSpec
from tgeokd_ray.training.worker import LocalWorker


class Once:
    """The plan of one run."""

    def __init__(self, *specs: RunSpec) -> None:
        self.specs = specs

    def __call__(self, finished):  # type: ignore[no-untyped-def]
        return () if finished else self.specs


def run(*specs: RunSpec, progress: Silent | None = None) -> list[Finished]:
    return execute(Once(*specs), LocalWorker(), DirectSource(), progress or Silent())


class StopsAt(Silent):
    """Raises at the n-th step that the loop reports, as a signal would at any moment."""

    def __init__(self, step: int, error: BaseException) -> None:
        super().__init__()
        self.left, self.error = step, error

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        super().advanced(stage, amount, note)
        self.left -= amount == 1
        if self.left == 0:
            raise self.error


class Killed(Exception):
    """Stands for SIGKILL: nothing is saved on the way out."""
