"""How each kind of optimizer moves one tensor: its moments, its step, its slope, and its gain over many steps.

g the gradient that reaches the moments (after clipping and coupled decay), U(g) = theta - theta' the update. Formulas
are elementwise and in the order of torch.optim, so that one student moves as torch.optim moves it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.vectors import Tensors, spread

# Added to the root of the second moment in a gain, so that rows that were hardly seen do not rule a look-ahead.
GAIN_EPS = 1e-4


class Clock(NamedTuple):
    """Learning rates and Adam's bias corrections, all [R] in float64, as torch.optim computes them in Python."""

    rate: Tensor
    first: Tensor
    second: Tensor


class Update(Protocol):
    """One kind of optimizer on one tensor [R, ...]; `before` and `after` are its moments, by the names in `parts`."""

    parts: ClassVar[tuple[str, ...]]

    def moved(self, gradient: Tensor, before: Mapping[str, Tensor]) -> Tensors:
        """The moments after this gradient."""

    def stepped(self, value: Tensor, gradient: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        """The value after the step, without decoupled decay."""

    def start(self, part: str, value: Tensor) -> Tensor:
        """A moment before the first step."""

    def pulled(self, v: Tensor, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        """`(dU/dg)^T v` of this step."""

    def gain(self, like: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        """What a lasting change of g moves theta by in a step, elementwise and > 0, the second moment held fixed."""


class Elementwise(ABC):
    """What moves every number by its own gradient and moments: a moment has the shape of its tensor, and dU/dg is a
    diagonal, the `slope`."""

    def start(self, part: str, value: Tensor) -> Tensor:
        del part
        return torch.zeros_like(value)

    def pulled(self, v: Tensor, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return v * self.slope(gradient, before, clock)

    @abstractmethod
    def slope(self, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        """dU/dg of this step."""


@dataclass(frozen=True)
class Sgd(Elementwise):
    """`theta - lr g`, as torch.optim.SGD."""

    spec: OptimizerSpec
    parts: ClassVar[tuple[str, ...]] = ()

    def moved(self, gradient: Tensor, before: Mapping[str, Tensor]) -> Tensors:
        del gradient, before
        return {}

    def stepped(self, value: Tensor, gradient: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return value.addcmul(self._direction(gradient, after), -spread(clock.rate, value))

    def slope(self, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        del before
        return spread(clock.rate, gradient).expand_as(gradient)

    def gain(self, like: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        """The learning rate, with momentum, too: its slope in one step.

        A lasting change ends at `lr / (1 - momentum)` a step, and for small `lr H` a long unroll does point that way.
        But that gain makes `I - P H` explode from `lr H = 2 (1 - momentum)` on, where momentum itself is stable up to
        `2 (1 + momentum)`; the learning rate never does, and only the direction of a hypergradient counts.
        """
        return self.slope(like, after, clock)

    def _direction(self, gradient: Tensor, after: Mapping[str, Tensor]) -> Tensor:
        del after
        return gradient


@dataclass(frozen=True)
class Momentum(Sgd):
    """`m = momentum m + g; theta - lr m`, as torch.optim.SGD(momentum)."""

    parts: ClassVar[tuple[str, ...]] = ("first",)

    def moved(self, gradient: Tensor, before: Mapping[str, Tensor]) -> Tensors:
        return {"first": before["first"] * self.spec.momentum + gradient}

    def _direction(self, gradient: Tensor, after: Mapping[str, Tensor]) -> Tensor:
        del gradient
        return after["first"]


@dataclass(frozen=True)
class Nesterov(Momentum):
    """`m = momentum m + g; theta - lr (g + momentum m)`, as torch.optim.SGD(momentum, nesterov=True)."""

    def slope(self, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return super().slope(gradient, before, clock) * (1 + self.spec.momentum)

    def gain(self, like: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return Sgd.slope(self, like, after, clock)

    def _direction(self, gradient: Tensor, after: Mapping[str, Tensor]) -> Tensor:
        return gradient.add(after["first"], alpha=self.spec.momentum)


@dataclass(frozen=True)
class Adagrad(Elementwise):
    """`s = s + g^2; theta - lr g / (sqrt(s) + eps)` from s = 0, as torch.optim.Adagrad."""

    spec: OptimizerSpec
    parts: ClassVar[tuple[str, ...]] = ("second",)

    def moved(self, gradient: Tensor, before: Mapping[str, Tensor]) -> Tensors:
        return {"second": before["second"].addcmul(gradient, gradient)}

    def stepped(self, value: Tensor, gradient: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        moved = (spread(clock.rate, value) * gradient).div_(after["second"].sqrt().add_(self.spec.eps))
        return torch.sub(value, moved, out=moved)

    def slope(self, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        root = self.moved(gradient, before)["second"].sqrt()
        denominator = root + self.spec.eps
        bend = gradient / torch.where(root > 0, root, 1)  # d root / dg; where the root is 0 so is g
        return spread(clock.rate, gradient) * (1 - gradient / denominator * bend) / denominator

    def gain(self, like: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return spread(clock.rate, like) / (after["second"].sqrt() + GAIN_EPS)


@dataclass(frozen=True)
class Adam(Elementwise):
    """Adam with bias corrections, as torch.optim.Adam and AdamW."""

    spec: OptimizerSpec
    parts: ClassVar[tuple[str, ...]] = ("first", "second")

    def moved(self, gradient: Tensor, before: Mapping[str, Tensor]) -> Tensors:
        beta1, beta2 = self.spec.betas
        second = (before["second"] * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        return {"first": before["first"].lerp(gradient, 1 - beta1), "second": second}

    def stepped(self, value: Tensor, gradient: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        del gradient
        denominator = _root(after, clock).add_(self.spec.eps)
        moved = (spread(clock.rate / clock.first, value) * after["first"]).div_(denominator)
        return torch.sub(value, moved, out=moved)

    def slope(self, gradient: Tensor, before: Mapping[str, Tensor], clock: Clock) -> Tensor:
        after = self.moved(gradient, before)
        beta1, beta2 = self.spec.betas
        root = _root(after, clock)
        denominator = root + self.spec.eps
        # d root / dg = (1 - beta2) g / (c2 root); where the root is 0 so is g, and the term vanishes
        bend = gradient * spread((1 - beta2) / clock.second, gradient) / torch.where(root > 0, root, 1)
        mean = after["first"] / denominator
        return spread(clock.rate / clock.first, gradient) * (1 - beta1 - mean * bend) / denominator

    def gain(self, like: Tensor, after: Mapping[str, Tensor], clock: Clock) -> Tensor:
        return spread(clock.rate, like) / (_root(after, clock) + GAIN_EPS)


UPDATES: Mapping[str, type[Sgd | Adagrad | Adam]] = {
    "sgd": Sgd,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": Adam,
}


def _root(after: Mapping[str, Tensor], clock: Clock) -> Tensor:
    """The root of Adam's corrected second moment."""
    return after["second"].sqrt().div_(spread(clock.second.sqrt(), after["second"]))
