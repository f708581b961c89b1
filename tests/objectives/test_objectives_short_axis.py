"""Reductions over a short last axis against torch's own: values, gradients, second derivatives, and where rows lie."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tgeokd_ray.objectives.short_axis import log_softmax, softmax, total

PAIRS = {
    "total": (total, lambda x: x.sum(-1)),
    "log_softmax": (log_softmax, lambda x: x.log_softmax(-1)),
    "softmax": (softmax, lambda x: x.softmax(-1)),
}
SHAPES = [(7, 2), (3, 7, 5), (7, 1, 5), (2, 7, 3, 4), (3, 7, 40), (0, 5), (2, 0, 3), (7, 1), (5,)]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_torch(name: str, shape: tuple[int, ...]) -> None:
    ours, theirs = PAIRS[name]
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    cotangent = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def both(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        out = function(values)
        (gradient,) = torch.autograd.grad((out.square().exp() * 0.1).sum(), values, create_graph=True)
        (second,) = torch.autograd.grad((gradient * cotangent).sum(), values)
        return out, gradient, second

    for found, expected in zip(both(ours), both(theirs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_forward_derivatives_and_vmap(name: str) -> None:
    ours, theirs = PAIRS[name]
    values = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found, expected = (torch.func.jvp(f, (values,), (values.flip(0),))[1] for f in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(ours)(values), theirs(values), rtol=1e-12, atol=1e-12)


def test_nothing_over_no_entries() -> None:
    assert torch.equal(total(torch.zeros(4, 0)), torch.zeros(4))
