"""What rules ask a step for, beside the logits and labels of its batch: gradients of it, and a virtual step.

N rows, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import Constant
from tgeokd_ray.objectives.vectors import flattened, spread
from tgeokd_ray.training.batch import Batch
from tgeokd_ray.training.passes import Passes
from tgeokd_ray.training.state import Tensors


@dataclass(frozen=True)
class Moment:
    """A step before it weighs its sources: the student at `theta`, whose `leaves` are in the type of the step, its
    batches and dropout `masks`, the learning `rate` [R], and what is known of the rows so far."""

    passes: Passes
    theta: Tensors
    leaves: Tensors
    inner: Rows
    outer: Rows | None
    masks: Tensor | None
    rate: Tensor
    points: Points
    context: Context

    def batch(self, ratio: Tensor, row_weights: Tensor) -> Batch:
        """The inner batch at a ratio [R, N, 1 + M]."""
        return Batch(self.leaves, self.inner, self.masks, ratio, row_weights, self.context)


def met(moment: Moment) -> Points:
    """The points with all that the rules of the pack need."""
    found: dict[str, Any] = {name: NEEDS[name](moment) for name in moment.passes.problem.rule.needs}
    return replace(moment.points, **found)


def gradient_products(moment: Moment) -> Tensor:
    """Inner products [R, 2, 2] of the global gradients with all weight on the labels and with all on the teachers: the
    ends of the segment that constants of this batch lie on."""
    passes, points = moment.passes, moment.points
    num_students, ends = points.student_logits.shape[0], []
    for level in (0.0, 1.0):
        constant = RulePack.of([Constant(level)] * num_students)
        ratio = constant.mixture({}, points, moment.inner.covered, moment.context)
        local = passes.gradient(moment.batch(ratio, points.row_weights)).gradients
        ends.append(flattened(passes.worker.mean(local, points.row_weights.sum())))
    both = torch.stack(ends, 1)
    return both @ both.mT


def outer_slopes(moment: Moment) -> Tensor | None:
    """`-dJ/d eps` [R, N, 1 + M] at eps = 0 after the virtual step `theta - rate * sum eps_im grad loss_im`: the product
    `rate <grad J, grad loss_im>` of the local rows with the global grad J at theta. None without outer rows."""
    passes, logits = moment.passes, moment.points.student_logits
    if moment.outer is None:
        return None
    v = passes.outer_gradient(moment.theta, moment.outer)
    w = {name: spread(moment.rate, value) * value for name, value in v.items()}
    num_students, rows, _ = logits.shape
    ones = logits.new_ones(num_students, rows, 1 + moment.points.num_teachers)
    way = passes.way(moment.batch(ones, logits.new_ones(rows)))
    return -way.ratio_gradient(w) * rows  # a way takes means, and a virtual step counts every row by itself


NEEDS: Mapping[str, Callable[[Moment], Tensor | None]] = {
    "gradient_products": gradient_products,
    "outer_slopes": outer_slopes,
}
