"""Functional optimizers on dicts of tensors with a leading axis R, and their exact derivative by the gradient.

theta parameters, g gradient, v a vector of theta's shape, U(g) = theta - theta' the update. What one kind does to one
tensor is in `updates`; here are clocks, clipping and decay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.objectives.row_updates import row_update
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.updates import UPDATES, Clock, Update
from tgeokd_ray.objectives.vectors import Tensors, inner_products, norms, spread

__all__ = ["Optimizer", "OptimizerSpec", "Preconditioner"]

CLIP_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_


class Preconditioner(NamedTuple):
    """An optimizer whose moments stand still: `theta' = theta - scale g - decay theta`, both {name: [R, ...]}.

    The positive diagonal `scale` is P of the look-ahead, `decay` that of weight decay; None without any.
    """

    scale: Tensors
    decay: Tensors | None = None


class Optimizer:
    """One optimizer for a pack: every tensor is [R, ...], the learning rate [R], and each student has its own clock.

    `named` are the tensors that are embedding tables, and `tables` those of them that move row by row, in a way of
    their own (`OptimizerSpec`): all or none.
    """

    def __init__(self, spec: OptimizerSpec, named: Collection[str] = ()) -> None:
        self.spec, self.named = spec, frozenset(named)
        self._kind: Update = UPDATES[spec.kind](spec)
        self._rows: Update | None = None if spec.embedding == "dense" else row_update(spec)
        self.tables = self.named if self._rows is not None else frozenset()

    def init(self, theta: Mapping[str, Tensor]) -> Tensors:
        """Moments before the first step: `step` [R] float64, and per tensor `first.NAME` (momentum, nesterov, adam,
        adamw, lazy_adam) and `second.NAME` (all but sgd, momentum and nesterov), of the shape that it asks for."""
        reference = next(iter(theta.values()))
        moments = {"step": torch.zeros(reference.shape[0], dtype=torch.float64, device=reference.device)}
        for name, value in theta.items():
            kind = self._of(name)
            moments |= {f"{part}.{name}": kind.start(part, value) for part in kind.parts}
        return moments

    def moments_of(self, name: str) -> tuple[str, ...]:
        """The names of a tensor's moments."""
        return tuple(f"{part}.{name}" for part in self._of(name).parts)

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
            kind, time = self._of(name), self._time(name, clock)
            gradient = self._decayed(name, grads[name], value)
            after = kind.moved(gradient, self._own(moments, name))
            new_moments |= {f"{part}.{name}": moment for part, moment in after.items()}
            if self._decoupled and name not in self.tables:
                value = value * spread(1 - clock.rate * self.spec.weight_decay, value)
            new_theta[name] = kind.stepped(value, gradient, after, time)
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
        clipped, sizes = self._clip(grads)
        clock = self._clock(moments["step"] + 1, learning_rate)
        pulled = {}
        for name, value in theta.items():
            gradient, own = self._decayed(name, clipped[name], value), self._own(moments, name)
            pulled[name] = self._of(name).pulled(v[name], gradient, own, self._time(name, clock))
        return pulled if sizes is None else self._through_clip(grads, pulled, sizes)

    @torch.no_grad()
    def preconditioner(
        self,
        theta: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        learning_rate: Tensor,
    ) -> Preconditioner:
        """The optimizer of this step as a linear one, from the moments BEFORE the update, as `pullback`.

        P is `lr` for sgd, momentum and nesterov, `lr / (sqrt(v) + 1e-4)` with the second moment v AFTER the update
        (bias-corrected for adam and adamw), times the clipping factor of this step, which is held fixed like v.
        Coupled decay passes P but is not clipped; decoupled decay is `learning_rate * weight_decay`.
        """
        clipped, sizes = self._clip(grads)
        clock = self._clock(moments["step"] + 1, learning_rate)
        gains = {}
        for name, value in theta.items():
            after = self._of(name).moved(self._decayed(name, clipped[name], value), self._own(moments, name))
            gains[name] = self._of(name).gain(value, after, self._time(name, clock))
        scale = gains if sizes is None else _times(gains, self._factor(sizes).clamp(max=1.0))
        if not self.spec.weight_decay:
            return Preconditioner(scale)
        rates = {name: spread(clock.rate, value) for name, value in theta.items()} if self._decoupled else gains
        decay = {name: 0.0 if name in self.tables else self.spec.weight_decay for name in theta}
        return Preconditioner(scale, {name: rate * decay[name] for name, rate in rates.items()})

    @property
    def _decoupled(self) -> bool:
        return self.spec.kind == "adamw" and self.spec.weight_decay > 0

    def _own(self, moments: Mapping[str, Tensor], name: str) -> Tensors:
        return {part: moments[f"{part}.{name}"] for part in self._of(name).parts}

    def _of(self, name: str) -> Update:
        return self._rows if self._rows is not None and name in self.tables else self._kind

    def _time(self, name: str, clock: Clock) -> Clock:
        return clock._replace(rate=clock.rate * self.spec.embedding_rate) if name in self.tables else clock

    def _decayed(self, name: str, gradient: Tensor, value: Tensor) -> Tensor:
        if self.spec.weight_decay and not self._decoupled and name not in self.tables:
            return gradient.add(value, alpha=self.spec.weight_decay)
        return gradient

    def _clock(self, step: Tensor, learning_rate: Tensor) -> Clock:
        beta1, beta2 = self.spec.betas
        return Clock(learning_rate.double(), 1 - beta1**step, 1 - beta2**step)

    def _clip(self, grads: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """The clipped gradients and the norms [R] before clipping; as they are and None without clipping."""
        if self.spec.clip_norm is None:
            return grads, None
        sizes = norms(grads)
        return _times(grads, self._factor(sizes).clamp(max=1.0)), sizes

    def _factor(self, sizes: Tensor) -> Tensor:
        """`clip / norm` [R]; below 1 where clipping is active."""
        assert self.spec.clip_norm is not None
        return self.spec.clip_norm / (sizes + CLIP_EPS)

    def _through_clip(self, grads: Mapping[str, Tensor], pulled: Tensors, sizes: Tensor) -> Tensors:
        """The transposed derivative of `g * min(1, clip / (norm + 1e-6))`: its norm moves with g where it clips."""
        factor = self._factor(sizes)
        along = inner_products(grads, pulled)
        turn = factor / (sizes + CLIP_EPS) * along / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)
        turn = torch.where(factor < 1, turn, 0)
        factor = factor.clamp(max=1.0)
        return {
            name: value * spread(factor, value) - grads[name] * spread(turn, value) for name, value in pulled.items()
        }


def _times(tensors: Mapping[str, Tensor], factor: Tensor) -> Tensors:
    """Every student's tensors times its own factor [R]."""
    return {name: value * spread(factor, value) for name, value in tensors.items()}
