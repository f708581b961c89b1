"""How the ratio between labels and teachers is made: all rules of comparison, one interface.

N rows, C classes, M teachers, R students in the pack. A rule weighs the sources (labels, teacher 1..M) of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.objectives.fusion import FusionNetwork
from tgeokd_ray.objectives.geometry import FEATURES, standardise
from tgeokd_ray.objectives.options import Check, is_number, require, suggestion
from tgeokd_ray.objectives.points import Context, Points, batch_mean
from tgeokd_ray.objectives.stacking import apply, stack

ROUNDING = 1e-9


class Rule(Protocol):
    """`kind` names the rule; `learned` says whether an outer step moves its parameters omega."""

    kind: ClassVar[str]
    learned: ClassVar[bool]

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        """omega {name: [R, ...]}, one student per seed; {} for a rule without parameters. ConfigError for M = 0
        where the rule needs a teacher."""

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        """Weights [R, N, 1 + M] >= 0 whose rows sum to 1, in the type of the student's logits."""


@dataclass(frozen=True)
class Labels:
    """The student alone: weight 1 on the labels, 0 on every teacher."""

    kind: ClassVar[str] = "labels"
    learned: ClassVar[bool] = False

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        del seeds, num_classes, num_teachers
        return {}

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        return _everywhere(_shares(0.0, points), points)


@dataclass(frozen=True)
class Constant:
    """One mixture for every row: `value` in [0, 1] on the teachers together, in equal parts, or one weight for each
    teacher, which sum to at most 1; the rest on the labels."""

    value: float | tuple[float, ...] = 0.5

    kind: ClassVar[str] = "constant"
    learned: ClassVar[bool] = False

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
        _require_teacher(self.kind, num_teachers)
        if isinstance(self.value, tuple):
            rule = f"one weight for each of {num_teachers} teachers"
            require(self.kind, [Check("value", rule, list(self.value), len(self.value) == num_teachers)])
        return {}

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        if not isinstance(self.value, tuple):
            return _everywhere(_shares(self.value, points), points)
        weights = [max(1 - sum(self.value), 0.0), *self.value]
        return _everywhere(points.student_logits.new_tensor(weights), points)


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

    def __post_init__(self) -> None:
        level_fits = is_number(self.level) and 0 < self.level < 1
        require(
            self.kind,
            [
                _features_check(self.features),
                _hidden_check(self.hidden),
                Check("centred", "true or false", self.centred, isinstance(self.centred, bool)),
                Check("level", "in (0, 1)", self.level, level_fits),
            ],
        )

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        _require_teacher(self.kind, num_teachers)
        return _fusion_networks(seeds, self.features, self.hidden, num_classes, num_teachers, offset=not self.centred)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        scores = _scores(omega, points, context, self.features, self.hidden, offset=not self.centred)
        if self.centred:
            scores = scores - batch_mean(scores, points, context).unsqueeze(-2)
        return (scores + _shares(self.level, points).log()).softmax(-1)


@dataclass(frozen=True)
class Frozen:
    """The untrained fusion network: what the published code of Hu et al. amounts to."""

    features: str = "paper"
    hidden: int = 32

    kind: ClassVar[str] = "frozen"
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.kind, [_features_check(self.features), _hidden_check(self.hidden)])

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        _require_teacher(self.kind, num_teachers)
        return _fusion_networks(seeds, self.features, self.hidden, num_classes, num_teachers)

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        with torch.no_grad():
            scores = _scores(omega, points, context, self.features, self.hidden)
            return (scores + _shares(0.5, points).log()).softmax(-1)


RULES: Mapping[str, type[Labels] | type[Constant] | type[Frozen] | type[TGeoOneStep]] = {
    rule.kind: rule for rule in (Labels, Constant, Frozen, TGeoOneStep)
}


def build_rule(kind: str, **options: Any) -> Rule:
    """The rule named `kind` with these options. ConfigError, with a suggestion, for an unknown kind or option, and for
    every value that breaks its rule."""
    if kind not in RULES:
        raise ConfigError(f"unknown rule kind {kind!r}{suggestion(kind, RULES)}")
    rule = RULES[kind]
    known = [field.name for field in fields(rule)]
    unknown = [
        Problem(f"unknown option {name!r} of rule {kind!r}{suggestion(name, known)}")
        for name in options
        if name not in known
    ]
    if unknown:
        raise ConfigError(unknown)
    return rule(**options)


def _shares(level: float, points: Points) -> Tensor:
    """Weights [1 + M]: 1 - level on the labels, level / M on each teacher."""
    num_teachers = points.num_teachers
    shares = points.student_logits.new_full((1 + num_teachers,), level / max(num_teachers, 1))
    shares[0] = 1 - level
    return shares


def _everywhere(shares: Tensor, points: Points) -> Tensor:
    return shares.expand(*points.student_logits.shape[:-1], shares.shape[0])


def _fusion_networks(
    seeds: Sequence[int], features: str, hidden: int, num_classes: int, num_teachers: int, *, offset: bool = True
) -> dict[str, Tensor]:
    dimension = FEATURES[features].dimension(num_classes, num_teachers)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return stack([FusionNetwork(dimension, num_teachers, hidden, generator, offset=offset) for generator in generators])


def _scores(
    omega: Mapping[str, Tensor], points: Points, context: Context, features: str, hidden: int, *, offset: bool = True
) -> Tensor:
    """Scores [R, N, 1 + M] of the fusion network."""
    feature_set = FEATURES[features]
    seen = feature_set.compute(points)
    if feature_set.standardised:
        seen = standardise(seen, points, context)
    seen = torch.where(
        points.labelled.unsqueeze(-1), seen, 0.0
    )  # standardised, the mean row: a label says nothing here
    return apply(FusionNetwork(seen.shape[-1], points.num_teachers, hidden, offset=offset), omega, seen, stacked=True)


def _features_check(features: object) -> Check:
    return Check(
        "features", f"one of {', '.join(FEATURES)}", features, isinstance(features, str) and features in FEATURES
    )


def _hidden_check(hidden: object) -> Check:
    return Check("hidden", "an integer >= 1", hidden, isinstance(hidden, int) and is_number(hidden) and hidden >= 1)


def _require_teacher(kind: str, num_teachers: int) -> None:
    if num_teachers < 1:
        raise ConfigError(
            f"rule {kind!r} needs at least one teacher, got 0", fix="use the rule 'labels', or add logits"
        )
