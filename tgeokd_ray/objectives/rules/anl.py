"""From the teacher to the label, as training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule, everywhere


@dataclass(frozen=True)
class ANL(Rule):
    """Teacher annealing: the constant `1 - t / T` of step t of T (Clark et al., ACL 2019, "teacher annealing").

    All teacher at the first step, all label after the last one. M teachers have their part / M.
    """

    kind: ClassVar[str] = "anl"
    annealed: ClassVar[bool] = True

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega
        like, level = points.student_logits, 1 - context.progress  # another number at every step: none is kept
        teachers = like.new_full((points.num_teachers,), level / max(points.num_teachers, 1))
        return everywhere(torch.cat([like.new_full((1,), 1 - level), teachers]), points)
