"""The scores that learned rules weigh sources by: features of the points through the fusion network.

M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tgeokd_ray.objectives.fusion import FusionNetwork
from tgeokd_ray.objectives.geometry import FEATURES, standardise
from tgeokd_ray.objectives.options import Check, is_number
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.stacking import apply, stack


def fusion_networks(
    seeds: Sequence[int], features: str, hidden: int, num_classes: int, num_teachers: int, *, offset: bool = True
) -> dict[str, Tensor]:
    """omega {name: [R, ...]}: the parameters of one fusion network per seed."""
    dimension = FEATURES[features].dimension(num_classes, num_teachers)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return stack([FusionNetwork(dimension, num_teachers, hidden, generator, offset=offset) for generator in generators])


def source_scores(
    omega: Mapping[str, Tensor], points: Points, context: Context, features: str, hidden: int, *, offset: bool = True
) -> Tensor:
    """Scores [R, N, 1 + M] of the fusion network."""
    feature_set = FEATURES[features]
    seen = feature_set.compute(points)
    if feature_set.standardised:
        seen = standardise(seen, points, context)
    return apply(FusionNetwork(seen.shape[-1], points.num_teachers, hidden, offset=offset), omega, seen, stacked=True)


def features_check(features: object) -> Check:
    """A name of FEATURES."""
    return Check(
        "features", f"one of {', '.join(FEATURES)}", features, isinstance(features, str) and features in FEATURES
    )


def hidden_check(hidden: object) -> Check:
    """A number of hidden units."""
    return Check("hidden", "an integer >= 1", hidden, isinstance(hidden, int) and is_number(hidden) and hidden >= 1)
