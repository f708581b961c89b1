"""A row that a teacher did not score learns from its label alone, under every rule (P6)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.models import build
from tgeokd_ray.objectives.losses import cross_entropy, distillation
from tgeokd_ray.objectives.points import Context, on_covered
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import RULES, Constant, build_rule
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.objectives.ways import inner_gradient
from tgeokd_ray.training.problem import Problem

N, C = 24, 3
CONTEXT = Context(progress=0.5)


def some_rows(covered: Tensor, filler: float = 0.0) -> Rows:
    """Rows of which those not covered hold `filler` as logits."""
    generator = torch.Generator().manual_seed(3)
    teachers = covered.shape[1]
    logits = torch.randn(N, teachers, C, generator=generator, dtype=torch.float64)
    return Rows(
        row_id=torch.arange(N),
        numeric=torch.randn(N, 4, generator=generator, dtype=torch.float64),
        categorical=torch.empty(N, 0, dtype=torch.int64),
        labels=torch.randint(0, C, (N,), generator=generator),
        weights=torch.rand(N, generator=generator) + 0.5,
        logits=torch.where(covered.bool().unsqueeze(-1), logits, filler),
        covered=covered,
        ratios=torch.empty(N, 0, 1 + teachers),
        targets=torch.empty(N, 0),
        offset=torch.empty(N, 0),
    )


def student(rule: object, teachers: int = 1) -> tuple[Problem, dict[str, Tensor]]:
    module = build(
        {"kind": "mlp", "hidden": [5]},
        num_numeric=4,
        num_ids=0,
        num_categorical=0,
        num_classes=C,
        generator=torch.Generator().manual_seed(1),
    ).double()
    means = torch.full((teachers, C, C), 1 / C, dtype=torch.float64)
    pack = RulePack.of([rule])  # type: ignore[list-item]
    return Problem(module=module, rule=pack, temperature=torch.tensor([2.0]), class_means=means), stack([module])


def gradients(problem: Problem, theta: dict[str, Tensor], rows: Rows) -> dict[str, Tensor]:
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    logits = problem.logits(leaves, rows)
    points = problem.points(logits, rows)
    omega = problem.rule.init([0], C, rows.logits.shape[1])
    omega = {name: value.double() for name, value in omega.items()}
    ratio = problem.mixture(omega, points, rows, CONTEXT)
    found, _ = inner_gradient(leaves, problem.losses(logits, rows), ratio, points.row_weights, create_graph=False)
    return found


def test_p6_with_ratio_one_these_rows_give_gradients_of_their_labels_only() -> None:
    covered = (torch.arange(N) % 3 > 0).to(torch.uint8).unsqueeze(1)
    rows = some_rows(covered)
    problem, theta = student(Constant(1.0))
    found = gradients(problem, theta, rows)
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    logits = problem.logits(leaves, rows)
    labels = cross_entropy(logits, rows.labels)
    teacher = distillation(logits, rows.logits[:, 0], temperature=2.0)
    losses = torch.where(covered[:, 0].bool(), teacher, labels)
    weights = rows.weights.double() / rows.weights.double().sum()
    expected = torch.autograd.grad((losses * weights).sum(), list(leaves.values()))
    for name, one in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[name], one, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [k for k in RULES if not (RULES[k].learned or RULES[k].needs or k == "given")])
def test_what_stands_in_the_logits_of_such_rows_does_not_matter(kind: str) -> None:
    covered = (torch.arange(N) % 3 > 0).to(torch.uint8).unsqueeze(1)
    problem, theta = student(build_rule(kind))
    one, other = (gradients(problem, theta, some_rows(covered, filler)) for filler in (0.0, 50.0))
    for name in one:
        assert torch.equal(one[name], other[name])


def test_rows_that_all_teachers_scored_are_as_before() -> None:
    problem, theta = student(Constant(0.7))
    rows = some_rows(torch.ones(N, 1, dtype=torch.uint8))
    whole = replace(rows, covered=torch.empty(N, 0, dtype=torch.uint8))
    one, other = (gradients(problem, theta, given) for given in (rows, whole))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-14, atol=0)


def test_the_part_of_a_teacher_goes_to_the_label_and_its_slope_with_it() -> None:
    weights = torch.tensor([[[0.2, 0.5, 0.3], [0.2, 0.5, 0.3]]], dtype=torch.float64, requires_grad=True)
    covered = torch.tensor([[1, 0], [0, 0]], dtype=torch.uint8)
    found = on_covered(weights, covered)
    torch.testing.assert_close(found, torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]], dtype=torch.float64))
    torch.autograd.gradcheck(lambda w: on_covered(w, covered), (weights,))
