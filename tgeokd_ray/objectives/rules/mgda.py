"""The mixture of labels and teachers whose gradient is the shortest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule


@dataclass(frozen=True)
class MGDA(Rule):
    """One ratio for a batch: `clip(<g - h, g> / |g - h|^2, 0, 1)`, g and h the gradients of labels and of teachers.

    The point of least norm between the two (Desideri, 2012; Sener & Koltun, NeurIPS 2018): along it a small step makes
    neither loss worse. h is the gradient with all weight on the M teachers, in equal parts; rows that lack a label or a
    teacher are in both ends what they are under any rule. 0 where g and h are the same.
    """

    kind: ClassVar[str] = "mgda"
    needs: ClassVar[tuple[str, ...]] = ("gradient_products",)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        """Weights [R, N, 1 + M]. ConfigError for points without the gradients' products."""
        del omega, context
        if points.gradient_products is None:
            raise ConfigError(f"rule {self.kind!r} needs the gradients of a step", fix="use it in training alone")
        products = points.gradient_products.to(points.student_logits.dtype)
        labels, both, teachers = products[:, 0, 0], products[:, 0, 1], products[:, 1, 1]
        apart = (labels - 2 * both + teachers).clamp_min(torch.finfo(products.dtype).tiny)
        ratio = ((labels - both) / apart).clamp(0, 1).unsqueeze(-1)
        parts = (ratio / points.num_teachers).expand(-1, points.num_teachers)
        weights = torch.cat([1 - ratio, parts], -1).unsqueeze(1)
        return weights.expand(*points.student_logits.shape[:-1], weights.shape[-1])
