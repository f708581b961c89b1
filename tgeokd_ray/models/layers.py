"""The layers that the networks share. N rows, W features.

Parameters may carry a leading axis R, one entry per student of a pack; outputs then are [R, N, ...].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tgeokd_ray.models.autocast import narrow_type
from tgeokd_ray.models.crossing import cross
from tgeokd_ray.objectives.stacking import affine

Features = Tensor | Sequence[Tensor]  # several stand side by side

RELU_GAIN = math.sqrt(2.0)


class Linear(nn.Linear):
    """torch.nn.Linear on features that may come in parts. A part without a gradient, as the numeric columns are, costs
    the backward pass nothing."""

    def forward(self, features: Features) -> Tensor:
        return affine([features] if isinstance(features, Tensor) else features, self.weight, self.bias)


def linear(num_inputs: int, num_outputs: int, generator: torch.Generator, gain: float = 1.0) -> Linear:
    """A linear layer with zero bias and normal weights of variance gain^2 / inputs, which keep the inputs' scale.

    The gain sqrt(2) is for layers that a ReLU follows (He et al., 2015, equation 10).
    """
    layer = Linear(num_inputs, num_outputs, device="meta")  # draws nothing; `to_empty` would load sympy, .8 s
    weight = torch.empty(num_outputs, num_inputs).normal_(0.0, gain / math.sqrt(num_inputs), generator=generator)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(num_outputs))
    return layer


class Tower(nn.Module):
    """ReLU layers of the given widths; [N, W] to [N, `num_outputs`]. No widths: the identity.

    `masks` [N, sum of the widths] multiplies the layers' outputs: dropout is an input and never drawn here, so a step
    can be repeated exactly and does not depend on which worker takes it.
    """

    def __init__(self, num_inputs: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        widths = [num_inputs, *hidden]
        self.layers = nn.ModuleList(linear(i, o, generator, RELU_GAIN) for i, o in pairwise(widths))
        self.widths = tuple(hidden)
        self.num_outputs = widths[-1]

    def forward(self, features: Features, masks: Tensor | None = None) -> Features:
        parts = [None] * len(self.widths) if masks is None else torch.split(masks, list(self.widths), dim=-1)
        for layer, mask in zip(self.layers, parts, strict=True):
            active = layer(features).relu_()
            features = active if mask is None else active * mask
        return features


class CrossNetwork(nn.Module):
    """`x_{l+1} = x_0 * (W_l x_l + b_l) + x_l` with full matrices (DCN-V2, Wang et al., 2021, equation 1).

    Maps [N, W] to [N, W]; k layers give every product of up to k + 1 features. Under autocast on a CPU what is crossed
    stays in float32, and comes out in the narrow type in which the next layer would take it.
    """

    def __init__(self, width: int, num_layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(width, width, generator) for _ in range(num_layers))

    def forward(self, features: Tensor) -> Tensor:
        crossed, narrow = features, narrow_type(features)
        if narrow is None or torch.compiler.is_compiling():  # the compiler needs no help
            for layer in self.layers:
                crossed = features * layer(crossed) + crossed
            return crossed
        seen = features.to(narrow)
        for layer in self.layers:
            crossed, seen = cross(features, layer(seen), crossed)
        return seen
