"""One worker's part of an inner batch at fixed ratios, whole or in chunks. N rows, M teachers, R students."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.objectives.points import ALONE, Context
from tgeokd_ray.objectives.ways import Inner
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.state import Tensors


@dataclass(frozen=True)
class Batch:
    """Leaves `theta`, `rows`, dropout `masks` [R, N, K] or None, `ratio` [R, N, 1 + M] and `row_weights` [N]; through
    the `context` losses see the rows of other workers."""

    theta: Tensors
    rows: Rows
    masks: Tensor | None
    ratio: Tensor
    row_weights: Tensor
    context: Context = ALONE

    def part(self, chunk: slice) -> Batch:
        """These rows of it."""
        rows, masks = part(self.rows, self.masks, chunk)
        return Batch(self.theta, rows, masks, self.ratio[:, chunk], self.row_weights[chunk], self.context)

    def take(self, places: Tensor) -> Batch:
        """The rows at the positions `places` [K] int64; where one is -1, a row of weight 0."""
        index, there = places.clamp_min(0), places >= 0
        masks = None if self.masks is None else self.masks.index_select(1, index)
        weights = self.row_weights.index_select(0, index) * there
        ratio = self.ratio.index_select(1, index)
        return Batch(self.theta, self.rows.take(index), masks, ratio, weights, self.context)

    def shares(self, chunks: Sequence[slice]) -> Tensor:
        """The share of each chunk in the weight of all rows; zeros where none has any."""
        weights = torch.stack([self.row_weights[chunk].sum() for chunk in chunks])
        return weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)

    def losses_of(self, problem: Problem, theta: Tensors, *, once: bool = False) -> Tensor:
        """The losses [R, N, 1 + M] at any theta."""
        return problem.losses(problem.logits(theta, self.rows, self.masks, once=once), self.rows, self.context)

    def inner(self, problem: Problem, losses: Tensor) -> Inner:
        """What a way takes, from the losses at theta with their graph."""
        return Inner(
            theta=self.theta,
            losses=losses,
            losses_of=lambda theta: self.losses_of(problem, theta),
            weights=self.ratio,
            row_weights=self.row_weights,
        )


def part(rows: Rows, masks: Tensor | None, chunk: slice) -> tuple[Rows, Tensor | None]:
    """A chunk of rows, with their masks."""
    return rows[chunk], None if masks is None else masks[:, chunk]
