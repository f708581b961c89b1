"""The teacher's relations in place of its probabilities: between classes on a row, and between rows in a class.

N rows, C classes, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.objectives.losses import Sources
from tgeokd_ray.objectives.options import require
from tgeokd_ray.objectives.points import Context, Points, row_shares
from tgeokd_ray.objectives.rules.rule import Rule, everywhere, level_shares, other_loss_checks
from tgeokd_ray.objectives.short_axis import softmax

SMALLEST = 1e-8  # product of two lengths: below, nothing is said of a correlation


@dataclass(frozen=True)
class DIST(Rule):
    """Relations in a constant mixture: tau^2 (beta inter + gamma intra) for KD (Huang et al., NeurIPS 2022).

    Both are 1 - Pearson's correlation of softened probabilities of student and teacher: `inter` over the classes of a
    row, `intra` over the rows of the global batch that the teacher scored, by their weights, mean over the classes;
    every row carries it. Neither minds an affine change with a positive factor. Of two classes `inter` is 0 or 2 and
    teaches nothing. `value` is the teachers' weight, in equal parts: 1/2 is the sum with GT of the paper, halved.
    """

    value: float = 0.5
    beta: float = 2.0
    gamma: float = 2.0

    kind: ClassVar[str] = "dist"
    loss: ClassVar[str] = "dist"
    whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.kind, other_loss_checks(self.value, beta=self.beta, gamma=self.gamma))

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        return everywhere(level_shares(self.value, points), points)

    def distillation(self, student_logits: Tensor, sources: Sources, context: Context) -> Tensor:
        assert sources.teachers is not None
        divisor = sources.divisor
        over = divisor.unsqueeze(-1) if isinstance(divisor, Tensor) else divisor
        student = softmax(student_logits / divisor).unsqueeze(-2)
        teachers = softmax(sources.teachers.to(student.dtype) / over)
        inter = 1 - _correlation(*(one - one.mean(-1, keepdim=True) for one in (student, teachers)))
        intra = 1 - _between_rows(student, teachers, sources, context).mean(-1)
        return divisor**2 * (self.beta * inter + self.gamma * intra.unsqueeze(1))


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of centred values along the last axis."""
    return _ratio((one * other).sum(-1), one.square().sum(-1) * other.square().sum(-1))


def _ratio(product: Tensor, squares: Tensor) -> Tensor:
    """product / sqrt(squares); 0, with zero gradient, where the squares are next to nothing."""
    known = squares > SMALLEST**2
    return torch.where(known, product / torch.where(known, squares, 1).sqrt(), 0)


def _between_rows(student: Tensor, teachers: Tensor, sources: Sources, context: Context) -> Tensor:
    """The correlation [R, M, C] of each class over the rows of all workers, of [R, N, 1, C] and [.., N, M, C]."""
    num_teachers = teachers.shape[-2]
    weights = student.new_ones(student.shape[1]) if sources.row_weights is None else sources.row_weights
    covered = sources.covered
    known = weights.new_ones(len(weights), num_teachers) if covered is None or not covered.shape[1] else covered
    shares = (row_shares(weights, student.dtype).unsqueeze(-1) * known).unsqueeze(-1)  # [N, M, 1]

    def mean(*values: Tensor) -> list[Tensor]:
        """Of values [.., N, M, C] over rows, [R, M, C] each, in one exchange."""
        local = [(value.expand(shape) * shares).sum(-3) for value in values]
        return list(context.mean(torch.stack(local), weights.sum()).unbind(0))

    shape = (student.shape[0], *teachers.shape[-3:])
    share, *centres = mean(torch.ones_like(student), student, teachers)
    share = share.clamp_min(torch.finfo(share.dtype).tiny)
    own, theirs = (values - (c / share).unsqueeze(-3) for values, c in zip((student, teachers), centres, strict=True))
    both, ours, others = mean(own * theirs, own.square(), theirs.square())
    return _ratio(both, ours * others)
