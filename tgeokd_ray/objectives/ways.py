"""Three ways to differentiate the inner loss twice: split reverse, forward mode, finite differences.

N rows, M teachers, R students in the pack; theta student parameters, a their ratios, g = dL/dtheta of the inner loss
`L = sum over students of the mean over rows, weighted by row_weights, of sum_m a_m losses_m`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.points import row_shares
from tgeokd_ray.objectives.short_axis import total
from tgeokd_ray.objectives.vectors import Tensors, norms, spread

T = TypeVar("T")

# What torch says of operations that it cannot differentiate a second time, or in forward mode.
UNSUPPORTED = ("is not implemented", "forward AD with")


@dataclass(frozen=True)
class Inner:
    """One worker's part of an inner batch at fixed ratios.

    `losses` [R, N, 1 + M] are `losses_of(theta)` at the leaves `theta`, their graph alive; `weights` [R, N, 1 + M] are
    detached, `row_weights` [N] of any sum. `losses_of` is deterministic: dropout masks are part of it, not drawn in it.
    """

    theta: Mapping[str, Tensor]
    losses: Tensor
    losses_of: Callable[[Tensors], Tensor]
    weights: Tensor
    row_weights: Tensor

    def gradients(self) -> Tensors:
        """g {name: [R, ...]} of the local rows; uses the graph up. Zeros for an empty batch."""
        return inner_gradient(self.theta, self.losses, self.weights, self.row_weights, create_graph=False)[0]

    def gradients_at(self, theta: Mapping[str, Tensor]) -> Tensors:
        """g at another theta."""
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        return replace(self, theta=leaves, losses=self.losses_of(leaves)).gradients()

    def along(self, slopes: Tensor) -> Tensor:
        """`-<w, dg/da>` [R, N, 1 + M] from the slopes of the losses along w."""
        return -slopes * row_shares(self.row_weights, slopes.dtype).unsqueeze(-1)


class Way(Protocol):
    """The local gradient g, products with its derivative by theta, and products with its derivative by the ratios.

    Everything is of the local rows and carries their share of the local weight: the caller averages over workers.
    """

    @property
    def gradients(self) -> Tensors:
        """g {name: [R, ...]}; zeros for an empty batch."""

    def hessian(self, direction: Mapping[str, Tensor]) -> Tensors:
        """`dg/dtheta direction`, {name: [R, ...]}; zeros for an empty batch."""

    def ratio_gradient(self, w: Mapping[str, Tensor]) -> Tensor:
        """dJ/da `-<w, dg/da>` [R, N, 1 + M], with the global w; the last call, after it the graph is used up."""


class Split:
    """Reverse mode twice over the graph of the training pass: exact, and the network is not run again.

    ConfigError where the student holds an operation whose gradient cannot be differentiated.
    """

    def __init__(self, inner: Inner) -> None:
        self._theta = inner.theta
        with _supported("split"):
            self.gradients, self._coefficients = inner_gradient(
                inner.theta, inner.losses, inner.weights, inner.row_weights, create_graph=True
            )

    def hessian(self, direction: Mapping[str, Tensor]) -> Tensors:
        if self._empty:
            return {name: torch.zeros_like(value) for name, value in direction.items()}
        return dict(zip(self._theta, self._pulled(direction, list(self._theta.values()), keep=True), strict=True))

    def ratio_gradient(self, w: Mapping[str, Tensor]) -> Tensor:
        if self._empty:
            return torch.zeros_like(self._coefficients)
        return -self._pulled(w, [self._coefficients], keep=False)[0]

    @property
    def _empty(self) -> bool:
        """No rows: torch cannot differentiate the gradient of an embedding of no rows again."""
        return self._coefficients.shape[1] == 0

    def _pulled(self, cotangent: Mapping[str, Tensor], inputs: list[Tensor], *, keep: bool) -> tuple[Tensor, ...]:
        """The vector-Jacobian product, as the gradient of an inner product: torch.autograd.grad loads sympy (.8 s) to
        check the shapes of `grad_outputs`."""
        parts = [(g * cotangent[name]).sum() for name, g in self.gradients.items() if g.requires_grad]
        with _supported("split"):
            return torch.autograd.grad(
                torch.stack(parts).sum(), inputs, retain_graph=keep, allow_unused=True, materialize_grads=True
            )


class Forward:
    """Forward mode (torch.func.jvp) of the losses and of their gradient: exact; no graph is differentiated twice.

    For students whose backward pass torch cannot differentiate (torch.compile). ConfigError where the student holds an
    operation without a forward derivative.
    """

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self._theta = {name: value.detach() for name, value in inner.theta.items()}

    @cached_property
    def gradients(self) -> Tensors:
        return self._inner.gradients()

    def hessian(self, direction: Mapping[str, Tensor]) -> Tensors:
        return self._pushed(torch.func.grad(self._loss), direction)

    def ratio_gradient(self, w: Mapping[str, Tensor]) -> Tensor:
        return self._inner.along(self._pushed(self._inner.losses_of, w))

    def _loss(self, theta: Tensors) -> Tensor:
        inner = self._inner
        losses = inner.losses_of(theta)
        return (total(inner.weights * losses) * row_shares(inner.row_weights, losses.dtype)).sum()

    def _pushed(self, function: Callable[[Tensors], T], direction: Mapping[str, Tensor]) -> T:
        with _supported("forward"):
            tangent: T = torch.func.jvp(function, (self._theta,), (_in_type_of(self._theta, direction),))[1]
        return tangent


class Finite:
    """Central differences of the losses and of their gradient along the direction, for any student.

    Each student moves by about `eps^(1/3) * norm(theta)` either way, eps the spacing of theta's type at 1, which
    balances truncation against rounding: relative errors of about 1e-8 in float64 and 1e-3 in float32, where no ReLU
    turns on the way. Ratios and dropout masks are the same on both sides.
    """

    def __init__(self, inner: Inner) -> None:
        self._inner = inner

    @cached_property
    def gradients(self) -> Tensors:
        return self._inner.gradients()

    def hessian(self, direction: Mapping[str, Tensor]) -> Tensors:
        direction = _in_type_of(self._inner.theta, direction)
        size = self._size(direction)
        above, below = (self._inner.gradients_at(self._moved(direction, sign * size)) for sign in (1, -1))
        return {name: (value - below[name]) / spread(2 * size, value) for name, value in above.items()}

    @torch.no_grad()
    def ratio_gradient(self, w: Mapping[str, Tensor]) -> Tensor:
        w = _in_type_of(self._inner.theta, w)
        size = self._size(w)
        above, below = (self._inner.losses_of(self._moved(w, sign * size)) for sign in (1, -1))
        return self._inner.along((above - below) / spread(2 * size, above))

    def _size(self, direction: Mapping[str, Tensor]) -> Tensor:
        """How many times the direction each student moves, [R]; 1 where the direction is zero. A power of two, so that
        the last bits of a length, which the order of its sum decides, change nothing."""
        length, reach = norms(direction), norms(self._inner.theta).detach()
        step = torch.finfo(length.dtype).eps ** (1 / 3) * reach
        size = torch.where((length > 0) & (step > 0), step / length, 1)
        return torch.ldexp(torch.ones_like(size), torch.frexp(size).exponent - 1)

    def _moved(self, direction: Mapping[str, Tensor], size: Tensor) -> Tensors:
        theta = self._inner.theta.items()
        return {name: value.detach() + spread(size, value) * direction[name] for name, value in theta}


WAYS: Mapping[str, type[Split] | type[Forward] | type[Finite]] = {"split": Split, "forward": Forward, "finite": Finite}


def inner_gradient(
    theta: Mapping[str, Tensor], losses: Tensor, weights: Tensor, row_weights: Tensor, *, create_graph: bool
) -> tuple[Tensors, Tensor]:
    """Gradients {name: [R, ...]} of the inner loss, and the ratio [R, N, 1 + M] as the leaf they depend on.

    Theta are the leaves that `losses` [R, N, 1 + M] were computed from. With `create_graph` the gradients can be
    differentiated by the returned leaf. Zeros for an empty batch and for parameters without part in the loss.
    """
    coefficients = weights.detach().requires_grad_(create_graph)
    loss = (total(coefficients * losses) * row_shares(row_weights, losses.dtype)).sum()
    gradients = torch.autograd.grad(
        loss, list(theta.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(theta, gradients, strict=True)), coefficients


def _in_type_of(theta: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Tensors:
    """The direction in the type that steps are computed in, which may be wider than that of an optimizer's state."""
    return {name: direction[name].to(value.dtype) for name, value in theta.items()}


@contextmanager
def _supported(way: str) -> Iterator[None]:
    """What torch cannot differentiate, as a ConfigError that says what to use instead."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in UNSUPPORTED):
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"distill.fusion.hypergradient={way} cannot differentiate an operation of the student: {reason}",
            fix="use --set distill.fusion.hypergradient=finite; EmbeddingBag and fused attention support no other way",
        ) from error
