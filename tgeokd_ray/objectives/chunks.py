"""A batch in chunks: one chunk's graph is in memory at a time, and everything is that of the whole batch.

N rows in chunks, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.objectives.vectors import Tensors
from tgeokd_ray.objectives.ways import Way


class Gradient(NamedTuple):
    """The local gradient alone, of a batch that nothing more is asked of."""

    gradients: Tensors


class Chunks:
    """A way (`ways.Way`) for a batch whose chunks come from `parts`, which are called anew whenever one is needed.

    A chunk counts in every mean by the share of its rows in the weight of all, `shares` [chunks]. Each product with the
    Hessian takes one more pass over the chunks. Where the chunks are gradients, that is all it has.
    """

    def __init__(self, parts: Sequence[Callable[[], Way | Gradient]], shares: Tensor) -> None:
        self._parts, self._shares = parts, shares

    @cached_property
    def gradients(self) -> Tensors:
        """Those of the whole batch, by one pass over the chunks; zeros without rows."""
        return _sum((share, part.gradients) for share, part in self._all())

    def hessian(self, direction: Mapping[str, Tensor]) -> Tensors:
        return _sum((share, way.hessian(direction)) for share, way in self._ways())

    def ratio_gradient(self, w: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([share * way.ratio_gradient(w) for share, way in self._ways()], 1)

    def _all(self) -> Iterator[tuple[Tensor, Way | Gradient]]:
        return ((share, part()) for share, part in zip(self._shares, self._parts, strict=True))

    def _ways(self) -> Iterator[tuple[Tensor, Way]]:
        for share, way in self._all():
            assert not isinstance(way, Gradient)
            yield share, way


def _sum(parts: Iterator[tuple[Tensor, Tensors]]) -> Tensors:
    total: Tensors = {}
    for share, gradients in parts:
        total = {name: total[name].add_(share * g) if total else share * g for name, g in gradients.items()}
    return total
