"""The outer gradient pulled back through K inner steps instead of one, by Hessian-vector products.

R students in the pack; theta student parameters, a ratios, J the outer loss, H the Hessian of the inner loss by theta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.objectives.optimizers import Preconditioner
from tgeokd_ray.objectives.vectors import Linear, Tensors, inner_products


class LookAhead(NamedTuple):
    """w {name: [R, ...]} with `dJ/da_i = -<w, dg/da_i>`, and how many of its terms were kept, [R] in 1 .. K."""

    w: Tensors
    terms: Tensor


def look_ahead(v: Mapping[str, Tensor], preconditioner: Preconditioner, hessian: Linear, num_steps: int) -> LookAhead:
    """`w = sum_{k < K} (I - P H - D)^k P v` for K = `num_steps` >= 1: the hypergradient through K preconditioned steps.

    Steps `theta' = theta - P g(theta, a) - D theta` (D: weight decay) on one batch move theta_K by `-sum_k (I - P H -
    D)^k P dg/da`. With diagonal P and D the transpose, applied to v = grad J, is `P p_k` with `p_0 = v` and `p_{k+1} =
    p_k - H P p_k - D p_k`: the outer gradient as it is k steps earlier. `hessian` must be the mean over all workers.
    A student's series ends before a term whose `<p_k, P p_k>` exceeds the first one's (P reaches 50 on cold rows, and
    the series explodes), so that w is at most K first terms long in that norm; mild growth of single terms is negative
    curvature, which a real unroll has, too. Nothing waits for the device: the K - 1 products are taken in any case.
    """
    scale, decay = preconditioner
    p = dict(v)
    w = {name: scale[name] * value for name, value in p.items()}
    term, first = w, inner_products(p, w)
    alive, terms = torch.ones_like(first, dtype=torch.bool), torch.ones_like(first)
    for _ in range(num_steps - 1):
        curved = hessian(term)
        p = {name: value - curved[name] for name, value in _without(p, decay).items()}
        size = inner_products(p, {name: scale[name] * value for name, value in p.items()})
        alive = alive & (size <= first)  # False also where it is not a number
        p = {name: torch.where(_like(alive, value), value, 0) for name, value in p.items()}
        term = {name: scale[name] * value for name, value in p.items()}
        w = {name: w[name] + value for name, value in term.items()}
        terms = terms + alive
    return LookAhead(w, terms)


def _without(p: Tensors, decay: Tensors | None) -> Tensors:
    return p if decay is None else {name: value - decay[name] * value for name, value in p.items()}


def _like(flags: Tensor, value: Tensor) -> Tensor:
    return flags.reshape(-1, *[1] * (value.dim() - 1))
