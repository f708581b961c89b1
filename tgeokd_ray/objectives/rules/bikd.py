"""A weight for each source of a row from how much label and student, and label and teacher, disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.objectives.fusion import FusionNetwork, scored
from tgeokd_ray.objectives.losses import cross_entropy
from tgeokd_ray.objectives.options import Check, is_number, require
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule, require_teacher
from tgeokd_ray.objectives.stacking import stack


@dataclass(frozen=True)
class BiKD(Rule):
    """`(w_hard, w_soft) = sigmoid(net(CE of the student, CE of the teacher))`, learned one step ahead (Nguyen et al.,
    PAKDD 2026, arXiv 2605.17839).

    The two weights do not sum to anything: between 0 and 2, between 0 and 1 + M with M teachers, each of which has an
    input and a weight. Its network sees losses of the label alone, so that a row without one is like all others
    without. It is the bilevel step of TGeo-KD with another network, and outer steps of `look_ahead` 1.
    """

    hidden: int = 64

    kind: ClassVar[str] = "bikd"
    learned: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        counts = isinstance(self.hidden, int) and is_number(self.hidden) and self.hidden >= 1
        require(self.kind, [Check("hidden", "an integer >= 1", self.hidden, counts)])

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        del num_classes
        require_teacher(self.kind, num_teachers)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return stack([FusionNetwork(1 + num_teachers, num_teachers, self.hidden, one) for one in generators])

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del context
        student = cross_entropy(points.student_logits, points.labels).unsqueeze(-1)
        logits = points.teacher_logits.to(student.dtype).transpose(0, 1)
        teachers = cross_entropy(logits, points.labels).T.expand(*student.shape[:-1], -1)
        return scored(omega, torch.cat([student, teachers], -1)).sigmoid()
