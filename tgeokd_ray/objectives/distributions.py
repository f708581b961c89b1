"""Summaries of class distributions that look at no label and do not grow with C.

C classes, M teachers; distributions are [..., C] and sum to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgeokd_ray.objectives.short_axis import total

SMALLEST_IN_ENTROPY = 1e-8
SMALLEST_SHARED = 1e-4  # of the other's class, before its logarithm


def entropy(distribution: Tensor) -> Tensor:
    """`-sum p log p` in nats, [..., C] to [...]; 0 for a certain distribution, log C for the uniform one."""
    return -total(distribution * distribution.clamp_min(SMALLEST_IN_ENTROPY).log())


def margin(distribution: Tensor) -> Tensor:
    """The largest probability less the second largest, [..., C] to [...]; in [0, 1]."""
    best, second = distribution.topk(2, -1).values.unbind(-1)
    return best - second


def agreement(one: Tensor, other: Tensor) -> list[Tensor]:
    """How two distributions of one shape [..., C] meet, four tensors [...]: overlap `sum p q`, distance `|p - q|`, and
    the logarithm of what each gives to the other's largest class, at least log 1e-4 (`one`'s first)."""
    return [
        total(one * other),
        distance(one, other),
        _at_largest_of(other, one),
        _at_largest_of(one, other),
    ]


def distance(one: Tensor, other: Tensor) -> Tensor:
    """`|p - q|`, the length of the edge between two distributions, [..., C] to [...]; in [0, sqrt 2]."""
    length: Tensor = torch.linalg.vector_norm(one - other, dim=-1)
    return length


def disagreement(teachers: Tensor) -> Tensor:
    """How far M teachers are apart on a row, [..., M, C] to [..., 2]; both 0 if and only if all agree.

    The Jensen-Shannon divergence `H(mean T) - mean H(T)` in nats, at most log M (Lin, 1991), and the root of the
    variance over teachers, summed over classes.
    """
    mean = teachers.mean(-2)
    divergence = (entropy(mean) - entropy(teachers).mean(-1)).clamp_min(0)
    spread = (teachers - mean.unsqueeze(-2)).square().mean(-2).sum(-1).sqrt()
    return torch.stack([divergence, spread], -1)


def _at_largest_of(other: Tensor, one: Tensor) -> Tensor:
    """log `one` at the largest class of `other`."""
    return one.gather(-1, other.argmax(-1, keepdim=True)).squeeze(-1).clamp_min(SMALLEST_SHARED).log()
