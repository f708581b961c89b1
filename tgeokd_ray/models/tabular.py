"""The networks: MLP, Wide & Deep, DCN-V2. N rows, P numeric columns, F categorical columns, D width, C classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tgeokd_ray.models.layers import CrossNetwork, Tower, linear
from tgeokd_ray.models.network import Network, Shape, joined, parts
from tgeokd_ray.models.options import ModelOptions
from tgeokd_ray.models.tangents import TowerNetworkAt


class MLP(Network):
    """ReLU layers on numeric columns and embeddings side by side, then a linear head; no layers: a linear model."""

    narrow = True

    def __init__(self, shape: Shape, options: ModelOptions, generator: torch.Generator) -> None:
        super().__init__(shape, options.embedding, generator)
        num_features = shape.num_features(options.embedding)
        self.tower = Tower(num_features, options.hidden, generator)
        self.head = linear(self.tower.num_outputs, shape.num_classes, generator)

    def dense(self, numeric: Tensor, embedded: Tensor, masks: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.tower(parts(numeric, embedded), masks))
        return logits

    def at(
        self, theta: Mapping[str, Tensor], numeric: Tensor, categorical: Tensor, masks: Tensor | None = None
    ) -> TowerNetworkAt:
        """The network at theta {name: [R, ...]} on a batch, with its derivatives; masks are [R, N, K]."""
        return _at(self, self.width, theta, numeric, categorical, masks)


class WideDeep(Network):
    """The MLP's logits plus a linear model's on the same columns (Cheng et al., 2016, section 3).

    The linear weights of the ids are C more columns of the fused table, so one gather [N, F, D + C] serves both; they
    start at zero, as those of the numeric columns do.
    """

    def __init__(self, shape: Shape, options: ModelOptions, generator: torch.Generator) -> None:
        num_classes = shape.num_classes
        super().__init__(shape, options.embedding + num_classes, generator, zero_columns=num_classes)
        num_features = shape.num_features(options.embedding)
        self.tower = Tower(num_features, options.hidden, generator)
        self.head = linear(self.tower.num_outputs, num_classes, generator)
        self.wide = torch.nn.Parameter(torch.zeros(shape.num_numeric, num_classes)) if shape.num_numeric else None
        self.deep_width = options.embedding

    def dense(self, numeric: Tensor, embedded: Tensor, masks: Tensor | None = None) -> Tensor:
        deep, first_order = embedded[..., : self.deep_width], embedded[..., self.deep_width :]
        logits: Tensor = self.head(self.tower(parts(numeric, deep), masks)) + first_order.sum(-2)
        return logits if self.wide is None else logits + numeric @ self.wide

    def at(
        self, theta: Mapping[str, Tensor], numeric: Tensor, categorical: Tensor, masks: Tensor | None = None
    ) -> TowerNetworkAt:
        """As that of `MLP`."""
        return _at(self, self.deep_width, theta, numeric, categorical, masks)


class DCNv2(Network):
    """A cross network and a deep tower side by side on the same features, then one linear head on both.

    The parallel structure of DCN-V2 (Wang et al., 2021, figure 1b); without hidden layers the cross network alone.
    """

    def __init__(self, shape: Shape, options: ModelOptions, generator: torch.Generator) -> None:
        super().__init__(shape, options.embedding, generator)
        num_features = shape.num_features(options.embedding)
        self.cross = CrossNetwork(num_features, options.cross_layers, generator)
        self.tower = Tower(num_features, options.hidden, generator) if options.hidden else None
        deep_outputs = self.tower.num_outputs if self.tower is not None else 0
        self.head = linear(num_features + deep_outputs, shape.num_classes, generator)

    def dense(self, numeric: Tensor, embedded: Tensor, masks: Tensor | None = None) -> Tensor:
        features = joined(numeric, embedded)
        seen = [self.cross(features)] if self.tower is None else [self.cross(features), self.tower(features, masks)]
        logits: Tensor = self.head(torch.cat(seen, dim=-1))
        return logits


def _at(
    network: MLP | WideDeep,
    deep_width: int,
    theta: Mapping[str, Tensor],
    numeric: Tensor,
    categorical: Tensor,
    masks: Tensor | None,
) -> TowerNetworkAt:
    layers = [*(f"tower.layers.{place}" for place in range(len(network.tower.widths))), "head"]
    own = None if masks is None else torch.split(masks, list(network.tower.widths), dim=-1)
    return TowerNetworkAt(theta, layers, deep_width, network.scaled(numeric), categorical, own)
