"""A cross layer's step under autocast on a CPU, in fewer passes over its numbers than torch's operations take.

N rows, W features, R students. Features and what is crossed stay in float32, products come in autocast's type; mixed
operations of torch would write every product down in float32 and each result once more in the narrow type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Gradient = Tensor | None


def cross(features: Tensor, product: Tensor, crossed: Tensor) -> tuple[Tensor, Tensor]:
    """`features * product + crossed`, [..., N, W] each, in the type of the features and in that of the product.

    The same bits as torch's own operations give, once differentiated, too. It may be differentiated as often as they,
    in reverse and forward; second derivatives are the same up to the order of their sums. Not under torch.func.vmap.
    """
    total: tuple[Tensor, Tensor] = _cross(features.expand_as(product), product, crossed.expand_as(product))
    return total


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(features: Tensor, product: Tensor, crossed: Tensor) -> tuple[Tensor, Tensor]:
        total = product.to(features.dtype, copy=True).mul_(features).add_(crossed)
        return total, total.to(product.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        features, product, _ = inputs
        del output
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(features, product)
        ctx.save_for_forward(features, product)

    @staticmethod
    def backward(ctx: Any, wide: Gradient, narrow: Gradient) -> tuple[Gradient, Gradient, Gradient]:
        features, product = ctx.saved_tensors
        if narrow is not None:
            widened = narrow.to(features.dtype, copy=True)
            wide = widened if wide is None else widened.add_(wide)
        if wide is None:
            return None, None, None
        passed = wide.view_as(wide)  # a node of its own, as that of an addition: its gradients are then added up first
        along = product.to(wide.dtype, copy=True).mul_(wide) if ctx.needs_input_grad[0] else None
        return along, (wide * features).to(product.dtype), passed

    @staticmethod
    def jvp(ctx: Any, features: Gradient, product: Gradient, crossed: Gradient) -> tuple[Tensor, Tensor]:
        at_features, at_product = ctx.saved_tensors
        parts = [
            None if product is None else product * at_features,
            None if features is None else features * at_product,
            crossed,
        ]
        first, *others = [part for part in parts if part is not None]  # in torch's order
        moved = sum(others, first)
        return moved, moved.to(at_product.dtype)


_cross: Any = _Cross.apply
