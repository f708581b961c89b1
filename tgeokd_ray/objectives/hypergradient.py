"""The hypergradient: from the outer gradient to the ratios and to the fusion network.

N rows, M teachers, R students in the pack; theta student parameters, omega fusion parameters, J the outer loss.
With g = dL/dtheta and theta' = theta - U(g):  dJ/da_i = -<w, dg/da_i>,  w = (dU/dg)^T grad J(theta')  for one step.
The product with dg/da is that of a way (`ways`), between whose calls workers average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tgeokd_ray.objectives.look_ahead import LookAhead, look_ahead
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.vectors import Linear


@dataclass(frozen=True)
class InnerStep:
    """An inner step that was taken: its optimizer, theta, global gradients and moments BEFORE it, its rates [R]."""

    optimizer: Optimizer
    theta: Mapping[str, Tensor]
    grads: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    learning_rate: Tensor

    def pulled_back(self, v: Mapping[str, Tensor], hessian: Linear, num_steps: int) -> LookAhead:
        """w {name: [R, ...]} from the global outer gradient v after the step, and how many terms it has, [R].

        One step: exact through the optimizer and its clipping. More: its moments and clipping factor stand still
        (`look_ahead`), and `hessian` is taken `num_steps - 1` times, on every worker.
        """
        step = (self.theta, self.grads, self.moments, self.learning_rate)
        if num_steps == 1:
            return LookAhead(self.optimizer.pullback(*step, v), torch.ones_like(self.learning_rate))
        return look_ahead(v, self.optimizer.preconditioner(*step), hessian, num_steps)


def fusion_gradient(
    omega: Mapping[str, Tensor], weights: Tensor, d: Tensor, points: Points, context: Context
) -> dict[str, Tensor]:
    """Gradients {name: [R, ...]} of omega: d back-propagated through the rule's `weights` [R, N, 1 + M].

    d is divided by its mean size over the global batch per student: each d_i holds its row's share
    of the weights, so that mean is the sum over rows of mean |d|. The caller averages the result over workers with
    weights `points.row_weights.sum()`. Zeros for an empty batch, and where d is zero everywhere.
    """
    size = context.mean(d.abs().mean(-1).sum(-1), points.row_weights.sum())
    scaled = d / size.clamp_min(torch.finfo(d.dtype).tiny).reshape(-1, 1, 1)
    gradients = torch.autograd.grad((weights * scaled).sum(), list(omega.values()))
    return dict(zip(omega, gradients, strict=True))
