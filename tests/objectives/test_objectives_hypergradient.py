"""The hypergradient against two oracles: finite differences of the whole step, and the textbook unroll."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives_pack import (
    CLASSES,
    CLIPPED_ADAM,
    ROWS,
    SPECS,
    TEACHERS,
    Bilevel,
    Tensors,
    bilevel_step,
    leaves,
    make_bilevel,
    spec_name,
)
from torch import Tensor

from tgeokd_ray.objectives.optimizers import OptimizerSpec
from tgeokd_ray.objectives.points import Context
from tgeokd_ray.objectives.rules import TGeoOneStep
from tgeokd_ray.objectives.stacking import apply
from tgeokd_ray.objectives.ways import inner_gradient

CONTEXT = Context(progress=0.5)
SIZE = 1e-5


def norm(grads: Tensors) -> Tensor:
    return sum(value.square().sum() for value in grads.values()).sqrt()


def inner_gradients(problem: Bilevel, ratio: Tensor) -> Tensors:
    """g(a) of one student, from the formula of the inner loss."""
    theta, batch = leaves(problem.theta), problem.inner
    _, losses = problem.losses(theta, batch)
    loss = ((ratio * losses).sum(-1) * batch.row_weights).sum() / batch.row_weights.sum()
    return dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))


def outer_after(problem: Bilevel, ratio: Tensor) -> float:
    """J after the real step with the ratio [1, N, 1 + M]."""
    grads = inner_gradients(problem, ratio)
    new_theta, _ = problem.optimizer.update(problem.theta, grads, problem.moments, problem.rates)
    return problem.outer_loss(new_theta, problem.outer).item()


def unrolled_theta(problem: Bilevel, grads: Tensors) -> Tensors:
    """theta' of one student by plain differentiable formulas."""
    spec, rate, step = problem.spec, problem.rates.item(), problem.moments["step"].item() + 1
    factor = 1.0 if spec.clip_norm is None else (spec.clip_norm / (norm(grads) + 1e-6)).clamp(max=1.0)
    new = {}
    for name, value in problem.theta.items():
        g = grads[name] * factor
        if spec.kind == "adamw":
            value = value * (1 - rate * spec.weight_decay)
        else:
            g = g + spec.weight_decay * value
        if spec.kind == "sgd":
            new[name] = value - rate * g
        elif spec.kind in ("momentum", "nesterov"):
            first = spec.momentum * problem.moments[f"first.{name}"] + g
            new[name] = value - rate * (first if spec.kind == "momentum" else g + spec.momentum * first)
        elif spec.kind == "adagrad":
            new[name] = value - rate * g / ((problem.moments[f"second.{name}"] + g * g).sqrt() + spec.eps)
        else:
            b1, b2 = spec.betas
            first = (b1 * problem.moments[f"first.{name}"] + (1 - b1) * g) / (1 - b1**step)
            second = (b2 * problem.moments[f"second.{name}"] + (1 - b2) * g * g) / (1 - b2**step)
            new[name] = value - rate * first / (second.sqrt() + spec.eps)
    return new


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_d_equals_finite_differences_of_the_whole_step(spec: OptimizerSpec) -> None:
    problem = make_bilevel(spec)
    outcome = bilevel_step(problem, problem.inner, problem.outer, CONTEXT)
    ratio = outcome.ratio.contiguous()
    clip = spec.clip_norm or float("inf")
    assert spec.clip_norm is None or norm(inner_gradients(problem, ratio)) > 2 * clip, "clipping must be active"
    numeric = torch.zeros_like(ratio)
    for index in range(ratio.numel()):
        for sign in (1, -1):
            moved = ratio.clone()
            moved.view(-1)[index] += sign * SIZE
            numeric.view(-1)[index] += sign * outer_after(problem, moved) / (2 * SIZE)
    assert relative(outcome.slope, numeric) <= 1e-6


@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_d_equals_the_textbook_unroll(spec: OptimizerSpec) -> None:
    problem = make_bilevel(spec)
    outcome = bilevel_step(problem, problem.inner, problem.outer, CONTEXT)
    ratio, theta, batch = outcome.ratio.clone().requires_grad_(), leaves(problem.theta), problem.inner
    _, losses = problem.losses(theta, batch)
    loss = ((ratio * losses).sum(-1) * batch.row_weights).sum() / batch.row_weights.sum()
    grads = dict(zip(theta, torch.autograd.grad(loss, list(theta.values()), create_graph=True), strict=True))
    outer = problem.outer_loss(unrolled_theta(problem, grads), problem.outer).sum()
    (expected,) = torch.autograd.grad(outer, ratio)
    assert relative(outcome.slope, expected) <= 1e-12


@pytest.mark.parametrize(
    "rule", [TGeoOneStep(level=0.3), TGeoOneStep("paper", centred=False)], ids=["centred", "paper"]
)
def test_the_gradient_of_omega_equals_finite_differences(rule: TGeoOneStep) -> None:
    """Every fusion parameter moved, the real Adam step with active clipping, the outer loss; features frozen."""
    problem = make_bilevel(OptimizerSpec("adam", 0.01, clip_norm=0.05), rule=replace(rule, hidden=4))
    outcome = bilevel_step(problem, problem.inner, problem.outer, CONTEXT)
    points = problem.points(problem.losses(problem.theta, problem.inner)[0], problem.inner)
    size = outcome.slope.abs().mean(-1).sum()

    def outer(omega: Tensors) -> float:
        return outer_after(problem, problem.rule.weights(omega, points, CONTEXT))

    for name, value in problem.omega.items():
        numeric = torch.zeros_like(value)
        for index in range(value.numel()):
            for sign in (1, -1):
                moved = value.clone()
                moved.view(-1)[index] += sign * SIZE
                numeric.view(-1)[index] += sign * outer({**problem.omega, name: moved}) / (2 * SIZE)
        error = (outcome.fusion[name] * size - numeric).abs().max()
        assert error <= 1e-6 * max((g * size).abs().max() for g in outcome.fusion.values())


@pytest.mark.parametrize("spec", [SPECS[1], CLIPPED_ADAM, SPECS[-2]], ids=spec_name)
def test_a_pack_of_three_equals_three_alone(spec: OptimizerSpec) -> None:
    """Learning rates, clipping norms and mean |d| are each student's own."""
    pack = make_bilevel(spec, seeds=(0, 1, 2))
    together = bilevel_step(pack, pack.inner, pack.outer, CONTEXT)
    for index in range(3):
        one = pack.student(index)
        alone = bilevel_step(one, one.inner, one.outer, CONTEXT)
        mine = slice(index, index + 1)
        torch.testing.assert_close(together.ratio[mine], alone.ratio, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together.slope[mine], alone.slope, rtol=1e-12, atol=1e-12)
        for name, value in alone.theta.items():
            torch.testing.assert_close(together.theta[name][mine], value, rtol=1e-12, atol=1e-12)
        for name, value in alone.fusion.items():
            torch.testing.assert_close(together.fusion[name][mine], value, rtol=1e-12, atol=1e-12)


def test_the_fusion_gradient_has_one_scale() -> None:
    """Outer losses of any size move omega alike: d is divided by its mean size."""
    problem = make_bilevel(OptimizerSpec("sgd", 0.01))
    outcome = bilevel_step(problem, problem.inner, problem.outer, CONTEXT)
    faster = replace(problem, rates=problem.rates * 1e-3)
    small = bilevel_step(faster, problem.inner, problem.outer, CONTEXT)
    assert small.slope.abs().max() < 1e-2 * outcome.slope.abs().max()
    for name, value in outcome.fusion.items():
        assert 0.1 < small.fusion[name].norm() / value.norm() < 10


def test_the_sum_of_row_weights_does_not_matter() -> None:
    problem = make_bilevel(CLIPPED_ADAM)
    outcome = bilevel_step(problem, problem.inner, problem.outer, CONTEXT)
    heavy = replace(problem.inner, row_weights=problem.inner.row_weights * 1000)
    same = bilevel_step(problem, heavy, problem.outer, CONTEXT)
    torch.testing.assert_close(same.slope, outcome.slope, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(same.fusion, outcome.fusion, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("rows", [0, ROWS], ids=["no rows", "weights zero"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_n7_an_empty_batch_gives_zeros(rows: int, dtype: torch.dtype) -> None:
    problem = make_bilevel(OptimizerSpec("adam", 0.01, clip_norm=0.05), seeds=(0, 1))
    cast = {
        part: {name: value.to(dtype) for name, value in getattr(problem, part).items()} for part in ("theta", "omega")
    }
    problem = replace(problem, module=problem.module.to(dtype), class_means=problem.class_means.to(dtype), **cast)
    inner, outer = (
        replace(
            batch.part(slice(rows)),
            inputs=batch.inputs[:rows].to(dtype),
            teachers=batch.teachers[:rows].to(dtype),
            row_weights=torch.zeros(min(rows, len(batch.labels)), dtype=dtype),
        )
        for batch in (problem.inner, problem.outer)
    )
    moments = {name: value if name == "step" else value.to(dtype) for name, value in problem.moments.items()}
    outcome = bilevel_step(replace(problem, moments=moments), inner, outer, CONTEXT)
    assert outcome.slope.shape == (2, rows, 1 + TEACHERS)
    assert (outcome.slope == 0).all()
    assert all((value == 0).all() for value in outcome.fusion.values())
    assert all(value.isfinite().all() for value in outcome.theta.values())
    assert outcome.ratio.isfinite().all()


def test_without_a_graph_the_gradients_are_plain() -> None:
    problem = make_bilevel(SPECS[0])
    theta = leaves(problem.theta)
    _, losses = problem.losses(theta, problem.inner)
    ratio = torch.full_like(losses, 1 / 3).detach()
    grads, coefficients = inner_gradient(theta, losses, ratio, problem.inner.row_weights, create_graph=False)
    assert not coefficients.requires_grad
    assert not any(value.requires_grad for value in grads.values())
    torch.testing.assert_close(grads, inner_gradients(problem, ratio), rtol=1e-13, atol=1e-15)


def test_a_parameter_without_part_in_the_loss_gets_zeros() -> None:
    problem = make_bilevel(SPECS[0])
    theta = leaves({**problem.theta, "unused": torch.ones(1, 3, dtype=torch.float64)})
    used = {name: theta[name] for name in problem.theta}
    _, losses = problem.losses(used, problem.inner)
    ratio = torch.ones_like(losses).detach()
    grads, _ = inner_gradient(theta, losses, ratio, problem.inner.row_weights, create_graph=True)
    assert (grads["unused"] == 0).all()


def test_the_pack_of_the_tests_is_not_trivial() -> None:
    problem = make_bilevel(CLIPPED_ADAM, seeds=(0, 1))
    logits = apply(problem.module, problem.theta, problem.inner.inputs)
    assert logits.shape == (2, ROWS, CLASSES)
    outcome = bilevel_step(problem, problem.inner, problem.outer, CONTEXT)
    assert outcome.ratio.std(1).min() > 0.01
    assert (outcome.slope != 0).all()
