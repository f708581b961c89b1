"""Sums and softmax over a last axis of a few entries: classes, or a label and its teachers.

torch vectorises along that axis alone and takes every row by itself where it is short, which costs several times as
much on a CPU (benchmarks/method.py short_axes).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FEW_ADDED = 4  # up to here adding the entries is faster than a reduction
FEW_TURNED = 12  # up to here a copy with the axis before the rows pays for itself


def total(values: Tensor) -> Tensor:
    """The sum over the last axis, [..., K] to [...]: entry by entry where they are few."""
    if not 1 <= values.shape[-1] <= FEW_ADDED:
        return values.sum(-1)
    first, *others = values.unbind(-1)
    for other in others:
        first = first + other
    return first


def log_softmax(logits: Tensor) -> Tensor:
    """`logits - log sum exp logits` over the last axis, [..., K] to the same shape; a view if the entries are few."""
    return logits.log_softmax(-1) if _stays(logits) else _turned(torch.log_softmax, logits)


def softmax(logits: Tensor) -> Tensor:
    """`exp logits / sum exp logits` over the last axis, [..., K] to the same shape; a view if the entries are few."""
    return logits.softmax(-1) if _stays(logits) else _turned(torch.softmax, logits)


def _stays(logits: Tensor) -> bool:
    return logits.dim() < 2 or logits.shape[-1] > FEW_TURNED or logits.device.type != "cpu"


def _turned(function: Callable[[Tensor, int], Tensor], logits: Tensor) -> Tensor:
    """The function of the last axis, computed where the longest other axis lies innermost in memory."""
    sizes = logits.shape[:-1]
    rows = sizes.index(max(sizes))
    turned = logits.transpose(rows, -2).mT.contiguous()
    return function(turned, -2).mT.transpose(rows, -2)
