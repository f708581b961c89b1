"""The fusion network as it was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.objectives.options import require
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule, level_shares
from tgeokd_ray.objectives.rules.scoring import Scoring
from tgeokd_ray.objectives.short_axis import softmax


@dataclass(frozen=True)
class Frozen(Rule):
    """The untrained fusion network: what the published code of Hu et al. amounts to."""

    features: str = "paper"
    hidden: int = 32
    disagreement: bool = False

    kind: ClassVar[str] = "frozen"

    def __post_init__(self) -> None:
        require(self.kind, self._scoring.checks())

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        return self._scoring.init(self.kind, seeds, num_classes, num_teachers)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        with torch.no_grad():
            scores = self._scoring.scores(omega, points, context)
            return softmax(scores + level_shares(0.5, points).log())

    @property
    def _scoring(self) -> Scoring:
        return Scoring(self.features, self.hidden, self.disagreement)
