"""One training step: supervised, distilled or bilevel, decided by what the rule and the batch bring.

N rows, C classes, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.objectives.hypergradient import fusion_gradient, inner_gradient, ratio_gradient
from tgeokd_ray.objectives.losses import cross_entropy, source_losses
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.points import Context, Points, on_covered, on_labelled
from tgeokd_ray.objectives.rules import Rule
from tgeokd_ray.objectives.stacking import apply
from tgeokd_ray.training.state import State, Tensors
from tgeokd_ray.training.worker import Worker

Measures = dict[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """What a step optimises: the student's module, the rule that weighs labels against teachers, and how rows count.

    `class_means` is [M, C, C], in the type that everything is computed in; `class_weights` [C] multiplies each row's
    own weight; with `autocast` the network itself runs in that type.
    """

    module: nn.Module
    rule: Rule
    temperature: float
    class_means: Tensor
    class_weights: Tensor | None = None
    autocast: torch.dtype | None = None

    def logits(self, theta: Tensors, rows: Rows, masks: Tensor | None = None) -> Tensor:
        """Student logits [R, N, C] in float32 or better; `masks` [R, N, K] are the dropout of the hidden units."""
        own = () if masks is None else (masks,)
        with torch.autocast(rows.numeric.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            numeric = rows.numeric.to(self.class_means.dtype)
            logits = apply(self.module, theta, numeric, rows.categorical, own=own)
        return logits.float() if self.autocast is not None else logits

    def row_weights(self, rows: Rows) -> Tensor:
        """Weight per row [N]: the table's own, times its class's (1 without a label); 0 where nobody teaches the row,
        for want of a label and of a teacher that the rule listens to."""
        weights = rows.weights.to(self.class_means.dtype)
        labelled = rows.labels >= 0
        if self.class_weights is not None:
            weights = weights * torch.where(labelled, self.class_weights[rows.labels.clamp_min(0)], 1.0)
        if rows.logits.shape[1] == 0 or self.rule.kind == "labels":
            return weights * labelled
        return weights * (labelled | rows.covered.any(-1)) if rows.covered.shape[1] else weights

    def points(self, logits: Tensor, rows: Rows) -> Points:
        """What the rule may look at, detached from theta."""
        return Points(
            student_logits=logits.detach(),
            teacher_logits=rows.logits,
            labels=rows.labels,
            class_means=self.class_means,
            row_weights=self.row_weights(rows),
        )

    def mixture(self, omega: Tensors, points: Points, rows: Rows, context: Context) -> Tensor:
        """The rule's weights [R, N, 1 + M]; a row that a teacher did not score learns from its label in its place,
        and one without a label from the teachers alone."""
        weights = self.rule.weights(omega, points, context)
        weights = on_covered(weights, rows.covered) if rows.covered.shape[1] else weights
        return on_labelled(weights, points.labelled, rows.covered) if points.num_teachers else weights

    def losses(self, logits: Tensor, rows: Rows) -> Tensor:
        """Losses [R, N, 1 + M]: the labels' first, then each teacher's."""
        teachers = rows.logits if self.class_means.shape[0] else None
        return source_losses(logits, teachers, rows.labels, temperature=self.temperature)

    def outer_loss(self, theta: Tensors, rows: Rows) -> Tensor:
        """Cross-entropy of the outer rows (paper, eq. 4): weighted mean over the local rows, summed over the pack."""
        weights = self.row_weights(rows)
        losses = cross_entropy(self.logits(theta, rows), rows.labels) * weights
        return losses.sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)


@dataclass(frozen=True)
class Step:
    """`(state, inner, outer, progress, masks) -> (state, measures [R])` on one worker's part of a global batch.

    `masks` are the dropout of the inner pass; the outer loss is that of the student as it will be used, without any.
    Without parameters in the rule, or without outer rows, the outer half vanishes. Gradients, the outer gradient and
    the fusion gradient are means over all rows of all workers.
    """

    problem: Problem
    optimizer: Optimizer
    fusion_optimizer: Optimizer
    worker: Worker
    learning_rate: Callable[[int], Tensor]
    fusion_learning_rate: Tensor

    def __call__(
        self, state: State, inner: Rows, outer: Rows | None, progress: float, masks: Tensor | None = None
    ) -> tuple[State, Measures]:
        problem, worker = self.problem, self.worker
        bilevel = outer is not None and problem.rule.learned
        theta = {name: value.detach().requires_grad_() for name, value in state.theta.items()}
        omega = {name: value.detach().requires_grad_(bilevel) for name, value in state.omega.items()}
        logits = problem.logits(theta, inner, masks)
        points = problem.points(logits, inner)
        context = Context(progress=progress, generator=None, mean=worker.global_mean)
        with torch.set_grad_enabled(bilevel):
            ratio = problem.mixture(omega, points, inner, context)
        losses = problem.losses(logits, inner)
        gradients, coefficients = inner_gradient(
            theta, losses, ratio.detach(), points.row_weights, create_graph=bilevel
        )
        weight = points.row_weights.sum()
        rate = self.learning_rate(state.step)
        measures = self._measures(losses, ratio, points)
        averaged = worker.mean(gradients | measures, weight)
        measures = {name: averaged.pop(name) for name in measures}
        measures["ratio"] = measures["ratio"] / measures.pop("labelled").clamp_min(torch.finfo(losses.dtype).tiny)
        new_theta, new_moments = self.optimizer.update(state.theta, averaged, state.moments, rate)
        new = replace(state, theta=new_theta, moments=new_moments, step=state.step + 1)
        if bilevel:
            assert outer is not None
            pulled = self.optimizer.pullback(
                state.theta, averaged, state.moments, rate, self._outer_gradient(new_theta, outer)
            )
            slope = ratio_gradient(gradients, coefficients, pulled) * points.labelled.unsqueeze(-1)
            fusion = worker.mean(fusion_gradient(omega, ratio, slope, points, context), weight)
            new_omega, new_omega_moments = self.fusion_optimizer.update(
                state.omega, fusion, state.omega_moments, self.fusion_learning_rate
            )
            new = replace(new, omega=new_omega, omega_moments=new_omega_moments)
        return new, measures

    def _outer_gradient(self, theta: Tensors, outer: Rows) -> Tensors:
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        loss = self.problem.outer_loss(leaves, outer)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        return self.worker.mean(gradients, self.problem.row_weights(outer).sum())

    @torch.no_grad()
    def _measures(self, losses: Tensor, ratio: Tensor, points: Points) -> Measures:
        """Weighted means over the local rows [R]; they travel with the gradients, so that all workers see one value.

        The ratio is counted over the `labelled` share of them alone: elsewhere it is no choice.
        """
        weights, known = points.row_weights, points.row_weights * points.labelled
        total = weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
        return {
            "loss": ((losses * ratio).sum(-1) * weights).sum(-1) / total,
            "ratio": (ratio[..., 1:].sum(-1) * known).sum(-1) / total,
            "labelled": known.sum() / total,
        }
