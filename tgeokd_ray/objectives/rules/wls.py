"""More teacher where the student's loss on the label is large beside the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.objectives.losses import cross_entropy
from tgeokd_ray.objectives.options import Check, is_number, require
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule

LOSS_EPS = 1e-7


@dataclass(frozen=True)
class WLS(Rule):
    """Weighted soft labels: `scale * (1 - exp(-CE(S) / (CE(T) + 1e-7)))` on the teacher (Zhou et al., ICLR 2021).

    Both losses are the cross-entropy of the row's label. The label keeps weight 1 beside the teachers, so that rows sum
    to between 1 and 1 + `scale`; M teachers have their part / M. No graph leads to the student.
    """

    scale: float = 2.25

    kind: ClassVar[str] = "wls"
    additive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        fits = is_number(self.scale) and 0 <= self.scale < inf
        require(self.kind, [Check("scale", "finite and >= 0", self.scale, fits)])

    @torch.no_grad()
    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        student = cross_entropy(points.student_logits, points.labels).unsqueeze(-1)
        teachers = points.teacher_logits.to(student.dtype).transpose(0, 1)
        ratios = student / (cross_entropy(teachers, points.labels).T + LOSS_EPS)
        soft = -torch.expm1(-ratios) * (self.scale / points.num_teachers)
        return torch.cat([torch.ones_like(student), soft], -1)
