"""The student alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule, everywhere, level_shares


@dataclass(frozen=True)
class Labels(Rule):
    """The student alone: weight 1 on the labels, 0 on every teacher."""

    kind: ClassVar[str] = "labels"

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        del seeds, num_classes, num_teachers
        return {}

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        return everywhere(level_shares(0.0, points), points)
