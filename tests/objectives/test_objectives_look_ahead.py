"""The look-ahead against the unrolled preconditioned steps, its growth guard, and what P is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives_pack import CLIPPED_ADAM, SPECS, Bilevel, Tensors, bilevel_step, make_bilevel, spec_name
from torch import Tensor

from tgeokd_ray.objectives.look_ahead import look_ahead
from tgeokd_ray.objectives.optimizers import Optimizer, OptimizerSpec, Preconditioner
from tgeokd_ray.objectives.points import Context

SHAPES = {"weight": (4, 3), "bias": (5,), "scale": ()}
SIZE, ROWS, STEPS = 18, 6, 7


def normal(students: int, seed: int, scale: float = 1.0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {k: scale * torch.randn(students, *s, generator=generator, dtype=torch.float64) for k, s in SHAPES.items()}


def flat(tensors: Tensors) -> Tensor:
    """[R, SIZE]."""
    return torch.cat([value.reshape(value.shape[0], -1) for value in tensors.values()], 1)


def folded(values: Tensor) -> Tensors:
    pieces = values.split([torch.Size(shape).numel() for shape in SHAPES.values()], 1)
    return {name: piece.reshape(-1, *SHAPES[name]) for name, piece in zip(SHAPES, pieces, strict=True)}


def textbook(spec: OptimizerSpec, theta: Tensors, grads: Tensors, after: Tensors, rates: Tensor) -> tuple[Tensor, ...]:
    """P without the clipping factor, that factor, and the decay per step, as [R, SIZE], [R, 1] and [R, SIZE]."""
    size, rate = flat(grads).norm(dim=1, keepdim=True), rates.unsqueeze(1)
    factor = torch.ones_like(size) if spec.clip_norm is None else (spec.clip_norm / (size + 1e-6)).clamp(max=1)
    plain = rate.expand_as(flat(theta))
    if spec.kind in ("adagrad", "adam", "adamw"):
        second = flat({name: after[f"second.{name}"] for name in theta})
        correction = 1.0 if spec.kind == "adagrad" else 1 - spec.betas[1] ** after["step"].unsqueeze(1)
        plain = rate / ((second / correction).sqrt() + 1e-4)
    decay = (rate if spec.kind == "adamw" else plain) * spec.weight_decay
    return plain, factor, decay.expand_as(plain)


def mid_training(spec: OptimizerSpec) -> tuple[Optimizer, tuple[Tensors, Tensors, Tensors, Tensor]]:
    """An optimizer of two students, and theta, gradients, moments and rates after five steps."""
    optimizer, theta = Optimizer(spec), normal(2, 0)
    moments, rates = optimizer.init(theta), torch.tensor([0.01, 0.05], dtype=torch.float64)
    for step in range(5):
        theta, moments = optimizer.update(theta, normal(2, step + 1, 0.1), moments, rates)
    return optimizer, (theta, normal(2, 60, 0.1), moments, rates)


@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_the_look_ahead_equals_the_unrolled_preconditioned_steps(spec: OptimizerSpec) -> None:
    """Losses whose difference is linear in theta, so that H and dg/da stay: the steps are written out by hand."""
    optimizer, (theta, grads, moments, rates) = mid_training(spec)
    _, after = optimizer.update(theta, grads, moments, rates)
    plain, factor, decay = textbook(spec, theta, grads, after, rates)
    generator = torch.Generator().manual_seed(8)
    axes, _ = torch.linalg.qr(torch.randn(2, SIZE, SIZE, generator=generator, dtype=torch.float64))
    curvatures = torch.linspace(0.01, 1.5, SIZE, dtype=torch.float64)
    root = (plain * factor).rsqrt()  # P H has the eigenvalues `curvatures`
    h = root.unsqueeze(2) * (axes * curvatures) @ axes.transpose(1, 2) * root.unsqueeze(1)
    along = torch.randn(2, ROWS, SIZE, generator=generator, dtype=torch.float64)
    ratio = torch.rand(2, ROWS, generator=generator, dtype=torch.float64).requires_grad_()
    position, v = flat(theta), flat(normal(2, 9))
    for _ in range(STEPS):
        gradient = torch.einsum("rij,rj->ri", h, position) + torch.einsum("rn,rni->ri", ratio, along)
        position = position - plain * factor * gradient - decay * position
    (expected,) = torch.autograd.grad((position * v).sum(), ratio)

    def hessian(direction: Tensors) -> Tensors:
        return folded(torch.einsum("rij,rj->ri", h, flat(direction)))

    w, terms = look_ahead(folded(v), optimizer.preconditioner(theta, grads, moments, rates), hessian, STEPS)
    d = -torch.einsum("rni,ri->rn", along, flat(w))
    assert (terms == STEPS).all()
    assert ((d - expected).abs().max() / expected.abs().max()).item() <= 1e-10


def test_for_sgd_these_are_the_steps_of_the_optimizer() -> None:
    """Coupled decay included: K real steps on a quadratic, differentiated by central differences."""
    spec = OptimizerSpec("sgd", 0.05, weight_decay=0.3)
    optimizer, rates = Optimizer(spec), torch.tensor([0.05], dtype=torch.float64)
    matrix = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    h, (start, slope, v) = matrix @ matrix.T / SIZE, (normal(1, seed) for seed in (3, 4, 5))
    moments = optimizer.init(start)

    def end(a: float) -> Tensor:
        theta = start
        for _ in range(STEPS):
            grads = folded(flat(theta) @ h + a * flat(slope))
            theta, _ = optimizer.update(theta, grads, moments, rates)
        return (flat(theta) * flat(v)).sum()

    linear = optimizer.preconditioner(start, folded(flat(start) @ h), moments, rates)
    w, _ = look_ahead(v, linear, lambda direction: folded(flat(direction) @ h), STEPS)
    assert -(flat(w) * flat(slope)).sum().item() == pytest.approx((end(1) - end(-1)).item() / 2, rel=1e-10)


@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_p_is_positive_and_pure(spec: OptimizerSpec) -> None:
    optimizer, (theta, grads, moments, rates) = mid_training(spec)
    before = {name: value.clone() for name, value in moments.items()}
    scale, decay = optimizer.preconditioner(theta, grads, moments, rates)
    assert (decay is None) == (spec.weight_decay == 0)
    assert (flat(scale) > 0).all()
    assert all(torch.equal(value, before[name]) for name, value in moments.items())
    loose = replace(spec, clip_norm=1e9 if spec.clip_norm else None)
    unclipped, same = Optimizer(loose).preconditioner(theta, grads, moments, rates)
    if spec.clip_norm and spec.kind in ("sgd", "momentum", "nesterov"):
        factor = spec.clip_norm / (flat(grads).norm(dim=1, keepdim=True) + 1e-6)
        torch.testing.assert_close(flat(scale), factor * flat(unclipped), rtol=1e-14, atol=0)
        assert decay is not None
        assert same is not None
        torch.testing.assert_close(decay, same, rtol=0, atol=0)  # the decay itself is not clipped


def test_one_term_is_p_v() -> None:
    scale, v = normal(2, 1), normal(2, 2)

    def hessian(direction: Tensors) -> Tensors:
        raise AssertionError("one term needs no product")

    w, terms = look_ahead(v, Preconditioner(scale), hessian, 1)
    torch.testing.assert_close(w, {name: scale[name] * v[name] for name in v}, rtol=0, atol=0)
    assert terms.tolist() == [1, 1]


def diverging(factor: float, students: int = 2) -> tuple[Preconditioner, Tensors]:
    """P = .1, and an H of the last student that multiplies its terms by `-factor`; the first one's halve."""
    scale = {name: torch.full_like(value, 0.1) for name, value in normal(students, 1).items()}
    return Preconditioner(scale), normal(students, 2)


@pytest.mark.parametrize("factor", [1.01, 30.0, 1e200, float("inf")])
def test_a_series_that_grows_ends_for_that_student_alone(factor: float) -> None:
    linear, v = diverging(factor)
    curvature = torch.tensor([5.0, 10 * (1 + factor)], dtype=torch.float64)

    def hessian(direction: Tensors) -> Tensors:
        return folded(curvature.unsqueeze(1) * flat(direction))

    w, terms = look_ahead(v, linear, hessian, STEPS)
    assert terms.tolist() == [STEPS, 1]
    torch.testing.assert_close(flat(w)[0], 0.1 * flat(v)[0] * (2 - 2.0 ** (1 - STEPS)), rtol=1e-14, atol=0)
    assert torch.equal(flat(w)[1], 0.1 * flat(v)[1])


def test_terms_may_grow_again_up_to_the_first() -> None:
    """Two directions, one that dies at once and one of negative curvature: what a real unroll has, too."""
    scale = {"x": torch.full((1, 2), 0.1, dtype=torch.float64)}
    v = {"x": torch.tensor([[3.0, 1.0]], dtype=torch.float64)}
    curvature = torch.tensor([10.0, -2.0], dtype=torch.float64)  # factors 0 and 1.2
    w, terms = look_ahead(v, Preconditioner(scale), lambda d: {"x": d["x"] * curvature}, 20)
    kept = int(terms.item())
    assert 1.2 ** (kept - 1) <= 10**0.5 < 1.2**kept
    assert w["x"][0, 0].item() == pytest.approx(0.3)
    assert w["x"][0, 1].item() == pytest.approx(0.1 * sum(1.2**k for k in range(kept)), rel=1e-12)


def dense(problem: Bilevel, ratio: Tensor) -> Tensor:
    """The Hessian [SIZE, SIZE] of the inner loss of one student, entry by entry."""
    names, batch = list(problem.theta), problem.inner
    sizes = [problem.theta[name].numel() for name in names]

    def loss(values: Tensor) -> Tensor:
        pieces = zip(names, values.split(sizes), strict=True)
        theta = {name: piece.reshape(problem.theta[name].shape) for name, piece in pieces}
        losses = problem.losses(theta, batch)[1]
        return ((ratio * losses).sum(-1) * batch.row_weights).sum() / batch.row_weights.sum()

    values = torch.cat([problem.theta[name].reshape(-1) for name in names])
    return torch.autograd.functional.hessian(loss, values)


def test_a_step_of_the_loop_looks_ahead_with_its_own_batch() -> None:
    """w of a bilevel step with K = 5 against dense matrices: P, H and v of that step."""
    problem = make_bilevel(CLIPPED_ADAM)
    context = Context(0.5)
    one, five = (bilevel_step(problem, problem.inner, problem.outer, context, look_ahead=k) for k in (1, 5))
    later = {name: value.detach().requires_grad_() for name, value in one.theta.items()}
    outer = problem.outer_loss(later, problem.outer).sum()
    p = torch.cat([g.reshape(-1) for g in torch.autograd.grad(outer, list(later.values()))])
    batch, leaf = problem.inner, {name: value.detach().requires_grad_() for name, value in problem.theta.items()}
    losses = problem.losses(leaf, batch)[1]
    inner = ((one.ratio * losses).sum(-1) * batch.row_weights).sum() / batch.row_weights.sum()
    grads = dict(zip(leaf, torch.autograd.grad(inner, list(leaf.values())), strict=True))
    _, after = problem.optimizer.update(problem.theta, grads, problem.moments, problem.rates)
    plain, factor, decay = (x[0] for x in textbook(problem.spec, problem.theta, grads, after, problem.rates))
    h, w = dense(problem, one.ratio), torch.zeros_like(p)
    for _ in range(5):
        w = w + plain * factor * p
        p = p - h @ (plain * factor * p) - decay * p
    found = torch.cat([value.reshape(-1) for value in five.w.values()])
    assert five.terms.tolist() == [5]
    assert ((found - w).abs().max() / w.abs().max()).item() <= 1e-11
    assert (five.slope - one.slope).abs().max() > 0.1 * one.slope.abs().max()
