"""Sums and softmax over a label and a teacher, or over a few classes: ours against torch's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from figures import Figure
from torch import Tensor

from tgeokd_ray.objectives import short_axis

STUDENTS, ROWS = 15, 1024
Function = Callable[[Tensor], Tensor]
PAIRS: dict[str, tuple[Function, Function, int]] = {
    "sum_of_2": (short_axis.total, lambda x: x.sum(-1), 2),
    "softmax_of_2": (short_axis.softmax, lambda x: x.softmax(-1), 2),
    "log_softmax_of_5_and_gradient": (short_axis.log_softmax, lambda x: x.log_softmax(-1), 5),
}


def short_axes(quick: bool) -> Iterator[Figure]:
    """Time over torch's for the rows of 15 students, by turns."""
    for dtype in (torch.float64, torch.float32):
        for name, (ours, theirs, entries) in PAIRS.items():
            values = torch.randn(STUDENTS, ROWS, entries, dtype=dtype, generator=torch.Generator().manual_seed(0))
            timed = _with_gradient if name.endswith("gradient") else _forward
            pairs = [(timed(ours, values), timed(theirs, values)) for _ in range(10 if quick else 50)]
            ratios = sorted(one / other for one, other in pairs)
            value, spread = median(ratios), [ratios[len(ratios) // 4], ratios[-len(ratios) // 4]]
            ours_us, torch_us = (round(1e6 * median(side)) for side in zip(*pairs, strict=True))
            context = {"ours_us": ours_us, "torch_us": torch_us, "spread": "quartiles"}
            kind = str(dtype).removeprefix("torch.")
            yield Figure(f"method.{name}.{kind}.vs_torch", value, "ratio", "<= 1", value <= 1, spread, context)


def _forward(function: Function, values: Tensor) -> float:
    began = time.perf_counter()
    function(values)
    return time.perf_counter() - began


def _with_gradient(function: Function, values: Tensor) -> float:
    leaf = values.clone().requires_grad_()
    began = time.perf_counter()
    torch.autograd.grad(function(leaf), leaf, values)
    return time.perf_counter() - began
