"""Sums over sources: the part of a teacher without logits, and the teachers' share of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from tgeokd_ray.objectives.points import on_covered, teacher_share

COVERED = torch.tensor([[1, 0], [0, 0], [1, 1]], dtype=torch.uint8)


def some_weights() -> Tensor:
    return torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_part_of_a_missing_teacher_goes_to_the_label_whatever_rows_sum_to() -> None:
    weights = some_weights()
    found = on_covered(weights, COVERED)
    torch.testing.assert_close(found.sum(-1), weights.sum(-1), rtol=1e-14, atol=0)
    assert torch.equal(found[..., 1:], weights[..., 1:] * COVERED)


def test_beside_additive_teachers_the_label_keeps_its_weight() -> None:
    weights = some_weights()
    found = on_covered(weights, COVERED, additive=True)
    assert torch.equal(found[..., 0], weights[..., 0])
    assert torch.equal(found[..., 1:], weights[..., 1:] * COVERED)


def test_the_teachers_share_does_not_depend_on_the_scale_of_a_row() -> None:
    weights = torch.tensor([[[0.25, 0.5, 0.25], [1.0, 1.5, 0.5], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    torch.testing.assert_close(teacher_share(weights), torch.tensor([[0.75, 2 / 3, 0.0, 1.0]]))
    torch.testing.assert_close(teacher_share(7 * weights), teacher_share(weights))
    assert teacher_share(torch.zeros(1, 1, 2)).item() == 0.0
