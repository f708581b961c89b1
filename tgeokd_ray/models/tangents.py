"""Networks at a point: linear layers and towers with their gradients, and how these move along a direction of theta.

N rows, W features, R students in the pack; of one student tensors come without the axis R. delta is the gradient of
a loss by a layer's output, a prime what moves along the direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tgeokd_ray.models.embedding import gathered, scattered
from tgeokd_ray.objectives.stacking import affine, own_part, product_sum
from tgeokd_ray.objectives.vectors import Tensors

TABLE, WIDE = "embedding.weight", "wide"


@dataclass
class LinearAt:
    """A linear layer `name` on inputs in parts [N, k] or [R, N, k]; of those that are `fixed`, numeric columns, nobody
    asks how they move."""

    name: str
    theta: Mapping[str, Tensor]
    parts: Sequence[Tensor]
    fixed: Sequence[bool]
    delta: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        weight = self.theta[f"{self.name}.weight"]
        self.parts = [own_part(part, weight) for part in self.parts]
        self.columns = self._split(weight)

    def output(self) -> Tensor:
        return affine(self.parts, self.theta[f"{self.name}.weight"], self.theta[f"{self.name}.bias"])

    def gradients(self, delta: Tensor) -> tuple[Tensors, list[Tensor]]:
        """Those of weight and bias, and those of the parts that are not fixed."""
        self.delta = delta
        weight = torch.cat([delta.mT @ part for part in self.parts], -1)
        inputs = [delta @ columns.mT for columns, fixed in zip(self.columns, self.fixed, strict=True) if not fixed]
        return {f"{self.name}.weight": weight, f"{self.name}.bias": delta.sum(-2)}, inputs

    def tangent(self, direction: Mapping[str, Tensor], moved: Sequence[Tensor]) -> Tensor:
        """`x W' + x' W + b'`; `moved` are x' of the parts that are not fixed."""
        self.turned, self.moved = self._split(direction[f"{self.name}.weight"]), moved
        pairs = list(zip(self.parts, self.turned, strict=True)) + list(zip(moved, self._free, strict=True))
        return product_sum(pairs).add_(direction[f"{self.name}.bias"].unsqueeze(-2))

    def moved_gradients(self, turned: Tensor) -> tuple[Tensors, list[Tensor]]:
        """`gradients'` when delta moves by `turned`: `delta'^T x + delta^T x'`, and `delta' W + delta W'` of the parts
        that are not fixed."""
        assert self.delta is not None
        moved = iter(self.moved)
        weight = []
        for part, fixed in zip(self.parts, self.fixed, strict=True):
            more = [] if fixed else [(self.delta.mT, next(moved))]
            weight.append(product_sum([(turned.mT, part), *more]))
        free = [columns for columns, fixed in zip(self.turned, self.fixed, strict=True) if not fixed]
        inputs = [
            product_sum([(turned, columns.mT), (self.delta, other.mT)])
            for columns, other in zip(self._free, free, strict=True)
        ]
        joined = torch.cat(weight, -1) if len(weight) > 1 else weight[0]
        return {f"{self.name}.weight": joined, f"{self.name}.bias": turned.sum(-2)}, inputs

    @property
    def _free(self) -> list[Tensor]:
        return [columns for columns, fixed in zip(self.columns, self.fixed, strict=True) if not fixed]

    def _split(self, weight: Tensor) -> Sequence[Tensor]:
        """The columns of each part, [k, o]."""
        return torch.split(weight.mT, [part.shape[-1] for part in self.parts], dim=-2)


class TowerAt:
    """ReLU layers and a linear head on features in parts: `logits`, and the derivatives by theta and by the parts."""

    def __init__(
        self,
        theta: Mapping[str, Tensor],
        names: Sequence[str],
        parts: Sequence[Tensor],
        fixed: Sequence[bool],
        masks: Sequence[Tensor] | None,
    ) -> None:
        self._layers: list[LinearAt] = []
        self._gates: list[Tensor] = []
        for place, name in enumerate(names[:-1]):
            self._layers.append(LinearAt(name, theta, parts, fixed))
            active = self._layers[-1].output().relu_()
            gate = (active > 0).to(active.dtype)
            self._gates.append(gate if masks is None else gate.mul_(masks[place]))
            parts, fixed = [active if masks is None else active * masks[place]], [False]
        self._layers.append(LinearAt(names[-1], theta, parts, fixed))
        self.logits = self._layers[-1].output()

    def gradients(self, delta: Tensor) -> tuple[Tensors, list[Tensor]]:
        """By the tower's parameters and by the parts that are not fixed."""
        found: Tensors = {}
        inputs: list[Tensor] = []
        for layer, gate in self._downwards():
            own, inputs = layer.gradients(delta)
            found |= own
            if gate is not None:
                delta = inputs[0].mul_(gate)
        return found, inputs

    def tangent(self, direction: Mapping[str, Tensor], moved: Sequence[Tensor]) -> Tensor:
        """z' when theta moves along the direction and the parts that are not fixed by `moved`."""
        for layer, gate in zip(self._layers, self._gates, strict=False):
            moved = [layer.tangent(direction, moved).mul_(gate)]
        return self._layers[-1].tangent(direction, moved)

    def moved_gradients(self, turned: Tensor) -> tuple[Tensors, list[Tensor]]:
        """`gradients'` when delta moves by `turned`."""
        found: Tensors = {}
        inputs: list[Tensor] = []
        for layer, gate in self._downwards():
            own, inputs = layer.moved_gradients(turned)
            found |= own
            if gate is not None:
                turned = inputs[0].mul_(gate)
        return found, inputs

    def _downwards(self) -> list[tuple[LinearAt, Tensor | None]]:
        """The layers from the head on, each with the gate that its input went through."""
        return list(zip(reversed(self._layers), [*reversed(self._gates), None], strict=True))


class TowerNetworkAt:
    """A tower on numeric columns and embeddings, as `objectives.pearlmutter.NetworkAt`, at theta {name: [R, ...]}.

    `layers` are its linear layers, the head last. Of the table's columns those from `deep_width` on are first-order
    weights, which reach the logits directly, as `wide` does for numeric columns.
    """

    def __init__(
        self,
        theta: Mapping[str, Tensor],
        layers: Sequence[str],
        deep_width: int,
        numeric: Tensor,
        categorical: Tensor,
        masks: Sequence[Tensor] | None,
    ) -> None:
        self._names, self._numeric, self._ids, self._deep = list(theta), numeric, categorical.long(), deep_width
        self._alone = next(iter(theta.values())).shape[0] == 1
        own = self._own(theta)
        self._table = own.get(TABLE)
        embedded = None if self._table is None else gathered(self._table, categorical)
        parts, fixed = ([numeric], [True]) if numeric.shape[-1] else ([], [])
        if embedded is not None:
            parts, fixed = [*parts, embedded[..., :deep_width].flatten(-2)], [*fixed, False]
        masks = None if masks is None else [mask.squeeze(0) if self._alone else mask for mask in masks]
        self._tower = TowerAt(own, layers, parts, fixed, masks)
        self.logits = self._out(self._with_direct(self._tower.logits, embedded, own.get(WIDE)))

    def gradients(self, delta: Tensor) -> Tensors:
        delta = self._in(delta)
        return self._named(*self._tower.gradients(delta), delta)

    def tangent(self, direction: Mapping[str, Tensor]) -> Tensor:
        own = self._own({name: value.to(self.logits.dtype) for name, value in direction.items()})
        embedded = None if self._table is None else gathered(own[TABLE], self._ids)
        moved = [] if embedded is None else [embedded[..., : self._deep].flatten(-2)]
        return self._out(self._with_direct(self._tower.tangent(own, moved), embedded, own.get(WIDE)))

    def moved_gradients(self, moved: Tensor) -> Tensors:
        moved = self._in(moved)
        return self._named(*self._tower.moved_gradients(moved), moved)

    def _with_direct(self, logits: Tensor, embedded: Tensor | None, wide: Tensor | None) -> Tensor:
        """The tower's logits plus what the first-order weights add."""
        if embedded is not None and embedded.shape[-1] > self._deep:
            logits = logits + embedded[..., self._deep :].sum(-2)
        return logits if wide is None else logits + self._numeric @ wide

    def _named(self, found: Tensors, inputs: Sequence[Tensor], delta: Tensor) -> Tensors:
        """All gradients [R, ...] in the order of theta, from those of the tower and of its inputs."""
        if self._table is not None:
            rows = inputs[0].reshape(*inputs[0].shape[:-1], self._ids.shape[1], self._deep)
            if self._table.shape[-1] > self._deep:
                direct = delta.unsqueeze(-2).expand(*rows.shape[:-1], delta.shape[-1])
                rows = torch.cat([rows, direct], -1)
            found = found | {TABLE: scattered(rows, self._ids, self._table.shape[-2])}
        if WIDE in self._names:
            found = found | {WIDE: self._numeric.mT @ delta}
        return {name: self._out(found[name]) for name in self._names}

    def _own(self, tensors: Mapping[str, Tensor]) -> Tensors:
        return {name: self._in(value) for name, value in tensors.items()}

    def _in(self, value: Tensor) -> Tensor:
        return value.squeeze(0) if self._alone else value

    def _out(self, value: Tensor) -> Tensor:
        return value.unsqueeze(0) if self._alone else value
