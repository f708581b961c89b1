"""Features: their sizes, their order, and plain-Python formulas beside them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objectives_pack import make_points

from tgeokd_ray.objectives.geometry import FEATURES, standardise
from tgeokd_ray.objectives.points import Context, Points


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def corners(points: Points, r: int, i: int, m: int) -> tuple[list[float], list[float], list[float], list[float], int]:
    """S, T, Tbar, G and the label of one row, in plain Python."""
    label = int(points.labels[i])
    student = softmax(points.student_logits[r, i].tolist())
    teacher = softmax(points.teacher_logits[i, m].tolist())
    one_hot = [float(c == label) for c in range(len(student))]
    return student, teacher, points.class_means[m, label].tolist(), one_hot, label


def minus(left: list[float], right: list[float]) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]


def entropy(p: list[float]) -> float:
    return -sum(each * math.log(each) for each in p)


def largest_other(p: list[float], label: int) -> float:
    return max(each for c, each in enumerate(p) if c != label)


def label_aligned_row(points: Points, r: int, i: int) -> list[float]:
    """The 4 + 8 M numbers by their definition."""
    student, *_, label = corners(points, r, i, 0)
    own = [student[label], math.log(student[label]), entropy(student), largest_other(student, label)]
    columns = []
    for m in range(points.num_teachers):
        _, teacher, mean, _, _ = corners(points, r, i, m)
        columns.append(
            [
                teacher[label],
                math.log(teacher[label]),
                entropy(teacher),
                largest_other(teacher, label),
                mean[label],
                math.hypot(*minus(student, teacher)),
                math.hypot(*minus(teacher, mean)),
                math.hypot(*minus(student, mean)),
            ]
        )
    return own + [value for column in zip(*columns, strict=True) for value in column]


@pytest.mark.parametrize("teachers", [1, 3])
def test_without_means_leaves_out_what_needs_them_and_nothing_else(teachers: int) -> None:
    points = make_points(classes=3, teachers=teachers)
    whole, found = (FEATURES[name].compute(points) for name in ("label_aligned", "without_means"))
    other = replace(points, class_means=points.class_means.flip(-1) * 0.7)
    moved = (FEATURES["label_aligned"].compute(other) != whole).any(0).any(0)
    assert torch.equal(found, whole[..., ~moved])


@pytest.mark.parametrize("name", sorted(FEATURES))
@pytest.mark.parametrize(("classes", "teachers"), [(2, 1), (3, 2), (10, 3)])
def test_dimensions(name: str, classes: int, teachers: int) -> None:
    points = make_points(classes=classes, teachers=teachers)
    by_class = {"paper": 9 * classes * teachers, "vertices": 4 * classes * teachers, "edges": 5 * classes * teachers}
    aligned = {"label_aligned": 4 + 8 * teachers, "without_means": 4 + 5 * teachers}
    expected = (by_class | aligned | {"label_free": 3 + 7 * teachers})[name]
    assert FEATURES[name].dimension(classes, teachers) == expected
    assert FEATURES[name].compute(points).shape == (2, 6, expected)


def test_the_paper_order() -> None:
    """[G-S, G-T, T-S, G-Tbar, Tbar-S, S, T, Tbar, G] for each teacher (Hu et al., eq. 10)."""
    points = make_points()
    found = FEATURES["paper"].compute(points)
    edges, vertices = FEATURES["edges"].compute(points), FEATURES["vertices"].compute(points)
    for r, i, m in ((0, 0, 0), (1, 3, 1), (0, 5, 1)):
        s, t, b, g, _ = corners(points, r, i, m)
        edge = [*minus(g, s), *minus(g, t), *minus(t, s), *minus(g, b), *minus(b, s)]
        vertex = [*s, *t, *b, *g]
        assert found[r, i, 27 * m : 27 * (m + 1)].tolist() == pytest.approx(edge + vertex, abs=1e-14)
        assert edges[r, i, 15 * m : 15 * (m + 1)].tolist() == pytest.approx(edge, abs=1e-14)
        assert vertices[r, i, 12 * m : 12 * (m + 1)].tolist() == pytest.approx(vertex, abs=1e-14)


@pytest.mark.parametrize(("classes", "teachers"), [(2, 1), (4, 3)])
def test_label_aligned_by_definition(classes: int, teachers: int) -> None:
    points = make_points(classes=classes, teachers=teachers)
    found = FEATURES["label_aligned"].compute(points)
    for r in range(2):
        for i in range(6):
            assert found[r, i].tolist() == pytest.approx(label_aligned_row(points, r, i), abs=1e-7)


def test_label_aligned_ignores_the_order_of_classes() -> None:
    points, order = make_points(classes=4), torch.tensor([2, 0, 3, 1])
    moved = Points(
        points.student_logits[..., order],
        points.teacher_logits[..., order],
        torch.argsort(order)[points.labels],
        points.class_means[:, order][:, :, order],
        points.row_weights,
    )
    compute = FEATURES["label_aligned"].compute
    torch.testing.assert_close(compute(moved), compute(points), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_rows_are_independent_and_follow_their_order(name: str) -> None:
    points, order = make_points(), torch.tensor([3, 0, 5, 1, 4, 2])
    moved = Points(
        points.student_logits[:, order],
        points.teacher_logits[order],
        points.labels[order],
        points.class_means,
        points.row_weights[order],
    )
    assert torch.equal(FEATURES[name].compute(moved), FEATURES[name].compute(points)[:, order])


@pytest.mark.parametrize("name", sorted(FEATURES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_n2_certain_points_are_finite_and_detached(name: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([[[1000.0, 0.0], [0.0, 1000.0]]], dtype=dtype, requires_grad=True)
    means = torch.eye(2)[None]
    points = Points(logits, logits.detach().transpose(0, 1), torch.tensor([1, 1]), means, torch.ones(2))
    found = FEATURES[name].compute(points)
    assert found.isfinite().all()
    assert found.dtype == dtype
    assert not found.requires_grad


def test_standardise_has_mean_zero_and_deviation_one() -> None:
    points = make_points(rows=200)
    scores = standardise(FEATURES["label_aligned"].compute(points), points, Context(0.0))
    shares = points.row_weights / points.row_weights.sum()
    mean = torch.einsum("n,rnk->rk", shares, scores)
    spread = torch.einsum("n,rnk->rk", shares, scores**2).sqrt()
    assert mean.abs().max() < 1e-12
    # std / (std + 1e-3): columns such as Tbar_y spread by more than a twentieth
    assert ((spread > 0.98) & (spread < 1)).all()
    constant = torch.full((2, 200, 1), 7.0, dtype=torch.float64)
    assert standardise(constant, points, Context(0.0)).abs().max() < 1e-9


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_no_rows(name: str) -> None:
    points = make_points(rows=0)
    features = FEATURES[name].compute(points)
    assert features.shape == (2, 0, FEATURES[name].dimension(3, 2))
    assert standardise(features, points, Context(0.0)).shape == features.shape
