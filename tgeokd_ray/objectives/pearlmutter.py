"""Exact products with the Hessian of the inner loss from the network's own derivatives, without a graph.

N rows, C classes, M teachers, R students in the pack; z logits, delta = dL/dz of the inner loss L, s the rows' shares.
The R-operator of Pearlmutter (1994): along a direction v of theta the logits move by z', delta by `delta' = (d2L/dz2)
z'`, and the gradient by what the backward pass makes of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from tgeokd_ray.objectives.losses import Sources
from tgeokd_ray.objectives.points import row_shares
from tgeokd_ray.objectives.short_axis import softmax, total
from tgeokd_ray.objectives.vectors import Tensors


class NetworkAt(Protocol):
    """A network at theta [R, ...] on a batch, with what its forward pass saw."""

    logits: Tensor

    def gradients(self, delta: Tensor) -> Tensors:
        """The gradient by theta of a loss whose gradient by the logits is `delta` [R, N, C], which is kept."""

    def tangent(self, direction: Mapping[str, Tensor]) -> Tensor:
        """How the logits move along a direction of theta, z' [R, N, C]; the direction is kept."""

    def moved_gradients(self, moved: Tensor) -> Tensors:
        """How `gradients` move along the direction that was kept, when delta moves by `moved` [R, N, C]."""


class Pearlmutter:
    """A way (`ways.Way`) for networks that know their derivatives: `at` theta on the batch, at fixed `ratio`
    [R, N, 1 + M], `row_weights` [N] of any sum. What does not depend on the direction is computed once."""

    def __init__(self, at: NetworkAt, sources: Sources, ratio: Tensor, row_weights: Tensor) -> None:
        self._at, self._shares = at, row_shares(row_weights, at.logits.dtype).unsqueeze(-1)
        self._slopes, softened = _slopes(at.logits, sources)
        counted = ratio * self._shares
        self._curved = _curved(softened, counted, sources.labels)
        self.gradients = at.gradients((counted.unsqueeze(-1) * self._slopes).sum(-2))

    def hessian(self, direction: Mapping[str, Tensor]) -> Tensors:
        moved = self._at.tangent(direction)
        diagonal = sum(weighted for _, weighted in self._curved[1:]) + self._curved[0][1]
        turned = diagonal * moved
        for probabilities, weighted in self._curved:
            turned -= weighted * total(probabilities * moved).unsqueeze(-1)
        return self._at.moved_gradients(turned)

    def ratio_gradient(self, w: Mapping[str, Tensor]) -> Tensor:
        along = total(self._slopes * self._at.tangent(w).unsqueeze(-2))
        return -along * self._shares


def _slopes(logits: Tensor, sources: Sources) -> tuple[Tensor, list[Tensor]]:
    """The losses' gradients by the logits [R, N, 1 + M, C], and the student's probabilities [R, N, C] at temperature 1
    and at the teachers'."""
    plain = softmax(logits)
    target = sources.labels.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)
    labels = (plain - target.to(logits.dtype)) * (sources.labels >= 0).unsqueeze(-1)
    if sources.teachers is None:
        return labels.unsqueeze(-2), [plain]
    divisor = sources.divisor
    soft = softmax(logits / divisor)
    over = divisor.unsqueeze(-1) if isinstance(divisor, Tensor) else divisor
    taught = softmax(sources.teachers.to(logits.dtype) / over)
    return torch.cat([labels.unsqueeze(-2), over * (soft.unsqueeze(-2) - taught)], -2), [plain, soft]


def _curved(softened: list[Tensor], counted: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Probabilities p and k p of `d2L/dz2 = sum k (diag(p) - p p^T)`: k is the weight of the label, and that of all
    teachers, whose targets do not curve; the temperature's square cancels."""
    known = [counted[..., :1] * (labels >= 0).unsqueeze(-1), total(counted[..., 1:]).unsqueeze(-1)]
    return [(p, k * p) for p, k in zip(softened, known, strict=False)]
