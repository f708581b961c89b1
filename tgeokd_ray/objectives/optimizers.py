"""Functional optimizers on dicts of tensors with a leading axis R, and their exact derivative by the gradient.

theta parameters, g gradient, v a vector of theta's shape, U(g) = theta - theta' the update. Formulas are elementwise
and in the order of torch.optim, so that one student moves as torch.optim moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.objectives.settings import OptimizerSpec

__all__ = ["Optimizer", "OptimizerSpec"]

CLIP_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_

Tensors = dict[str, Tensor]


class _Clock(NamedTuple):
    """Learning rates and Adam's bias corrections, all [R] in float64, as torch.optim computes them in Python."""

    rate: Tensor
    first: Tensor
    second: Tensor


class Optimizer:
    """One optimizer for a pack: every tensor is [R, ...], the learning rate [R], and each student has its own clock."""

    def __init__(self, spec: OptimizerSpec) -> None:
        self.spec = spec
        self._adaptive = spec.kind in ("adam", "adamw")

    def init(self, theta: Mapping[str, Tensor]) -> Tensors:
        """Moments before the first step: `step` [R] float64, `first.NAME` (not for sgd) and `second.NAME` (adam)."""
        reference = next(iter(theta.values()))
        moments = {"step": torch.zeros(reference.shape[0], dtype=torch.float64, device=reference.device)}
        kept = {"sgd": (), "momentum": ("first",)}.get(self.spec.kind, ("first", "second"))
        return moments | {f"{part}.{name}": torch.zeros_like(value) for part in kept for name, value in theta.items()}

    @torch.no_grad()
    def update(
        self,
        theta: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        learning_rate: Tensor,
    ) -> tuple[Tensors, Tensors]:
        """New parameters and new moments; pure, the inputs are left as they are and nothing is recorded by autograd."""
        grads, _ = self._clip(grads)
        new_moments = {"step": moments["step"] + 1}
        clock = self._clock(new_moments["step"], learning_rate)
        new_theta = {}
        for name, value in theta.items():
            gradient = self._decayed(grads[name], value)
            new_moments |= self._moved(name, gradient, moments)
            new_theta[name] = self._stepped(name, value, gradient, new_moments, clock)
        return new_theta, new_moments

    @torch.no_grad()
    def pullback(
        self,
        theta: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        learning_rate: Tensor,
        v: Mapping[str, Tensor],
    ) -> Tensors:
        """`(dU/dg)^T v` with the moments BEFORE the update: closed form, exact through clipping and its norm.

        Finite where the gradient and the second moment are zero (rows never seen), although the slope there is
        `learning_rate / eps` large: start outer steps after a warm-up.
        """
        clipped, norms = self._clip(grads)
        clock = self._clock(moments["step"] + 1, learning_rate)
        pulled = {}
        for name, value in theta.items():
            gradient = self._decayed(clipped[name], value)
            pulled[name] = v[name] * self._slope(name, gradient, moments, clock)
        return pulled if norms is None else self._through_clip(grads, pulled, norms)

    def _decayed(self, gradient: Tensor, value: Tensor) -> Tensor:
        if self.spec.weight_decay and self.spec.kind != "adamw":
            return gradient.add(value, alpha=self.spec.weight_decay)
        return gradient

    def _moved(self, name: str, gradient: Tensor, moments: Mapping[str, Tensor]) -> Tensors:
        """The moments of one tensor after this gradient."""
        if self.spec.kind == "sgd":
            return {}
        first = moments[f"first.{name}"]
        if self.spec.kind == "momentum":
            return {f"first.{name}": first * self.spec.momentum + gradient}
        beta1, beta2 = self.spec.betas
        second = (moments[f"second.{name}"] * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        return {f"first.{name}": first.lerp(gradient, 1 - beta1), f"second.{name}": second}

    def _stepped(self, name: str, value: Tensor, gradient: Tensor, moved: Tensors, clock: _Clock) -> Tensor:
        if not self._adaptive:
            direction = gradient if self.spec.kind == "sgd" else moved[f"first.{name}"]
            return value.addcmul(direction, -_spread(clock.rate, value))
        if self.spec.kind == "adamw" and self.spec.weight_decay:
            value = value * _spread(1 - clock.rate * self.spec.weight_decay, value)
        root = moved[f"second.{name}"].sqrt() / _spread(clock.second.sqrt(), value)
        denominator = root.add_(self.spec.eps)
        return value - _spread(clock.rate / clock.first, value) * moved[f"first.{name}"] / denominator

    def _slope(self, name: str, gradient: Tensor, moments: Mapping[str, Tensor], clock: _Clock) -> Tensor:
        """dU/dg of one tensor, elementwise, at the gradient that reaches the moments."""
        if not self._adaptive:
            return _spread(clock.rate, gradient)
        moved = self._moved(name, gradient, moments)
        beta1, beta2 = self.spec.betas
        root = moved[f"second.{name}"].sqrt() / _spread(clock.second.sqrt(), gradient)
        denominator = root + self.spec.eps
        # d root / dg = (1 - beta2) g / (c2 root); where the root is 0 so is g, and the term vanishes
        bend = gradient * _spread((1 - beta2) / clock.second, gradient) / torch.where(root > 0, root, 1)
        mean = moved[f"first.{name}"] / denominator
        return _spread(clock.rate / clock.first, gradient) * (1 - beta1 - mean * bend) / denominator

    def _clock(self, step: Tensor, learning_rate: Tensor) -> _Clock:
        beta1, beta2 = self.spec.betas
        return _Clock(learning_rate.double(), 1 - beta1**step, 1 - beta2**step)

    def _clip(self, grads: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """The clipped gradients and the norms [R] before clipping; as they are and None without clipping."""
        if self.spec.clip_norm is None:
            return grads, None
        norms = _norms(grads)
        factor = (self.spec.clip_norm / (norms + CLIP_EPS)).clamp(max=1.0)
        return {name: value * _spread(factor, value) for name, value in grads.items()}, norms

    def _through_clip(self, grads: Mapping[str, Tensor], pulled: Tensors, norms: Tensor) -> Tensors:
        """The transposed derivative of `g * min(1, clip / (norm + 1e-6))`: its norm moves with g where it clips."""
        assert self.spec.clip_norm is not None
        factor = self.spec.clip_norm / (norms + CLIP_EPS)
        products = [_rows(grads[name] * value).sum(1) for name, value in pulled.items()]
        along = torch.stack(products).sum(0)
        turn = factor / (norms + CLIP_EPS) * along / norms.clamp_min(torch.finfo(norms.dtype).tiny)
        turn = torch.where(factor < 1, turn, 0)
        factor = factor.clamp(max=1.0)
        return {
            name: value * _spread(factor, value) - grads[name] * _spread(turn, value) for name, value in pulled.items()
        }


def _norms(tensors: Mapping[str, Tensor]) -> Tensor:
    """The norm [R] of each student over all its tensors, as the norm of its tensors' norms."""
    parts = torch.stack([torch.linalg.vector_norm(_rows(value), dim=1) for value in tensors.values()])
    return parts.square().sum(0).sqrt()


def _rows(value: Tensor) -> Tensor:
    """[R, ...] as [R, K], also where a parameter is one number."""
    return value.reshape(value.shape[0], -1)


def _spread(per_student: Tensor, like: Tensor) -> Tensor:
    """A value [R] in the type of `like`, shaped to broadcast over its other axes."""
    return per_student.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))
