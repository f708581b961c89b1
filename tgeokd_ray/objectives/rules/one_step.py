"""The ratio of TGeo-KD, learned one step ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tgeokd_ray.objectives.options import Check, is_number, require
from tgeokd_ray.objectives.points import Context, Points, batch_mean
from tgeokd_ray.objectives.rules.rule import Rule, level_shares
from tgeokd_ray.objectives.rules.scoring import Scoring
from tgeokd_ray.objectives.short_axis import softmax


@dataclass(frozen=True)
class TGeoOneStep(Rule):
    """A ratio per row from the fusion network, learned by the exact one-step hypergradient (Hu et al., ICLR 2024).

    Uncentred: softmax of the scores with `level` as offset. Centred: the scores' weighted mean over the global batch is
    taken off first, inside the graph, so that the level stays and only the shape is learned: with one teacher
    `sigmoid(f - mean f + logit level)`. The paper's form is `features="paper", centred=False`.
    """

    features: str = "label_aligned"
    hidden: int = 32
    centred: bool = True
    level: float = 0.5
    disagreement: bool = False

    kind: ClassVar[str] = "tgeo_one_step"
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        level_fits = is_number(self.level) and 0 < self.level < 1
        require(
            self.kind,
            [
                *self._scoring.checks(),
                Check("centred", "true or false", self.centred, isinstance(self.centred, bool)),
                Check("level", "in (0, 1)", self.level, level_fits),
            ],
        )

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        return self._scoring.init(self.kind, seeds, num_classes, num_teachers)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        scores = self._scoring.scores(omega, points, context)
        if self.centred:
            scores = scores - batch_mean(scores, points, context).unsqueeze(-2)
        return softmax(scores + level_shares(self.level, points).log())

    @property
    def _scoring(self) -> Scoring:
        return Scoring(self.features, self.hidden, self.disagreement, bias=not self.centred)
