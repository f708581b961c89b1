"""Rows whose labels come out of a known channel: noise by region, a student of noisy labels, a teacher of clean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tgeokd_ray.objectives.channel import Channel, fit_channel

CLASSES, FOLDS, INPUTS = 5, 5, 6


@dataclass(frozen=True)
class ChannelRows:
    """S, T [N, C], labels, true classes and region 0..2 [N], inputs [N, K]; row i is in fold i % 5."""

    student: Tensor
    teacher: Tensor
    labels: Tensor
    clean: Tensor
    region: Tensor
    inputs: Tensor

    @property
    def folds(self) -> Tensor:
        return torch.arange(len(self.labels)) % FOLDS

    def fit(self, **changes: Any) -> Channel:
        given = {"student": self.student, "teacher": self.teacher, "labels": self.labels, "folds": self.folds}
        options = {"rows": self.inputs}
        return fit_channel(**{**given, **options, **changes})

    def by_region(self, values: Tensor) -> list[float]:
        return [values[self.region == each].mean().item() for each in range(3)]


def channel_rows(
    num_rows: int, rates: tuple[float, float, float], *, teacher: str = "right", seed: int = 0
) -> ChannelRows:
    """Labels drawn anew, over all classes, at `rates` by region of the first input.

    The student knows the noisy distribution only roughly. The teacher knows the clean one well; `wrong` in region 0, or
    of `noisy` labels everywhere.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = normal(num_rows, INPUTS)
    scores = inputs @ normal(INPUTS, CLASSES)
    scores = 6 * scores / scores.std()
    clean = torch.multinomial(scores.softmax(-1), 1, generator=generator).squeeze(1)
    region = torch.bucketize(inputs[:, 0].contiguous(), torch.tensor([-0.43, 0.43], dtype=torch.float64))
    rate = torch.tensor(rates, dtype=torch.float64)[region]
    anew = torch.rand(num_rows, generator=generator) < rate
    labels = torch.where(anew, torch.randint(CLASSES, (num_rows,), generator=generator), clean)
    noisy = ((1 - rate).unsqueeze(1) * scores.softmax(-1) + rate.unsqueeze(1) / CLASSES).log()
    known = noisy if teacher == "noisy" else scores
    if teacher == "wrong":
        known = torch.where((region == 0).unsqueeze(1), scores.roll(1, -1), scores)
    student = (0.6 * noisy + 0.5 * normal(num_rows, CLASSES)).softmax(-1)
    return ChannelRows(student, (known + 0.3 * normal(num_rows, CLASSES)).softmax(-1), labels, clean, region, inputs)
