"""What a ratio rule may look at: the points of one batch, and the means over every worker's part of it.

N rows, C classes, M teachers, R students in the pack, Q stored ratios, K any number of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from tgeokd_ray.objectives.short_axis import total
from tgeokd_ray.objectives.stacking import of_students

# The points that every student has for itself.
OF_STUDENTS = ("student_logits", "gradient_products", "outer_slopes")


@dataclass(frozen=True)
class Points:
    """One worker's part of a batch, detached from the student's parameters.

    `student_logits` [R, N, C], `teacher_logits` [N, M, C], `labels` [N] int64 (-1: none), `class_means` [M, C, C] (row
    c: the mean teacher distribution over the train rows of class c) and `row_weights` [N] >= 0, of any sum. Statistics
    of a batch are over the rows that have a label: a row without one has no ratio to be learned. What only some rules
    ask for: `offset` [N], the logit of how credible the teachers are on a row; `ratio_logits` [N, Q, M], the logit of
    teacher against label in ratios learned before, and `ratio_gates` [N, Q], the sum of their gates, of mean 1. What a
    step brings where a rule `needs` it: `gradient_products` [R, 2, 2], the inner products of the global batch's
    gradients with all weight on the labels, and with all on the teachers in equal parts; `outer_slopes` [R, N, 1 + M],
    how fast the outer loss falls when a source of a row gets weight in a virtual step.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    class_means: Tensor
    row_weights: Tensor
    offset: Tensor | None = None
    ratio_logits: Tensor | None = None
    ratio_gates: Tensor | None = None
    gradient_products: Tensor | None = None
    outer_slopes: Tensor | None = None

    def take(self, students: Sequence[int]) -> Points:
        """What the rules of these students may look at."""
        own: dict[str, Any] = {name: getattr(self, name) for name in OF_STUDENTS}
        return replace(self, **{name: of_students(value, students) for name, value in own.items() if value is not None})

    @property
    def num_teachers(self) -> int:
        return self.teacher_logits.shape[1]

    @property
    def labelled(self) -> Tensor:
        """Whether each row has a label, [N] bool."""
        return self.labels >= 0

    @property
    def classes(self) -> Tensor:
        """The labels [N] as places to gather at: 0 where there is none."""
        return self.labels.clamp_min(0)


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


ALONE = Context(progress=0.0)


def on_covered(weights: Tensor, covered: Tensor, *, additive: bool = False) -> Tensor:
    """Weights [R, N, 1 + M] of which the part of a teacher that has no logits for a row goes to the row's label.

    `covered` [N, M] is 0 there and 1 elsewhere. The sum of a row is kept, and the gradient of a rule stays exact. Where
    teachers are `additive` the label has its weight already, and their part goes to nobody.
    """
    known = covered.to(weights.dtype)
    labels, teachers = weights[..., :1], weights[..., 1:]
    if additive:
        return torch.cat([labels, teachers * known], -1)
    lost = total(teachers * (1 - known)).unsqueeze(-1)
    return torch.cat([labels + lost, teachers * known], -1)


def teacher_share(weights: Tensor) -> Tensor:
    """The teachers' share of each row's weights, [R, N, 1 + M] to [R, N] in [0, 1]: the ratio, whatever rows sum to."""
    return total(weights[..., 1:]) / total(weights).clamp_min(torch.finfo(weights.dtype).tiny)


def on_labelled(weights: Tensor, labelled: Tensor, covered: Tensor) -> Tensor:
    """Weights [R, N, 1 + M] that are 0 on a label that is not there and sum to 1 on the teachers of such a row.

    `labelled` is [N] bool, `covered` [N, M], or [N, 0] where every teacher scored every row. Teachers keep the
    proportions that the rule gives them, in equal parts where it gives them nothing. Such rows pass no gradient to the
    rule. All zeros for a row with neither label nor teacher.
    """
    teachers = weights[..., 1:].detach()
    known = covered.to(weights.dtype) if covered.shape[1] else torch.ones_like(teachers)
    tiny = torch.finfo(weights.dtype).tiny
    given = total(teachers * known).unsqueeze(-1)
    parts = torch.where(given > tiny, teachers, torch.ones_like(teachers)) * known
    parts = parts / total(parts).unsqueeze(-1).clamp_min(tiny)
    return torch.where(labelled.unsqueeze(-1), weights, torch.cat([torch.zeros_like(given), parts], -1))


def on_labels_alone(weights: Tensor, points: Points, context: Context) -> Tensor:
    """Weights [R, N, 1 + M] of a student that listens to no teacher: 0 for rows without a label, the others divided by
    their share of the global batch. So its loss is the mean over them, though `row_weights` count all rows for students
    beside it that do listen.
    """
    share = context.mean(_labelled_share(points, weights.dtype), points.row_weights.sum())
    return weights * (points.labelled / share.clamp_min(torch.finfo(weights.dtype).tiny)).unsqueeze(-1)


def _labelled_share(points: Points, dtype: torch.dtype) -> Tensor:
    """The share of the local row weights that rows with a label have; exactly 1 where all have one."""
    weights = points.row_weights.to(dtype)
    return (weights * points.labelled).sum() / weights.sum().clamp_min(torch.finfo(dtype).tiny)


def row_shares(row_weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights [N] divided by their sum; zeros, never NaN, where no row has weight."""
    weights = row_weights.to(dtype)
    return weights / weights.sum().clamp_min(torch.finfo(dtype).tiny)


def batch_mean(values: Tensor, points: Points, context: Context) -> Tensor:
    """The row-weighted mean of [R, N, K] values over the labelled rows of the global batch, [R, K]; zeros without any.

    A ratio of two means with the weights of all rows, by which the caller averages gradients, too: with those of the
    labelled rows alone the gradient would not be that of one process.
    """
    tiny = torch.finfo(values.dtype).tiny
    local = (values * (row_shares(points.row_weights, values.dtype) * points.labelled).unsqueeze(-1)).sum(-2)
    share = _labelled_share(points, values.dtype)
    both = context.mean(torch.cat([local, share.expand(*local.shape[:-1], 1)], -1), points.row_weights.sum())
    return both[..., :-1] / both[..., -1:].clamp_min(tiny)
