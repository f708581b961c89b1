"""Split reverse, forward mode and finite differences give one hypergradient; what torch cannot do is named."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objectives_pack import (
    CLIPPED_ADAM,
    ROWS,
    SPECS,
    TEACHERS,
    bilevel_step,
    leaves,
    make_batch,
    make_bilevel,
    spec_name,
)
from torch import Tensor, nn
from torch.nn import functional

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.losses import source_losses
from tgeokd_ray.objectives.optimizers import OptimizerSpec
from tgeokd_ray.objectives.points import Context
from tgeokd_ray.objectives.stacking import apply, stack
from tgeokd_ray.objectives.ways import WAYS, Inner

CONTEXT = Context(progress=0.5)
Tensors = dict[str, Tensor]


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("look_ahead", [1, 4])
@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_three_ways_one_hypergradient(spec: OptimizerSpec, look_ahead: int) -> None:
    """Forward and split agree to rounding; central differences to the cube root of it, squared."""
    problem = make_bilevel(spec, seeds=(0, 1))
    split, forward, finite = (
        bilevel_step(problem, problem.inner, problem.outer, CONTEXT, way=way, look_ahead=look_ahead) for way in WAYS
    )
    for student in range(2):
        assert relative(forward.slope[student], split.slope[student]) <= 1e-12
        assert relative(finite.slope[student], split.slope[student]) <= 1e-7
    torch.testing.assert_close(forward.theta, split.theta, rtol=0, atol=0)
    torch.testing.assert_close(forward.fusion, split.fusion, rtol=1e-10, atol=1e-12)


def inner_of(rows: int = ROWS, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Inner:
    """Two students and their losses at fixed ratios."""
    problem, batch = make_bilevel(CLIPPED_ADAM, seeds=(0, 1)), make_batch(rows, 1)
    batch = replace(batch, inputs=batch.inputs.to(dtype), teachers=batch.teachers.to(dtype))
    theta = leaves({name: scale * value.to(dtype) for name, value in problem.theta.items()})
    module = problem.module.to(dtype)

    def losses_of(at: Tensors) -> Tensor:
        return source_losses(apply(module, at, batch.inputs), batch.teachers, batch.labels, temperature=2.0)

    losses = losses_of(theta)
    generator = torch.Generator().manual_seed(5)
    ratio = torch.rand(losses.shape, generator=generator, dtype=dtype)
    return Inner(theta, losses, losses_of, ratio / ratio.sum(-1, keepdim=True), batch.row_weights)


def direction(theta: Tensors, seed: int = 3) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(v.shape, generator=generator, dtype=v.dtype) for name, v in theta.items()}


@pytest.mark.parametrize(("way", "bound"), [("split", 1e-13), ("forward", 1e-13), ("finite", 1e-8)])
def test_products_with_the_hessian_equal_its_columns(way: str, bound: float) -> None:
    """The dense Hessian of the inner loss, column by column: of each student alone, none between students."""
    inner = inner_of()
    along = direction(inner.theta)
    names = list(inner.theta)
    shares = inner.row_weights / inner.row_weights.sum()

    def loss(*values: Tensor) -> Tensor:
        losses = inner.losses_of(dict(zip(names, values, strict=True)))
        return ((inner.weights * losses).sum(-1) * shares).sum()

    values = tuple(value.detach() for value in inner.theta.values())
    dense = torch.autograd.functional.hessian(loss, values)
    found = WAYS[way](inner).hessian(along)
    for row, name in zip(dense, names, strict=True):
        pairs = zip(row, along.values(), strict=True)
        expected = sum(torch.tensordot(block, one, one.dim()) for block, one in pairs)
        assert relative(found[name], expected) <= bound


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_finite_differences_in_float32_hold_their_bound(scale: float) -> None:
    """Small parameters are the worst case: they move least."""
    exact, found = inner_of(scale=scale), inner_of(dtype=torch.float32, scale=scale)
    w = direction(exact.theta)
    expected = WAYS["split"](exact).ratio_gradient(w)
    d = WAYS["finite"](found).ratio_gradient({name: value.float() for name, value in w.items()})
    assert relative(d.double(), expected) <= 5e-3


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e6])
def test_the_finite_step_does_not_depend_on_the_length_of_w(size: float) -> None:
    inner = inner_of()
    w = {name: size * value for name, value in direction(inner.theta).items()}
    found = WAYS["finite"](inner).ratio_gradient(w) / size
    assert relative(found, WAYS["split"](inner_of()).ratio_gradient(direction(inner.theta))) <= 1e-8


def test_the_last_bits_of_a_direction_s_length_do_not_change_the_finite_step() -> None:
    """All the rest being the same, the length alone decides the step: a bit of it must not."""
    way = WAYS["finite"](inner_of())
    along = direction(way._inner.theta)
    longer = {name: value * (1 + 1e-13) for name, value in along.items()}
    size = way._size(along)
    assert torch.equal(way._size(longer), size)
    assert torch.equal(torch.frexp(size).mantissa, torch.full_like(size, 0.5))


@pytest.mark.parametrize("way", WAYS)
def test_a_direction_of_zero_gives_zeros(way: str) -> None:
    inner = inner_of()
    zero = {name: torch.zeros_like(value) for name, value in inner.theta.items()}
    found = WAYS[way](inner)
    assert all((value == 0).all() for value in found.hessian(zero).values())
    assert (found.ratio_gradient(zero) == 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_n7_no_rows_give_zeros(way: str) -> None:
    inner = inner_of(rows=0)
    found, along = WAYS[way](inner), direction(inner.theta)
    assert all((value == 0).all() for value in found.gradients.values())
    assert all((value == 0).all() for value in found.hessian(along).values())
    assert found.ratio_gradient(along).shape == (2, 0, 1 + TEACHERS)


def test_forward_never_runs_a_backward_pass_twice() -> None:
    """A loss whose backward pass is an operation without a derivative."""
    theta = leaves({"x": torch.tensor([[0.5]], dtype=torch.float64)})
    losses = _Once.apply(theta["x"]).reshape(1, 1, 1)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    inner = Inner(theta, losses, lambda at: at["x"].exp().reshape(1, 1, 1), one, torch.ones(1))
    found = WAYS["forward"](inner)
    assert found.hessian({"x": torch.ones(1, 1, dtype=torch.float64)})["x"].item() == pytest.approx(math.exp(0.5))


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value.exp())
        return value.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


class Bag(nn.Module):
    """The mean of a row's embeddings, then a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(7, 4, mode="mean"), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.bag(ids))


class Attention(nn.Module):
    """Fused attention over a row's embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.project, self.head = nn.Embedding(7, 8), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        parts = self.project(self.embedding(ids)).unsqueeze(1).chunk(3, -1)
        return self.head(functional.scaled_dot_product_attention(*parts).squeeze(1).mean(1))


class Plain(Bag):
    """What Bag computes, from operations that torch can differentiate twice."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(functional.embedding(ids, self.bag.weight).mean(1))


def inner_of_ids(module: nn.Module) -> Inner:
    torch.manual_seed(4)
    ids, labels, teachers = torch.randint(7, (6, 5)), torch.randint(3, (6,)), torch.randn(6, 1, 3).double()
    theta = leaves(stack([module.double()]))

    def losses_of(at: Tensors) -> Tensor:
        return source_losses(apply(module, at, ids), teachers, labels, temperature=2.0)

    losses = losses_of(theta)
    return Inner(theta, losses, losses_of, torch.full_like(losses, 0.5).detach(), torch.ones(6))


@pytest.mark.parametrize("way", ["split", "forward"])
@pytest.mark.parametrize("module", [Bag, Attention])
def test_operations_without_a_second_derivative_say_what_to_use(module: type[nn.Module], way: str) -> None:
    inner = inner_of_ids(module())
    w = direction(inner.theta)
    with pytest.raises(ConfigError, match=f"distill.fusion.hypergradient={way} cannot differentiate") as caught:
        WAYS[way](inner).ratio_gradient(w)
    assert "--set distill.fusion.hypergradient=finite" in str(caught.value)


def test_finite_differences_serve_an_embedding_bag() -> None:
    bag, plain = Bag(), Plain()
    plain.load_state_dict(bag.state_dict())
    inner, reference = inner_of_ids(bag), inner_of_ids(plain)
    along = direction(inner.theta)
    expected, found = WAYS["split"](reference), WAYS["finite"](inner)
    for name, value in expected.hessian(along).items():
        assert relative(found.hessian(along)[name], value) <= 1e-7
    assert relative(found.ratio_gradient(along), expected.ratio_gradient(along)) <= 1e-8


def test_other_errors_of_a_student_are_not_translated() -> None:
    way = WAYS["forward"](replace(inner_of(), losses_of=_fails))
    with pytest.raises(RuntimeError, match="out of memory"):
        way.ratio_gradient(direction(inner_of().theta))


def _fails(theta: Tensors) -> Tensor:
    raise RuntimeError("out of memory")
