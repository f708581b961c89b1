"""Workers as threads of one process that meet at a barrier: what every collective of a step needs, and no more."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


class Threads:
    """`size` workers that meet at a barrier; means over all of them, and what each of them has."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=20)
        self._slots: list[tuple[Tensor, Tensor]] = [(torch.zeros(()), torch.zeros(()))] * size
        self._rank = threading.local()

    def exchange(self, value: Tensor, weight: Tensor) -> Tensor:
        self._slots[self._rank.value] = (value.detach().clone(), weight.detach().to(value.dtype))
        self._barrier.wait()
        slots = list(self._slots)
        self._barrier.wait()
        total = sum(one for _, one in slots)
        return sum(each * one for each, one in slots) / torch.where(total > 0, total, 1)

    def global_mean(self, value: Tensor, weight: Tensor | float) -> Tensor:
        return _SimulatedMean.apply(value, torch.as_tensor(weight), self)

    def mean(self, tensors: Tensors, weight: Tensor) -> Tensors:
        return {name: self.exchange(value, weight) for name, value in tensors.items()}

    def gather(self, value: Tensor) -> list[Tensor]:
        self._slots[self._rank.value] = (value.detach().clone(), torch.zeros(()))
        self._barrier.wait()
        slots = [one for one, _ in self._slots]
        self._barrier.wait()
        return slots

    def run(self, work: Callable[[int], object]) -> list[object]:
        """`work(rank)` on every worker at once; the first failure is raised."""
        results: list[object] = [None] * self.size
        errors: list[BaseException] = []

        def main(rank: int) -> None:
            self._rank.value = rank
            try:
                results[rank] = work(rank)
            except BaseException as error:
                errors.append(error)
                self._barrier.abort()

        threads = [threading.Thread(target=main, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error
        return results


class _SimulatedMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, weight, threads):
        ctx.weight, ctx.threads = weight, threads
        return threads.exchange(value, weight)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.threads.exchange(gradient, ctx.weight), None, None
