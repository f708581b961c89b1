"""A worker group on what a Tune trial has reserved.

Ray Train always makes a placement group of its own. Beside that of the trial that starts it, trials of several workers
could wait for one another for ever, and one whose process dies would leave its part reserved for good.
"""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.util.placement_group import PlacementGroup, get_current_placement_group


class TrialTrainer(TorchTrainer):  # type: ignore[misc]
    """Ray Train started in a Tune trial that has reserved a bundle for each worker, in their order: they lie there, and
    Tune gives the bundles back. AssertionError where the process that starts it has none."""

    def _create_default_callbacks(self) -> list[Any]:
        bundles = get_current_placement_group()
        assert bundles is not None, "a trial of several workers has a bundle for each"
        theirs = super()._create_default_callbacks()
        # The cleaner gives back what a dead controller has reserved, which is nothing here.
        kept = [one for one in theirs if not isinstance(one, PlacementGroupCleanerCallback)]
        return [*kept, _OnBundles(bundles)]


class _OnBundles(WorkerGroupCallback):  # type: ignore[misc]
    """Called in the process of the controller just before it would reserve something; picklable."""

    def __init__(self, bundles: PlacementGroup) -> None:
        self._bundles = bundles

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        del worker_group_context
        WorkerGroup._create_placement_group = lambda *_: _Borrowed(self._bundles)


class _Borrowed(DefaultPlacementGroupHandle):  # type: ignore[misc]
    """Bundles that stay reserved when the workers on them are gone."""

    def shutdown(self) -> None:
        return
