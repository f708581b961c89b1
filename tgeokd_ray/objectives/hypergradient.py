"""The exact one-step hypergradient by split reverse, between whose halves workers average.

N rows, M teachers, R students in the pack; theta student parameters, omega fusion parameters, J the outer loss.
With g = dL/dtheta and theta' = theta - U(g):  dJ/da_i = -<(dU/dg)^T grad J(theta'), dg/da_i>.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tgeokd_ray.objectives.points import Context, Points, row_shares


def inner_gradient(
    theta: Mapping[str, Tensor], losses: Tensor, weights: Tensor, row_weights: Tensor, *, create_graph: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients {name: [R, ...]} of the inner loss, and the ratio [R, N, 1 + M] as the leaf they depend on.

    L = sum over students of the mean over local rows, weighted by `row_weights` [N], of `sum_m weights * losses`
    (both [R, N, 1 + M]). Theta are the leaves that `losses` were computed from. With `create_graph` the gradients
    can be differentiated by the returned leaf. Zeros for an empty batch and for parameters without part in L.
    """
    coefficients = weights.detach().requires_grad_(create_graph)
    loss = ((coefficients * losses).sum(-1) * row_shares(row_weights, losses.dtype)).sum()
    gradients = torch.autograd.grad(
        loss, list(theta.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(theta, gradients, strict=True)), coefficients


def ratio_gradient(grads: Mapping[str, Tensor], coefficients: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """dJ/da [R, N, 1 + M] of the local rows, `-<w, dg/da>`, with w = `Optimizer.pullback` of the outer gradient.

    `grads` and `coefficients` come from `inner_gradient(create_graph=True)`, whose graph is used up. On several workers
    w is the global one; d carries the local share of each row's weight, as the local gradient does.
    """
    if coefficients.shape[1] == 0:  # torch cannot differentiate the gradient of an embedding of no rows again
        return torch.zeros_like(coefficients)
    names = [name for name, gradient in grads.items() if gradient.requires_grad]
    return _pulled([grads[name] for name in names], [coefficients], [-w[name] for name in names])[0]


def fusion_gradient(
    omega: Mapping[str, Tensor], weights: Tensor, d: Tensor, points: Points, context: Context
) -> dict[str, Tensor]:
    """Gradients {name: [R, ...]} of omega: d back-propagated through the rule's `weights` [R, N, 1 + M].

    d is divided by its mean size over the global batch per student: each d_i holds its row's share
    of the weights, so that mean is the sum over rows of mean |d|. The caller averages the result over workers with
    weights `points.row_weights.sum()`. Zeros for an empty batch, and where d is zero everywhere.
    """
    size = context.mean(d.abs().mean(-1).sum(-1), points.row_weights.sum())
    scaled = d / size.clamp_min(torch.finfo(d.dtype).tiny).reshape(-1, 1, 1)
    return dict(zip(omega, _pulled([weights], list(omega.values()), [scaled]), strict=True))


def _pulled(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The vector-Jacobian product, as the gradient of an inner product: torch.autograd.grad loads sympy (.8 s) to check
    the shapes of `grad_outputs`."""
    product = torch.stack([(output * cotangent).sum() for output, cotangent in zip(outputs, cotangents, strict=True)])
    return torch.autograd.grad(product.sum(), list(inputs))
