"""Do a teacher and the given labels contradict each other? Told before anything is trained on both.

N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.wanted import Wanted
from tgeokd_ray.objectives.distributions import entropy
from tgeokd_ray.training.channel import mean_teacher

ENOUGH_ROWS = 100_000
LEAST_PROBABILITY = 1e-4  # of a label, before its logarithm: one row in ten thousand must not decide


@dataclass(frozen=True)
class Surprise:
    """Mean `-log T(y)` over rows, `found`, and what the teacher itself expects it to be, the mean entropy of T, both in
    nats. They agree where T is calibrated for these labels; labels that are wrong, or a teacher that is, part them."""

    found: float
    expected: float
    rows: int


def surprise(table: Artifact, logits: Sequence[Artifact], splits: Sequence[str]) -> Surprise:
    """The surprise over the rows of these splits that have a label and a teacher, 100,000 at most; of several teachers
    T is the mean."""
    encoded = EncodedTable.open(table.path)
    tables = tuple(LogitsTable.open(one.path, encoded) for one in logits)
    wanted = Wanted(encoded, tuple(split for split in splits if encoded.splits.get(split)), tables)
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for piece in wanted.direct()(wanted.units):
        rows = decode(piece, len(encoded.classes)).as_batch()
        teacher, scored = mean_teacher(rows, torch.full((len(rows), len(encoded.classes)), math.nan))
        known = scored & (rows.labels >= 0)
        sums += _found_and_expected(teacher[known].double(), rows.labels[known])
        count += int(known.sum())
        if count >= ENOUGH_ROWS:
            break
    found, expected = (sums / max(count, 1)).tolist()
    return Surprise(found, expected, count)


def _found_and_expected(teacher: Tensor, labels: Tensor) -> Tensor:
    told = teacher.gather(1, labels.unsqueeze(1)).clamp_min(LEAST_PROBABILITY)
    return torch.stack([-told.log().sum(), entropy(teacher).sum()])
