"""The passes over one worker's rows that a step is made of: gradients and ways of a batch, whole or in chunks.

N rows, M teachers, R students in the pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.objectives.chunks import Chunks, Gradient
from tgeokd_ray.objectives.pearlmutter import NetworkAt, Pearlmutter
from tgeokd_ray.objectives.ways import WAYS, Way
from tgeokd_ray.training.batch import Batch
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.state import Tensors
from tgeokd_ray.training.worker import Worker


@dataclass(frozen=True)
class Passes:
    """How a step differentiates the losses of `problem`: twice by the way `hypergradient`, and at most `micro_rows`
    rows at once in memory with their graph."""

    problem: Problem
    worker: Worker
    hypergradient: str
    micro_rows: int | None

    def chunks(self, rows: Rows) -> list[slice]:
        """The rows that are in memory with their graph at once; one chunk, also of no rows, where they all are."""
        size = max(len(rows), 1) if self.micro_rows is None else self.micro_rows
        return [slice(first, first + size) for first in range(0, max(len(rows), 1), size)]

    def at(self, theta: Tensors, rows: Rows, masks: Tensor | None) -> NetworkAt | None:
        """The network with its own derivatives, where it has any and they are asked for."""
        return self.problem.at(theta, rows, masks) if self.hypergradient == "split" else None

    def gradient(self, batch: Batch, losses: Tensor | None = None) -> Gradient | Chunks:
        """The local gradient of the inner loss; `losses` have a graph where the batch is one chunk, None: not yet."""

        def gradient(own: Batch, losses: Tensor | None = None) -> Gradient:
            there = own.losses_of(self.problem, own.theta, once=True) if losses is None else losses
            return Gradient(own.inner(self.problem, there).gradients())

        chunks = self.chunks(batch.rows)
        if len(chunks) == 1:
            return gradient(batch, losses)
        return Chunks([partial(gradient, batch.part(chunk)) for chunk in chunks], batch.shares(chunks))

    def way(
        self, batch: Batch, losses: Tensor | None = None, at: NetworkAt | None = None, *, several: bool = False
    ) -> Way:
        """All that is asked of the inner loss in an outer step: of a network that knows its derivatives by itself. Of
        `several` ways that are kept at once none holds a graph where `micro_rows` says how many rows may have one."""

        def way(own: Batch, losses: Tensor | None = None, at: NetworkAt | None = None) -> Way:
            at = at if at is not None else self.at(own.theta, own.rows, own.masks) if losses is None else None
            if at is not None:
                return Pearlmutter(at, self.problem.sources(own.rows), own.ratio, own.row_weights)
            there = own.losses_of(self.problem, own.theta) if losses is None else losses
            return WAYS[self.hypergradient](own.inner(self.problem, there))

        chunks = self.chunks(batch.rows)
        if len(chunks) == 1 and not (several and self.micro_rows is not None):
            return way(batch, losses, at)
        return Chunks([partial(way, batch.part(chunk)) for chunk in chunks], batch.shares(chunks))

    def outer_gradient(self, theta: Tensors, outer: Rows) -> Tensors:
        """The global gradient of the outer loss at theta, in its type."""
        leaves, weight = self.problem.leaves(theta), self.problem.row_weights(outer).sum()
        total: Tensors = {}
        for chunk in self.chunks(outer):
            rows = outer[chunk]
            share = self.problem.row_weights(rows).sum() / weight.clamp_min(torch.finfo(weight.dtype).tiny)
            loss = self.problem.outer_loss(leaves, rows)
            loss = loss if len(rows) == len(outer) else loss * share
            gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
            total = {name: total[name] + value if total else value for name, value in gradients.items()}
        return rounded(self.worker.mean(total, weight), theta)


def rounded(sums: Tensors, like: Tensors) -> Tensors:
    """Sums over all rows of all workers in the type of the parameters: only here are sums in float64 rounded, which
    hides the order that they were taken in."""
    return {name: value.to(like[name].dtype) for name, value in sums.items()}
