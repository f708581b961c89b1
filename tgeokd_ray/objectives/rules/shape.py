"""Which rows deserve more teacher, and nothing else: what the first of two phases learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.options import Check, require
from tgeokd_ray.objectives.points import Context, Points, batch_mean
from tgeokd_ray.objectives.rules.rule import Rule
from tgeokd_ray.objectives.rules.scoring import Scoring
from tgeokd_ray.objectives.short_axis import softmax


@dataclass(frozen=True)
class TGeoShape(Rule):
    """The shape of the ratio without its level, which is chosen later on valid rows.

    One teacher: `sigmoid(f - mean f)`, the centred form of `tgeo_one_step` at the level 1/2. Several: a gate
    `2 sigmoid(f_m)` in (0, 2) for each source, label and teachers, neither centred nor normalised, so that rows sum to
    between 0 and 2 (1 + M). With `offset`, the points' offset less its mean over the global batch is added to every
    teacher's score.
    """

    features: str = "label_aligned"
    hidden: int = 32
    offset: bool = False
    disagreement: bool = False

    kind: ClassVar[str] = "tgeo_shape"
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        is_flag = isinstance(self.offset, bool)
        require(self.kind, [*self._scoring(1).checks(), Check("offset", "true or false", self.offset, is_flag)])

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        return self._scoring(num_teachers).init(self.kind, seeds, num_classes, num_teachers)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        """Weights [R, N, 1 + M]. ConfigError with `offset` for points that have none."""
        scores = self._scoring(points.num_teachers).scores(omega, points, context)
        if self.offset:
            scores = scores + self._offsets(points, context, scores)
        if points.num_teachers > 1:
            return 2 * scores.sigmoid()
        return softmax(scores - batch_mean(scores, points, context).unsqueeze(-2))

    def _scoring(self, num_teachers: int) -> Scoring:
        return Scoring(self.features, self.hidden, self.disagreement, bias=num_teachers > 1)

    def _offsets(self, points: Points, context: Context, scores: Tensor) -> Tensor:
        """[1, N, 1 + M]: zero for the label, the centred offset for each teacher."""
        if points.offset is None:
            raise ConfigError(f"{self.kind}.offset needs the offset of every row", fix="set it to false")
        offset = points.offset.to(scores.dtype).reshape(1, -1, 1)
        centred = offset - batch_mean(offset, points, context).unsqueeze(-2)
        teachers = centred.expand(-1, -1, points.num_teachers)
        return torch.cat([torch.zeros_like(centred), teachers], -1)
