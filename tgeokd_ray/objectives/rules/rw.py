"""As much of each source as it helps on outer rows, one virtual step ahead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule
from tgeokd_ray.objectives.short_axis import total

LEAST = 1e-8


@dataclass(frozen=True)
class RW(Rule):
    """Meta-learned per row: `u / sum of u` over label and teachers, `u = max(1e-8, -dJ/d eps)` (Lu et al., EMNLP 2021).

    J is the outer loss after a virtual step `theta - rate * sum eps_im grad loss_im`, at eps = 0: plain descent, as in
    the method that it is built on (Ren et al., ICML 2018, algorithm 1), whatever optimizer the student has. A row that
    no source helps on is halved between them. It takes an outer batch at every step.
    """

    kind: ClassVar[str] = "rw"
    needs: ClassVar[tuple[str, ...]] = ("outer_slopes",)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        """Weights [R, N, 1 + M]. ConfigError for points without the slopes of the outer loss."""
        del omega, context
        if points.outer_slopes is None:
            raise ConfigError(
                f"rule {self.kind!r} needs outer rows at every step", fix="fusion.every=1 and fusion.warm_up=0"
            )
        useful = points.outer_slopes.to(points.student_logits.dtype).clamp_min(LEAST)
        return useful / total(useful).unsqueeze(-1)
