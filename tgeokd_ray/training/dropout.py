"""Dropout as an input: masks that depend on student, step and lane, and not on which worker asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tgeokd_ray.feed.rows import sent

_PURPOSE = 0xD0  # apart from every other stream that starts from a model's seed


@dataclass(frozen=True)
class Dropout:
    """Draws masks for R students of K hidden units: 0 with probability `rate`, else 1 / (1 - rate).

    A row's mask is fixed by (model seed, step, its lane, its place in the lane's share of the batch), so it is the same
    for every number of workers, on every device, and when a step is repeated.
    """

    rate: float
    units: int
    model_seeds: Sequence[int]

    def take(self, students: Sequence[int]) -> Dropout:
        """The dropout of these students alone."""
        return replace(self, model_seeds=[self.model_seeds[r] for r in students])

    def masks(self, step: int, shares: Sequence[tuple[int, int]], like: Tensor) -> Tensor | None:
        """[R, N, K] in type and on device of `like`, N the rows of all `shares`; None where nothing is dropped."""
        if not self.rate or not self.units:
            return None
        drawn = {
            seed: torch.cat([self._lane(seed, step, *share) for share in shares]) for seed in set(self.model_seeds)
        }
        students = torch.stack([drawn[seed] for seed in self.model_seeds])
        return sent(students, like.device).to(like.dtype) / (1 - self.rate)

    def _lane(self, seed: int, step: int, lane: int, rows: int) -> Tensor:
        (word,) = np.random.SeedSequence((_PURPOSE, seed, step, lane)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(word) >> 1)
        return torch.empty(rows, self.units).bernoulli_(1 - self.rate, generator=generator)
