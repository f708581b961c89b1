"""ADA and WLS: closed forms in plain Python, limits, several teachers, and rows that do not sum to 1."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objectives_pack import make_points

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules import ADA, WLS, Rule, build_rule

CONTEXT = Context(progress=0.25)


def permuted(points: Points, order: torch.Tensor) -> Points:
    """The same rows with their classes in another order."""
    return replace(
        points,
        student_logits=points.student_logits[..., order],
        teacher_logits=points.teacher_logits[..., order],
        labels=torch.argsort(order)[points.labels],
        class_means=points.class_means[:, order][:, :, order],
    )


@pytest.mark.parametrize("teachers", [1, 3])
def test_ada_by_its_definition(teachers: int) -> None:
    points = make_points(classes=4, teachers=teachers, rows=30)
    means = points.class_means.clone()
    means[0, 1] = torch.tensor([0.01, 0.97, 0.01, 0.01], dtype=torch.float64)
    points = replace(points, class_means=means)
    weights = ADA().weights({}, points, CONTEXT)
    found = set()
    for i, label in enumerate(points.labels.tolist()):
        for m in range(teachers):
            row = means[m, label].tolist()
            margin = row[label] - sum(p for c, p in enumerate(row) if c != label) / 3
            expected = min(max(margin, 0.0), 1.0)
            found.add(expected)
            assert weights[1, i, 1 + m].item() == pytest.approx(expected / teachers, abs=1e-14)
    assert 0.0 in found, "a class that the teacher does not know"
    assert max(found) > 0.9, "and one that it knows"


@pytest.mark.parametrize("teachers", [1, 3, 7])
def test_ada_of_a_perfect_teacher_is_one_and_of_an_ignorant_one_zero(teachers: int) -> None:
    points = make_points(classes=5, teachers=teachers)
    perfect = ADA().weights({}, replace(points, class_means=torch.eye(5).expand(teachers, 5, 5)), CONTEXT)
    assert (perfect[..., 0] >= 0).all()
    torch.testing.assert_close(perfect[..., 1:].sum(-1), torch.ones(2, 6, dtype=torch.float64), rtol=0, atol=1e-12)
    uniform = torch.full((teachers, 5, 5), 0.2)
    for means in (uniform, torch.eye(5).roll(1, 0).expand(teachers, 5, 5)):
        ignorant = ADA().weights({}, replace(points, class_means=means), CONTEXT)
        torch.testing.assert_close(ignorant[..., 0], torch.ones(2, 6, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("teachers", [1, 2])
def test_wls_by_its_definition(teachers: int) -> None:
    points = make_points(classes=4, teachers=teachers)
    weights = WLS(scale=3.0).weights({}, points, CONTEXT)
    assert (weights[..., 0] == 1).all()
    for r in range(2):
        for i, label in enumerate(points.labels.tolist()):
            student = -points.student_logits[r, i].log_softmax(-1)[label].item()
            for m in range(teachers):
                teacher = -points.teacher_logits[i, m].log_softmax(-1)[label].item()
                expected = 3.0 / teachers * (1 - math.exp(-student / (teacher + 1e-7)))
                assert weights[r, i, 1 + m].item() == pytest.approx(expected, rel=1e-12)


def test_wls_is_zero_for_a_certain_student_and_full_for_a_certain_teacher() -> None:
    certain = torch.tensor([[40.0, 0.0]]).double()
    open_minded, label = torch.zeros(1, 2).double(), torch.tensor([0])

    def soft(student: torch.Tensor, teacher: torch.Tensor) -> float:
        points = Points(student[None], teacher[:, None], label, torch.eye(2)[None], torch.ones(1))
        return WLS().weights({}, points, CONTEXT)[0, 0, 1].item()

    assert soft(certain, open_minded) == pytest.approx(0.0, abs=1e-15)
    assert soft(open_minded, certain) == pytest.approx(2.25, rel=1e-12)
    assert soft(open_minded, open_minded) == pytest.approx(2.25 * (1 - math.exp(-1)), rel=1e-6)


def test_wls_stays_between_nothing_and_its_scale_and_has_no_graph() -> None:
    points = make_points(rows=500, classes=5, teachers=2)
    points = replace(points, student_logits=(8 * points.student_logits).requires_grad_())
    weights = WLS().weights({}, points, CONTEXT)
    assert not weights.requires_grad
    assert ((weights[..., 1:] >= 0) & (weights[..., 1:] <= 2.25 / 2)).all()
    assert weights[..., 1:].std() > 0.1


@pytest.mark.parametrize("rule", [ADA(), WLS()], ids=lambda rule: rule.kind)
def test_the_order_of_classes_and_of_teachers_does_not_matter(rule: Rule) -> None:
    points = make_points(classes=4, teachers=3)
    weights = rule.weights({}, points, CONTEXT)
    moved = rule.weights({}, permuted(points, torch.tensor([2, 0, 3, 1])), CONTEXT)
    torch.testing.assert_close(moved, weights, rtol=1e-12, atol=1e-12)
    order = torch.tensor([1, 2, 0])
    swapped = replace(points, teacher_logits=points.teacher_logits[:, order], class_means=points.class_means[order])
    torch.testing.assert_close(rule.weights({}, swapped, CONTEXT), weights[..., [0, 2, 3, 1]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wls_has_the_type_of_the_student_and_may_have_no_rows(dtype: torch.dtype) -> None:
    points = make_points()
    assert WLS().weights({}, replace(points, student_logits=points.student_logits.to(dtype)), CONTEXT).dtype == dtype
    assert WLS().weights({}, make_points(rows=0), CONTEXT).shape == (2, 0, 3)


def test_scale_is_checked_and_can_be_given() -> None:
    assert build_rule("wls", scale=2.5) == WLS(2.5)
    for scale in (-1, True, math.inf, "2"):
        with pytest.raises(ConfigError, match=r"wls.scale must be finite and >= 0; got"):
            build_rule("wls", scale=scale)
