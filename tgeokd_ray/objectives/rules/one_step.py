"""The ratio of TGeo-KD, learned one step ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tgeokd_ray.objectives.options import Check, is_number, require
from tgeokd_ray.objectives.points import Context, Points, batch_mean
from tgeokd_ray.objectives.rules.rule import level_shares, require_teacher
from tgeokd_ray.objectives.rules.scoring import features_check, fusion_networks, hidden_check, source_scores


@dataclass(frozen=True)
class TGeoOneStep:
    """A ratio per row from the fusion network, learned by the exact one-step hypergradient (Hu et al., ICLR 2024).

    Uncentred: softmax of the scores with `level` as offset. Centred: the scores' weighted mean over the global batch is
    taken off first, inside the graph, so that the level stays and only the shape is learned: with one teacher
    `sigmoid(f - mean f + logit level)`. The paper's form is `features="paper", centred=False`.
    """

    features: str = "label_aligned"
    hidden: int = 32
    centred: bool = True
    level: float = 0.5

    kind: ClassVar[str] = "tgeo_one_step"
    learned: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        level_fits = is_number(self.level) and 0 < self.level < 1
        require(
            self.kind,
            [
                features_check(self.features),
                hidden_check(self.hidden),
                Check("centred", "true or false", self.centred, isinstance(self.centred, bool)),
                Check("level", "in (0, 1)", self.level, level_fits),
            ],
        )

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        require_teacher(self.kind, num_teachers)
        return fusion_networks(seeds, self.features, self.hidden, num_classes, num_teachers, offset=not self.centred)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        scores = source_scores(omega, points, context, self.features, self.hidden, offset=not self.centred)
        if self.centred:
            scores = scores - batch_mean(scores, points.row_weights, context).unsqueeze(-2)
        return (scores + level_shares(self.level, points).log()).softmax(-1)
