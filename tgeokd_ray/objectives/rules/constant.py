"""One mixture for every row: the control that every other rule must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tgeokd_ray.objectives.numbers import numbers
from tgeokd_ray.objectives.options import Check, is_number, require
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule, everywhere, level_shares, require_teacher

ROUNDING = 1e-9


@dataclass(frozen=True)
class Constant(Rule):
    """One mixture for every row: `value` in [0, 1] on the teachers together, in equal parts, or one weight for each
    teacher, which sum to at most 1; the rest on the labels."""

    value: float | tuple[float, ...] = 0.5

    kind: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        if isinstance(self.value, list | tuple):  # a list where it was read from JSON
            each = all(is_number(weight) and weight >= 0 for weight in self.value)
            fits = each and sum(self.value) <= 1 + ROUNDING
            require(self.kind, [Check("value", "weights >= 0 whose sum is at most 1", list(self.value), fits)])
            object.__setattr__(self, "value", tuple(self.value))
        else:
            fits = is_number(self.value) and 0 <= self.value <= 1
            require(self.kind, [Check("value", "in [0, 1]", self.value, fits)])

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        del seeds, num_classes
        require_teacher(self.kind, num_teachers)
        if isinstance(self.value, tuple):
            rule = f"one weight for each of {num_teachers} teachers"
            require(self.kind, [Check("value", rule, list(self.value), len(self.value) == num_teachers)])
        return {}

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        if not isinstance(self.value, tuple):
            return everywhere(level_shares(self.value, points), points)
        weights = (max(1 - sum(self.value), 0.0), *self.value)
        return everywhere(numbers(weights, points.student_logits), points)
