"""What a step needs from the other workers, and the worker that is alone.

The cluster hides behind this protocol: the loop, the steps and the evaluation never learn how many workers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

Report = Callable[[Mapping[str, float], Path | None], None]


class Worker(Protocol):
    """One of `size` equal workers that execute the same steps on their own rows of every global batch."""

    rank: int
    size: int
    device: torch.device

    def mean(self, tensors: Mapping[str, Tensor], weight: Tensor | float) -> dict[str, Tensor]:
        """Per name `sum_r w_r x_r / sum_r w_r` over the workers, detached; a worker without rows passes weight 0."""

    def global_mean(self, value: Tensor, weight: Tensor | float) -> Tensor:
        """The same mean of one tensor inside the graph: its backward is the same weighted mean of the gradients."""

    def gather(self, value: Tensor) -> list[Tensor]:
        """Every worker's tensor in the order of ranks; shapes may differ."""

    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        """The tensor of worker `source`; all workers pass one of the same shape and type."""

    def barrier(self) -> None:
        """Wait until every worker is here."""

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
        """Tell whoever supervises the workers how far they are."""


class LocalWorker:
    """The only worker: every collective returns its input, so that one process pays nothing for the protocol.

    What is reported is kept, and forwarded to the callable given, if any.
    """

    rank = 0
    size = 1

    def __init__(self, device: torch.device | str = "cpu", report: Report | None = None) -> None:
        self.device = torch.device(device)
        self.reports: list[dict[str, float]] = []
        self._report = report

    def mean(self, tensors: Mapping[str, Tensor], weight: Tensor | float) -> dict[str, Tensor]:
        del weight
        return {name: value.detach() for name, value in tensors.items()}

    def global_mean(self, value: Tensor, weight: Tensor | float) -> Tensor:
        del weight
        return value

    def gather(self, value: Tensor) -> list[Tensor]:
        return [value]

    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        del source
        return value

    def barrier(self) -> None:
        return

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
        self.reports.append(dict(metrics))
        if self._report is not None:
            self._report(metrics, checkpoint)
