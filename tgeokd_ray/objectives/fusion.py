"""The fusion network: from a row's geometry to one score per source of truth, the labels and each teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from tgeokd_ray.objectives.stacking import affine

OUTPUT_SCALE = 0.1


class FusionNetwork(nn.Module):
    """`Linear -> ReLU -> Linear`: features [..., K] to scores [..., 1 + M], the label's first (Hu et al., ICLR 2024).

    Weights are normal with variance 2 / inputs (He et al., 2015) in the hidden layer and 1 / inputs times 0.1**2 in
    the output, biases zero: scores start small, the ratio near its level. All numbers are drawn from `generator`;
    without one the parameters have a shape only, which is what `stacking.apply` needs. `offset` False leaves the
    output's bias out, for scores whose mean is taken off: it would have no gradient but rounding.
    """

    stacks: ClassVar[bool] = True

    def __init__(
        self,
        num_features: int,
        num_teachers: int,
        hidden: int = 32,
        generator: torch.Generator | None = None,
        *,
        offset: bool = True,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, hidden, device="meta")
        self.output = nn.Linear(hidden, 1 + num_teachers, bias=offset, device="meta")
        if generator is not None:
            for layer, gain in ((self.hidden, 2.0), (self.output, OUTPUT_SCALE**2)):
                _draw(layer, (gain / layer.in_features) ** 0.5, generator)

    def forward(self, features: Tensor) -> Tensor:
        return scored(dict(self.named_parameters()), features)


def scored(parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """The scores [..., 1 + M] of a network with these parameters, or [R, N, 1 + M] of a pack's, each tensor [R, ...],
    on features [R, N, K]: what `FusionNetwork.forward` is, without a module."""
    hidden = affine([features], parameters["hidden.weight"], parameters["hidden.bias"]).relu_()
    return affine([hidden], parameters["output.weight"], parameters.get("output.bias"))


def _draw(layer: nn.Linear, std: float, generator: torch.Generator) -> None:
    """Normal weights and zero biases in place of a meta layer's; `to_empty` would load sympy, .8 s."""
    device = generator.device
    weight = torch.empty(layer.weight.shape, device=device).normal_(0.0, std, generator=generator)
    layer.weight = nn.Parameter(weight)
    if layer.bias is not None:
        layer.bias = nn.Parameter(torch.zeros(layer.bias.shape, device=device))
