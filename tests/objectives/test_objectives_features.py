"""Features without the label, and how far teachers are apart: plain-Python formulas, limits and symmetries."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objectives_pack import make_points
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.distributions import agreement, disagreement, entropy, margin
from tgeokd_ray.objectives.geometry import FEATURES, feature_set
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules import Frozen, Rule, TGeoOneStep, TGeoShape


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def own(p: list[float]) -> list[float]:
    first, second, *_ = sorted(p, reverse=True)
    return [-sum(each * math.log(each) for each in p), first, first - second]


def label_free_row(points: Points, r: int, i: int) -> list[float]:
    """The 3 + 7 M numbers by their definition."""
    student = softmax(points.student_logits[r, i].tolist())
    columns = []
    for m in range(points.num_teachers):
        teacher = softmax(points.teacher_logits[i, m].tolist())
        overlap = sum(p * q for p, q in zip(student, teacher, strict=True))
        distance = math.hypot(*[p - q for p, q in zip(student, teacher, strict=True)])
        of_teachers = math.log(student[teacher.index(max(teacher))])
        of_students = math.log(teacher[student.index(max(student))])
        columns.append([*own(teacher), overlap, distance, of_teachers, of_students])
    return own(student) + [value for column in zip(*columns, strict=True) for value in column]


@pytest.mark.parametrize(("classes", "teachers"), [(2, 1), (4, 3)])
def test_label_free_by_definition(classes: int, teachers: int) -> None:
    points = make_points(classes=classes, teachers=teachers)
    found = FEATURES["label_free"].compute(points)
    for r in range(2):
        for i in range(6):
            assert found[r, i].tolist() == pytest.approx(label_free_row(points, r, i), abs=1e-7)


def test_label_free_sees_neither_labels_nor_the_order_of_classes() -> None:
    points, order = make_points(classes=4), torch.tensor([2, 0, 3, 1])
    compute = FEATURES["label_free"].compute
    assert torch.equal(compute(replace(points, labels=(points.labels + 1) % 4)), compute(points))
    moved = replace(
        points, student_logits=points.student_logits[..., order], teacher_logits=points.teacher_logits[..., order]
    )
    torch.testing.assert_close(compute(moved), compute(points), rtol=1e-12, atol=1e-12)


def test_certain_and_uniform_distributions() -> None:
    certain, other = torch.eye(5, dtype=torch.float64)[:2]
    uniform = torch.full((5,), 0.2, dtype=torch.float64)
    assert [entropy(certain).item(), margin(certain).item()] == [0.0, 1.0]
    assert entropy(uniform).item() == pytest.approx(math.log(5), rel=1e-14)
    assert margin(uniform).item() == 0.0
    assert [each.item() for each in agreement(certain, certain)] == [1.0, 0.0, 0.0, 0.0]
    apart = [each.item() for each in agreement(certain, other)]
    assert apart == pytest.approx([0.0, math.sqrt(2), math.log(1e-4), math.log(1e-4)], rel=1e-14)
    one_sided = [each.item() for each in agreement(uniform, certain)]
    assert one_sided[2:] == pytest.approx([math.log(0.2), 0.0], rel=1e-14), "one at the class of the other comes first"


def some_teachers(teachers: int) -> Tensor:
    return make_points(rows=20, classes=4, teachers=teachers).teacher_logits.softmax(-1)


@pytest.mark.parametrize("teachers", [2, 5])
def test_disagreement_by_its_definition(teachers: int) -> None:
    """The mean KL divergence from the mean distribution, and the mean squared distance from it."""
    each = some_teachers(teachers)
    mean = each.mean(1, keepdim=True)
    divergence = (each * (each / mean).log()).sum(-1).mean(-1)
    spread = torch.linalg.vector_norm(each - mean, dim=-1).square().mean(-1).sqrt()
    torch.testing.assert_close(disagreement(each), torch.stack([divergence, spread], -1), rtol=1e-6, atol=1e-8)
    assert (disagreement(each) > 1e-3).all()


@pytest.mark.parametrize("teachers", [2, 3])
def test_disagreement_is_zero_for_equal_teachers_and_log_m_at_most(teachers: int) -> None:
    same = some_teachers(1).expand(-1, teachers, -1)
    assert disagreement(same).max() < 1e-7
    opposed = disagreement(torch.eye(teachers, dtype=torch.float64))
    assert opposed[0].item() == pytest.approx(math.log(teachers), rel=1e-6)
    assert opposed[1].item() == pytest.approx(math.sqrt(1 - 1 / teachers), rel=1e-14)


def test_disagreement_ignores_the_order_of_teachers_and_of_classes() -> None:
    each = some_teachers(3)
    moved = each[:, torch.tensor([2, 0, 1])][..., torch.tensor([3, 1, 0, 2])]
    torch.testing.assert_close(disagreement(moved), disagreement(each), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_disagreement_comes_last_in_any_set(name: str) -> None:
    points = make_points(teachers=3)
    with_it, without = feature_set(name, disagreement=True), feature_set(name)
    found = with_it.compute(points)
    assert with_it.dimension(3, 3) == without.dimension(3, 3) + 2 == found.shape[-1]
    assert with_it.standardised == without.standardised
    assert torch.equal(found[..., :-2], without.compute(points))
    expected = disagreement(points.teacher_logits.softmax(-1)).expand(2, 6, 2)
    torch.testing.assert_close(found[..., -2:], expected, rtol=1e-14, atol=1e-14)
    assert with_it.compute(make_points(rows=0)).shape == (2, 0, with_it.dimension(3, 2))


@pytest.mark.parametrize("kind", [Frozen, TGeoOneStep, TGeoShape])
def test_rules_see_the_disagreement_of_several_teachers(kind: type[TGeoShape]) -> None:
    rule: Rule = kind(features="label_aligned", disagreement=True)
    points = make_points(teachers=2)
    omega = {name: 3 * value.double() for name, value in rule.init([0, 1], 3, 2).items()}
    assert omega["hidden.weight"].shape == (2, 32, 22)
    blind = {**omega, "hidden.weight": omega["hidden.weight"].clone()}
    blind["hidden.weight"][..., -2:] = 0
    weights = rule.weights(omega, points, Context(0.5))
    assert (weights - rule.weights(blind, points, Context(0.5))).abs().max() > 1e-3
    with pytest.raises(ConfigError, match=f"{rule.kind}.disagreement must be false where there is one teacher; got Tr"):
        rule.init([0], 3, 1)
    with pytest.raises(ConfigError, match="disagreement must be true or false; got 1"):
        kind(disagreement=1)  # type: ignore[arg-type]
