"""One ratio for every class: how far the teacher's class mean favours it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule
from tgeokd_ray.objectives.short_axis import total


@dataclass(frozen=True)
class ADA(Rule):
    """The mean margin of a row's class, `clip(Tbar_cc - mean of the other Tbar_c, 0, 1)` (Lukasik et al., 2021).

    Margins are those of the class means, so of train rows. 1 for a teacher that is certain and right, 0 for one that
    knows nothing of the class, or less. M teachers have margin / M each, the label the rest.
    A row without a label has no class to go by: 0.
    """

    kind: ClassVar[str] = "ada"

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        means = points.class_means.to(points.student_logits.dtype)
        own = means.diagonal(dim1=-2, dim2=-1)
        margins = (own - (1 - own) / (means.shape[-1] - 1)).clamp(0, 1)
        teachers = margins[:, points.classes].T * points.labelled.unsqueeze(-1) / points.num_teachers
        weights = torch.cat([(1 - total(teachers).unsqueeze(-1)).clamp_min(0), teachers], -1)
        return weights.expand(*points.student_logits.shape[:-1], weights.shape[-1])
