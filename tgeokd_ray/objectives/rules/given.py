"""A ratio that was learned before, at a level and a strength: what the second of two phases trains students with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.numbers import numbers
from tgeokd_ray.objectives.options import Check, is_number, require
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule
from tgeokd_ray.objectives.short_axis import softmax


@dataclass(frozen=True)
class Given(Rule):
    """A fixed ratio per row, from the logits u that the points carry for `source`, one of their Q stored ratios.

    `softmax(0, mean + shift + strength * (u_m - mean))` over the label and the M teachers, times the row's gate to the
    power `strength`: with one teacher `sigmoid(mean + shift + strength * (u - mean))`. `mean` is that of u over the
    rows it was learned on. Strength 0 is a constant. Rows sum to the power of their gate: 1 for one teacher.
    """

    source: int = 0
    strength: float = 1.0
    shift: float = 0.0
    mean: float = 0.0

    kind: ClassVar[str] = "given"

    def __post_init__(self) -> None:
        is_index = isinstance(self.source, int) and is_number(self.source) and self.source >= 0
        checks = [
            Check("source", "an integer >= 0", self.source, is_index),
            Check("strength", "finite and >= 0", self.strength, is_number(self.strength) and 0 <= self.strength < inf),
            Check("shift", "a finite number", self.shift, is_number(self.shift) and isfinite(self.shift)),
            Check("mean", "a finite number", self.mean, is_number(self.mean) and isfinite(self.mean)),
        ]
        require(self.kind, checks)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        """Weights [R, N, 1 + M]. ConfigError for points without the ratio, or with several teachers and no gates."""
        del omega, context
        weights = Given.together([self], points)
        return weights.expand(*points.student_logits.shape[:-1], weights.shape[-1])

    @staticmethod
    def together(rules: Sequence[Given], points: Points) -> Tensor:
        """Weights [G, N, 1 + M] of G rules, whose students would each ask for the same few operations."""
        like = points.student_logits
        options = numbers(tuple((rule.mean, rule.mean + rule.shift, rule.strength) for rule in rules), like)
        mean, level, strength = options.T.reshape(3, -1, 1, 1)
        stored = [rule._stored(points) for rule in rules]
        logits = torch.stack([logits for logits, _ in stored]).to(like.dtype)
        teachers = level + strength * (logits - mean)
        weights = softmax(torch.cat([torch.zeros_like(teachers[..., :1]), teachers], -1))
        gates = [gate for _, gate in stored if gate is not None]
        if gates:
            weights = weights * torch.stack(gates).to(like.dtype).pow(strength.squeeze(-1)).unsqueeze(-1)
        return weights

    def _stored(self, points: Points) -> tuple[Tensor, Tensor | None]:
        """Logits [N, M] and gates [N] of the source."""
        logits, gates = points.ratio_logits, points.ratio_gates
        stored = 0 if logits is None else logits.shape[1]
        if logits is None or stored <= self.source:
            raise ConfigError(
                f"{self.kind}.source is ratio {self.source}, but the rows carry {stored}", fix="name a stored ratio"
            )
        if gates is None and points.num_teachers > 1:
            raise ConfigError(f"rule {self.kind!r} needs the rows' gates beside the ratio of several teachers")
        return logits[:, self.source], None if gates is None else gates[:, self.source]
