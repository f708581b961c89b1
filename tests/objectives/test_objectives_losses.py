"""Laws of the losses: closed forms, numeric gradients, minima, symmetries and limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tgeokd_ray.objectives.losses import cross_entropy, distillation, soft_cross_entropy, source_losses


def normal(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


LABELS = torch.tensor([0, 2, 1, 1])


def test_cross_entropy_closed_form() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64))
    assert cross_entropy(logits, torch.tensor([2])).item() == pytest.approx(-math.log(0.3), rel=1e-14)
    assert cross_entropy(torch.zeros(1, 7), torch.tensor([3])).item() == pytest.approx(math.log(7), rel=1e-6)


def test_distillation_closed_form() -> None:
    teacher, student, temperature = [0.6, 0.3, 0.1], [0.2, 0.5, 0.3], 2.0
    expected = temperature**2 * sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))
    logits = [temperature * torch.log(torch.tensor([each], dtype=torch.float64)) for each in (student, teacher)]
    assert distillation(*logits, temperature=temperature).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_numeric_gradients_to_the_second_order(temperature: float) -> None:
    student, teacher = normal(2, 4, 3).requires_grad_(), normal(4, 3, seed=1, scale=2)
    assert gradcheck(lambda z: cross_entropy(z, LABELS), student)
    assert gradcheck(lambda z: distillation(z, teacher, temperature=temperature), student)
    assert gradgradcheck(lambda z: distillation(z, teacher, temperature=temperature), student)
    assert gradgradcheck(lambda z: cross_entropy(z, LABELS), student)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_perfect_student_is_the_minimum(dtype: torch.dtype) -> None:
    teacher = normal(50, 5, scale=3, dtype=dtype)
    eps = torch.finfo(dtype).eps
    shifted = teacher + normal(50, 1, seed=2, dtype=dtype)
    assert distillation(shifted, teacher, temperature=2.0).abs().max() <= 100 * eps
    for seed in range(5):
        other = teacher + normal(50, 5, seed=seed + 3, dtype=dtype)
        assert (distillation(other, teacher, temperature=2.0) > 0).all()
    labels = torch.arange(50) % 5
    certain = 1000.0 * (labels[:, None] == torch.arange(5)).to(dtype)
    assert (cross_entropy(certain, labels) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_soft_targets_that_are_one_hot_are_labels(dtype: torch.dtype, scale: float) -> None:
    student = normal(2, 4, 3, scale=scale, dtype=dtype)
    one_hot = torch.nn.functional.one_hot(LABELS, 3)
    assert torch.equal(soft_cross_entropy(student, one_hot), cross_entropy(student, LABELS))


def test_soft_cross_entropy_is_linear_in_the_target_and_least_where_the_student_agrees() -> None:
    student, target = normal(2, 4, 3).requires_grad_(), normal(4, 3, seed=1).softmax(-1)
    parts = [cross_entropy(student, torch.full((4,), c)) * target[:, c] for c in range(3)]
    torch.testing.assert_close(soft_cross_entropy(student, target), sum(parts))
    assert gradcheck(lambda z: soft_cross_entropy(z, target), student)
    entropy = -(target * target.log()).sum(-1)
    torch.testing.assert_close(soft_cross_entropy(target.log(), target), entropy)
    assert (soft_cross_entropy(student, target) > entropy).all()


def test_two_classes_are_the_binary_form() -> None:
    """A one-logit student is the two-logit one with z_0 = 0."""
    student, teacher, labels = normal(20, seed=4), normal(20, seed=5), torch.arange(20) % 2
    two_student = torch.stack([torch.zeros(20, dtype=torch.float64), student], -1)
    two_teacher = torch.stack([torch.zeros(20, dtype=torch.float64), teacher], -1)
    hard = torch.nn.functional.binary_cross_entropy_with_logits(student, labels.double(), reduction="none")
    torch.testing.assert_close(cross_entropy(two_student, labels), hard, rtol=1e-13, atol=1e-14)
    target = torch.sigmoid(teacher / 3)
    soft = torch.nn.functional.binary_cross_entropy_with_logits(student / 3, target, reduction="none")
    entropy = torch.nn.functional.binary_cross_entropy(target, target, reduction="none")
    result = distillation(two_student, two_teacher, temperature=3.0)
    torch.testing.assert_close(result, 9 * (soft - entropy), rtol=1e-11, atol=1e-13)


def test_the_order_of_classes_does_not_matter() -> None:
    student, teacher, order = normal(4, 3), normal(4, 3, seed=1), torch.tensor([2, 0, 1])
    moved = torch.argsort(order)[LABELS]
    torch.testing.assert_close(cross_entropy(student[:, order], moved), cross_entropy(student, LABELS))
    result = distillation(student[:, order], teacher[:, order], temperature=1.5)
    torch.testing.assert_close(result, distillation(student, teacher, temperature=1.5))


def test_a_large_temperature_matches_centred_logits() -> None:
    """tau -> inf: half the mean squared difference of centred logits (Hinton et al., 2015, section 2.1)."""
    student, teacher = normal(6, 5), normal(6, 5, seed=1)
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    limit = 0.5 * centred.square().mean(-1)
    near, far = (distillation(student, teacher, temperature=t) - limit for t in (1e3, 1e4))
    assert near.abs().max() < 1e-2
    assert far.abs().max() < 1e-3


def test_a_small_temperature_asks_for_the_teachers_class() -> None:
    """tau -> 0: tau * the gap between the student's best logit and its logit of the teacher's class."""
    student, teacher = torch.tensor([[3.0, 1.0, 0.0]]).double(), torch.tensor([[0.0, 2.0, 1.0]]).double()
    assert distillation(student, teacher, temperature=1e-2).item() == pytest.approx(1e-2 * (3.0 - 1.0), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be > 0, got"):
        distillation(normal(4, 3), normal(4, 3), temperature=temperature)
    with pytest.raises(ValueError, match="temperature"):
        source_losses(normal(1, 4, 3), normal(4, 2, 3), LABELS, temperature=temperature)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_any_leading_axes(leading: tuple[int, ...]) -> None:
    student = normal(*leading, 4, 3)
    teacher = normal(4, 3, seed=1)
    for one, many in (
        (lambda z: cross_entropy(z, LABELS), cross_entropy(student, LABELS)),
        (lambda z: distillation(z, teacher, temperature=2.0), distillation(student, teacher, temperature=2.0)),
    ):
        assert many.shape == (*leading, 4)
        flat = torch.stack([one(z) for z in student.reshape(-1, 4, 3)])
        torch.testing.assert_close(many.reshape(-1, 4), flat)


def test_source_losses_hold_the_labels_then_each_teacher() -> None:
    student, teachers = normal(2, 4, 3), normal(4, 2, 3, seed=1)
    result = source_losses(student, teachers, LABELS, temperature=2.0)
    columns = [distillation(student, teachers[:, m], temperature=2.0) for m in range(2)]
    torch.testing.assert_close(result, torch.stack([cross_entropy(student, LABELS), *columns], -1))


def test_each_student_has_its_own_temperature() -> None:
    student, teachers = normal(2, 4, 3), normal(4, 2, 3, seed=1)
    both = source_losses(student, teachers, LABELS, temperature=torch.tensor([1.0, 4.0], dtype=torch.float64))
    for index, temperature in enumerate((1.0, 4.0)):
        alone = source_losses(student[index : index + 1], teachers, LABELS, temperature=temperature)
        torch.testing.assert_close(both[index : index + 1], alone, rtol=1e-14, atol=1e-14)


def test_no_teacher_and_no_rows() -> None:
    student = normal(2, 4, 3)
    assert source_losses(student, None, LABELS, temperature=1.0).shape == (2, 4, 1)
    assert source_losses(student, torch.zeros(4, 0, 3).double(), LABELS, temperature=1.0).shape == (2, 4, 1)
    empty = source_losses(student[:, :0], normal(0, 2, 3), LABELS[:0], temperature=1.0)
    assert empty.shape == (2, 0, 3)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_one_temperature_for_all_is_that_of_each(temperature: float) -> None:
    student, teacher = normal(3, 4, 3).requires_grad_(), normal(4, 2, 3, seed=1)
    found = source_losses(student, teacher, LABELS, temperature=temperature)
    each = torch.full((3,), temperature, dtype=torch.float64)
    expected = source_losses(student, teacher, LABELS, temperature=each)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    slopes = (torch.autograd.grad(losses.sin().sum(), student)[0] for losses in (found, expected))
    torch.testing.assert_close(*slopes, rtol=1e-13, atol=1e-14)
