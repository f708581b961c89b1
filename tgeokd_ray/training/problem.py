"""What a student's step optimises: its network, its losses, the rules that weigh them, and how rows count.

N rows, C classes, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.objectives.losses import Sources, cross_entropy, soft_cross_entropy
from tgeokd_ray.objectives.pearlmutter import NetworkAt
from tgeokd_ray.objectives.points import ALONE, Context, Points
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.stacking import apply
from tgeokd_ray.training.state import Tensors


@dataclass(frozen=True)
class Problem:
    """What a step optimises: the students' module, the rules that weigh labels against teachers, and how rows count.

    `temperature` is one for all students, or [R]; `class_means` is [M, C, C], in the type that steps are computed in,
    which may be wider than that of the parameters; `class_weights` [C] multiplies each row's own weight; with
    `autocast` the network itself runs in that type. `fast` is the module for passes that are differentiated once.
    """

    module: nn.Module
    rule: RulePack
    temperature: float | Tensor
    class_means: Tensor
    class_weights: Tensor | None = None
    autocast: torch.dtype | None = None
    fast: nn.Module | None = None

    def take(self, students: Sequence[int]) -> Problem:
        """The problem of these students alone."""
        own = self.temperature[list(students)] if isinstance(self.temperature, Tensor) else self.temperature
        return replace(self, rule=self.rule.take(students), temperature=own)

    def leaves(self, tensors: Tensors, *, moved: bool = True) -> Tensors:
        """The tensors as leaves in the type that everything is computed in."""
        return {name: v.detach().to(self.class_means.dtype).requires_grad_(moved) for name, v in tensors.items()}

    def logits(self, theta: Tensors, rows: Rows, masks: Tensor | None = None, *, once: bool = False) -> Tensor:
        """Student logits [R, N, C] in float32 or better; `masks` [R, N, K] are the dropout of the hidden units. With
        `once` they are differentiated once at most."""
        own = () if masks is None else (masks,)
        with torch.autocast(rows.numeric.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            numeric = rows.numeric.to(next(iter(theta.values())).dtype)
            module = self.fast if once and self.fast is not None else self.module
            logits = apply(module, theta, numeric, rows.categorical, own=own)
        return logits.float() if self.autocast is not None else logits

    def at(self, theta: Tensors, rows: Rows, masks: Tensor | None = None) -> NetworkAt | None:
        """The network at theta on a batch, with its own derivatives; None where it has none, under autocast, and where
        another loss stands in place of KD."""
        build = getattr(self.module, "at", None)
        if build is None or self.autocast is not None or not self.rule.distils:
            return None
        values = {name: value.detach() for name, value in theta.items()}
        numeric = rows.numeric.to(next(iter(values.values())).dtype)
        found: NetworkAt = build(values, numeric, rows.categorical, masks)
        return found

    def row_weights(self, rows: Rows) -> Tensor:
        """Weight per row [N]: the table's own, times its class's (1 without a label); 0 where nobody teaches the row,
        for want of a label and of a teacher that the rule listens to."""
        weights = rows.weights.to(self.class_means.dtype)
        labelled = rows.labels >= 0
        if self.class_weights is not None:
            weights = weights * torch.where(labelled, self.class_weights[rows.labels.clamp_min(0)], 1.0)
        if rows.logits.shape[1] == 0 or self.rule.labels_only:
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
            offset=rows.offset.squeeze(-1) if rows.offset.shape[1] else None,
            ratio_logits=rows.ratios[..., :-1],
            ratio_gates=rows.ratios[..., -1],
        )

    def mixture(self, omega: Tensors, points: Points, rows: Rows, context: Context) -> Tensor:
        """The rules' weights [R, N, 1 + M]; a row that a teacher did not score learns from its label in its place, and
        one without a label from the teachers alone."""
        return self.rule.mixture(omega, points, rows.covered, context)

    def losses(self, logits: Tensor, rows: Rows, context: Context = ALONE) -> Tensor:
        """Losses [R, N, 1 + M]: the labels' first, then each teacher's. A rule's own loss may compare rows, through the
        context those of all workers."""
        sources = self.sources(rows)
        teachers = None if sources.teachers is None else sources.teachers.to(logits.dtype)
        return self.rule.losses(logits, sources._replace(teachers=teachers), context)

    def sources(self, rows: Rows) -> Sources:
        """What the losses of these rows are made of."""
        teachers = rows.logits if self.class_means.shape[0] else None
        weights = None if self.rule.distils else self.row_weights(rows)  # KD compares no rows
        return Sources(rows.labels, teachers, self.temperature, weights, rows.covered)

    def outer_loss(self, theta: Tensors, rows: Rows) -> Tensor:
        """Cross-entropy of the outer rows (paper, eq. 4), with a channel to denoised labels: weighted mean over the
        local rows, summed over the pack."""
        weights, logits = self.row_weights(rows), self.logits(theta, rows, once=True)
        denoised = rows.targets.shape[1] > 0
        losses = soft_cross_entropy(logits, rows.targets) if denoised else cross_entropy(logits, rows.labels)
        losses = losses * weights
        return losses.sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
