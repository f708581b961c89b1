"""The worker of a torch process group: explicit collectives on plain modules (DDP does not cover bilevel gradients)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tgeokd_ray.training.worker import Report


def _weighted_mean(value: Tensor, weight: Tensor) -> Tensor:
    """`sum_r w_r x_r / sum_r w_r` of one tensor and one weight in one all-reduce; zeros where all weights are zero."""
    packed = torch.cat([value.reshape(-1) * weight, weight.reshape(1)])
    dist.all_reduce(packed)
    total = packed[-1]
    return (packed[:-1] / torch.where(total == 0, torch.ones_like(total), total)).reshape(value.shape)


class _GlobalMean(torch.autograd.Function):
    """A mean forward and the same mean backward: worker r's share w_r / sum w is applied once more by the caller's
    weighted mean of parameter gradients, so each worker must see the mean of all workers' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _weighted_mean(value, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return _weighted_mean(gradients[0].contiguous(), weight), None


class ProcessGroupWorker:
    """One rank of the default torch process group (gloo on CPUs, nccl on GPUs), which must be initialised.

    Tensors of one dtype travel flattened in one all-reduce. A worker whose batch is empty passes weight 0 and
    takes part in every collective. `report` is forwarded to the callable given, if any.
    """

    def __init__(self, device: torch.device | str = "cpu", report: Report | None = None) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.device = torch.device(device)
        self._report = report

    def _weight(self, weight: Tensor | float, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(weight, dtype=dtype, device=self.device).detach().reshape(())

    def mean(self, tensors: Mapping[str, Tensor], weight: Tensor | float) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        for dtype in sorted({value.dtype for value in tensors.values()}, key=str):
            names = [name for name, value in tensors.items() if value.dtype == dtype]
            flat = torch.cat([tensors[name].detach().reshape(-1) for name in names])
            mean = _weighted_mean(flat, self._weight(weight, dtype))
            pieces = torch.split(mean, [tensors[name].numel() for name in names])
            result |= {name: piece.view_as(tensors[name]) for name, piece in zip(names, pieces, strict=True)}
        return {name: result[name] for name in tensors}

    def global_mean(self, value: Tensor, weight: Tensor | float) -> Tensor:
        mean: Tensor = _GlobalMean.apply(value, self._weight(weight, value.dtype))  # type: ignore[no-untyped-call]
        return mean

    def gather(self, value: Tensor) -> list[Tensor]:
        value = value.detach().contiguous()
        shape = torch.tensor([value.dim(), *value.shape, *[0] * (7 - value.dim())], device=self.device)
        shapes = [torch.empty_like(shape) for _ in range(self.size)]
        dist.all_gather(shapes, shape)
        sizes = [entry[1 : 1 + int(entry[0])].tolist() for entry in shapes]
        counts = [int(torch.tensor(size).prod()) for size in sizes]
        padded = torch.zeros(max(counts), dtype=value.dtype, device=self.device)
        padded[: value.numel()] = value.reshape(-1)
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return [part[:count].reshape(size) for part, count, size in zip(parts, counts, sizes, strict=True)]

    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        value = value.detach().clone()
        dist.broadcast(value, source)
        return value

    def barrier(self) -> None:
        dist.barrier()

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
        if self._report is not None:
            self._report(metrics, checkpoint)
