"""How optimizers of an embedding table move one table: rows without a gradient stay where they are.

A table is [R, V, D]: R students, V rows, D numbers a row. What is said of one row depends on that row alone, so a step
may be taken on the rows that a batch names, [R, U, D], and gives what the whole table would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tgeokd_ray.objectives.rows import mean_square
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.updates import GAIN_EPS, Adagrad, Adam, Clock, Sgd, Update
from tgeokd_ray.objectives.vectors import Tensors, spread


@dataclass(frozen=True)
class RowwiseAdagrad:
    """Adagrad with one accumulator a row: `s = s + mean_d g_d^2; theta - lr g / (sqrt(s) + eps)`.

    A D-th of the memory of Adagrad's (FBGEMM's exact row-wise Adagrad, the default of TorchRec).
    """

    spec: OptimizerSpec
    parts: ClassVar[tuple[str, ...]] = ("second",)

    def start(self, part: str, value: Tensor) -> Tensor:
        del part
        return value.new_zeros(*value.shape[:-1], 1)

    def moved(self, gradient: Tensor, before: Mapping[str, Tensor]) -> Tensors:
        return {"second": before["second"] + mean_square(gradient)}

    def stepped(self, value: Tensor, gradient: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        moved = gradient * (spread(clock.rate, value) / after["second"].sqrt().add_(self.spec.eps))
        return torch.sub(value, moved, out=moved)

    def pulled(self, v: Tensor, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        """One number scales a row and moves with all of its gradient: `lr / b (v - g <g, v> / (D sqrt(s) b))` with
        `b = sqrt(s) + eps`."""
        root = self.moved(gradient, before)["second"].sqrt()
        scale = root + self.spec.eps
        along = (gradient * v).mean(-1, keepdim=True) / torch.where(root > 0, root, 1) / scale
        return spread(clock.rate, v) / scale * (v - gradient * along)

    def gain(self, like: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return (spread(clock.rate, like) / (after["second"].sqrt() + GAIN_EPS)).expand_as(like)


@dataclass(frozen=True)
class LazyAdam(Adam):
    """Adam on the rows whose gradient is not zero; the moments of all others wait, too.

    The bias corrections follow the steps of the run, as those of torch.optim.SparseAdam; eps is that of Adam.
    """

    def moved(self, gradient: Tensor, before: Mapping[str, Tensor]) -> Tensors:
        seen = _seen(gradient)
        return {
            part: torch.where(seen, moment, before[part]) for part, moment in super().moved(gradient, before).items()
        }

    def stepped(self, value: Tensor, gradient: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return torch.where(_seen(gradient), super().stepped(value, gradient, after, clock), value)

    def slope(self, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return torch.where(_seen(gradient), super().slope(gradient, before, clock), 0)


def _seen(gradient: Tensor) -> Tensor:
    """The rows [R, U, 1] that have a gradient."""
    return (gradient != 0).any(-1, keepdim=True)


ROW_UPDATES: Mapping[str, type[Sgd] | type[Adagrad] | type[RowwiseAdagrad] | type[LazyAdam]] = {
    "sgd": Sgd,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowwiseAdagrad,
    "lazy_adam": LazyAdam,
}


def row_update(spec: OptimizerSpec) -> Update:
    """The update of the tables of `spec`, whose `embedding` is not "dense"."""
    return ROW_UPDATES[spec.embedding](spec)
