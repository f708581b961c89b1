"""A batch in chunks: one chunk's graph is in memory at a time, and everything is that of the whole batch.

N rows in chunks, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tgeokd_ray.objectives.vectors import Tensors
from tgeokd_ray.objectives.ways import Inner, Way


class Chunks:
    """Gradients of a batch whose chunks come from `parts`, which are called anew whenever a chunk is needed.

    A chunk counts in every mean by the share of its rows in the `weight` of all. With a `way` it answers as one does
    (`ways.Way`), for a forward and backward pass more per product with the Hessian.
    """

    def __init__(
        self, parts: Sequence[Callable[[], Inner]], weight: Tensor, way: Callable[[Inner], Way] | None = None
    ) -> None:
        self._parts, self._weight, self._way = parts, weight.clamp_min(torch.finfo(weight.dtype).tiny), way
        self.gradients = self._mean(Inner.gradients)

    def hessian(self, direction: Mapping[str, Tensor]) -> Tensors:
        return self._mean(lambda inner: self._of(inner).hessian(direction))

    def ratio_gradient(self, w: Mapping[str, Tensor]) -> Tensor:
        shares = [(share, self._of(inner).ratio_gradient(w)) for share, inner in self._shared()]
        return torch.cat([share * slope for share, slope in shares], 1)

    def _of(self, inner: Inner) -> Way:
        assert self._way is not None
        return self._way(inner)

    def _mean(self, gradients: Callable[[Inner], Tensors]) -> Tensors:
        total: Tensors = {}
        for share, inner in self._shared():
            for name, value in gradients(inner).items():
                total[name] = total[name].add_(share * value) if name in total else share * value
        return total

    def _shared(self) -> Iterator[tuple[Tensor, Inner]]:
        for part in self._parts:
            inner = part()
            yield inner.row_weights.sum() / self._weight, inner
