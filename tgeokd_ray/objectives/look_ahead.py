"""The outer gradient pulled back through K inner steps instead of one, by Hessian-vector products.

R students in the pack; theta student parameters, a ratios, J the outer loss, H the Hessian of the inner loss by theta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.objectives.optimizers import Preconditioner
from tgeokd_ray.objectives.vectors import Linear, Tensors, flattened, unflattened


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
    curvature, which a real unroll has, too. H may be that of other rows at each call, as it is for K real steps.
    Nothing waits for the device: the K - 1 products are taken in any case.
    """
    scale, p = (flattened({name: part[name] for name in v}) for part in (preconditioner.scale, v))
    decays = preconditioner.decay
    decay = None if decays is None else flattened({name: decays[name].expand_as(value) for name, value in v.items()})
    w = term = scale * p
    first = (p * w).sum(1)
    alive, terms = torch.ones_like(first, dtype=torch.bool), torch.ones_like(first)
    for _ in range(num_steps - 1):
        curved = hessian(unflattened(term, v))
        kept = p if decay is None else p - decay * p
        p = kept - flattened({name: curved[name] for name in v})
        term = scale * p
        alive = alive & ((p * term).sum(1) <= first)  # False also where it is not a number
        p, term = (torch.where(alive.unsqueeze(1), value, 0) for value in (p, term))
        w = w + term
        terms = terms + alive
    return LookAhead(unflattened(w, v), terms)
