"""What a ratio rule may look at: the points of one batch, and the means over every worker's part of it.

N rows, C classes, M teachers, R students in the pack, Q stored ratios, K any number of columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """One worker's part of a batch, detached from the student's parameters.

    `student_logits` [R, N, C], `teacher_logits` [N, M, C], `labels` [N] int64, `class_means` [M, C, C] (row c: the mean
    teacher distribution over the train rows of class c) and `row_weights` [N] >= 0, of any sum. What only some rules
    ask for: `offset` [N], the logit of how credible the teachers are on a row; `ratio_logits` [N, Q, M], the logit of
    teacher against label in ratios learned before, and `ratio_gates` [N, Q], the sum of their gates, of mean 1.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    class_means: Tensor
    row_weights: Tensor
    offset: Tensor | None = None
    ratio_logits: Tensor | None = None
    ratio_gates: Tensor | None = None

    @property
    def num_teachers(self) -> int:
        return self.teacher_logits.shape[1]


class GlobalMean(Protocol):
    """The mean over workers of each worker's local mean, weighted by its `weight` (the sum of its row weights).

    Inside the graph its backward is the same weighted mean of the gradients: the caller's weighted mean of parameter
    gradients then equals the gradient of one process.
    """

    def __call__(self, value: Tensor, weight: Tensor | float) -> Tensor: ...


def local_mean(value: Tensor, weight: Tensor | float) -> Tensor:
    """The global mean of a worker that is alone: its own value."""
    del weight
    return value


@dataclass(frozen=True)
class Context:
    """Where the run stands: `progress` in 0..1, randomness for rules that draw, and the mean over workers."""

    progress: float
    generator: torch.Generator | None = None
    mean: GlobalMean = local_mean


def on_covered(weights: Tensor, covered: Tensor, *, additive: bool = False) -> Tensor:
    """Weights [R, N, 1 + M] of which the part of a teacher that has no logits for a row goes to the row's label.

    `covered` [N, M] is 0 there and 1 elsewhere. The sum of a row is kept, and the gradient of a rule stays exact. Where
    teachers are `additive` the label has its weight already, and their part goes to nobody.
    """
    known = covered.to(weights.dtype)
    labels, teachers = weights[..., :1], weights[..., 1:]
    if additive:
        return torch.cat([labels, teachers * known], -1)
    lost = (teachers * (1 - known)).sum(-1, keepdim=True)
    return torch.cat([labels + lost, teachers * known], -1)


def teacher_share(weights: Tensor) -> Tensor:
    """The teachers' share of each row's weights, [R, N, 1 + M] to [R, N] in [0, 1]: the ratio, whatever rows sum to."""
    return weights[..., 1:].sum(-1) / weights.sum(-1).clamp_min(torch.finfo(weights.dtype).tiny)


def row_shares(row_weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights [N] divided by their sum; zeros, never NaN, where no row has weight."""
    weights = row_weights.to(dtype)
    return weights / weights.sum().clamp_min(torch.finfo(dtype).tiny)


def batch_mean(values: Tensor, row_weights: Tensor, context: Context) -> Tensor:
    """The row-weighted mean of [R, N, K] values over the global batch, [R, K]; zeros where no worker has a row."""
    local = (values * row_shares(row_weights, values.dtype).unsqueeze(-1)).sum(-2)
    return context.mean(local, row_weights.sum())
