"""The scores that rules with a fusion network weigh sources by: features of the points through the network.

M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgeokd_ray.objectives.fusion import FusionNetwork, scored
from tgeokd_ray.objectives.geometry import FEATURES, feature_set, standardise
from tgeokd_ray.objectives.options import Check, is_number, require
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import require_teacher
from tgeokd_ray.objectives.stacking import stack


@dataclass(frozen=True)
class Scoring:
    """A fusion network of `hidden` units on the named features; `bias` False leaves the output's bias out.

    `disagreement` adds how far the teachers are apart, which needs two of them.
    """

    features: str
    hidden: int
    disagreement: bool
    bias: bool = True

    def checks(self) -> list[Check]:
        """What the options must keep."""
        known = isinstance(self.features, str) and self.features in FEATURES
        counts = isinstance(self.hidden, int) and is_number(self.hidden) and self.hidden >= 1
        return [
            Check("features", f"one of {', '.join(FEATURES)}", self.features, known),
            Check("hidden", "an integer >= 1", self.hidden, counts),
            Check("disagreement", "true or false", self.disagreement, isinstance(self.disagreement, bool)),
        ]

    def init(self, kind: str, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        """omega {name: [R, ...]}, the parameters of one network per seed. ConfigError, which names the rule `kind`, for
        too few teachers."""
        require_teacher(kind, num_teachers)
        apart = not self.disagreement or num_teachers > 1
        require(kind, [Check("disagreement", "false where there is one teacher", self.disagreement, apart)])
        dimension = feature_set(self.features, disagreement=self.disagreement).dimension(num_classes, num_teachers)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = dimension, num_teachers, self.hidden
        return stack([FusionNetwork(*shape, generator, offset=self.bias) for generator in generators])

    def scores(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        """Scores [R, N, 1 + M], the label's first."""
        features = feature_set(self.features, disagreement=self.disagreement)
        seen = features.compute(points)
        if features.standardised:
            seen = standardise(seen, points, context)
        # Where there is no label, what seems to stand at it says nothing: standardised, 0 is the mean row.
        seen = torch.where(points.labelled.unsqueeze(-1), seen, 0.0)
        return scored(omega, seen)
