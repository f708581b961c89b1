"""Tables that move row by row: torch.optim and the papers' formulas are the oracle, finite differences that of w."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.optimizers import Optimizer, OptimizerSpec
from tgeokd_ray.objectives.settings import EMBEDDING_KINDS

ROWS, WIDTH, STUDENTS, STEPS = 9, 4, 2, 12
RATES = torch.tensor([0.01, 0.05], dtype=torch.float64)
KINDS = [kind for kind in EMBEDDING_KINDS if kind != "dense"]
Tensors = dict[str, Tensor]


def optimizer(kind: str, **numbers: float) -> Optimizer:
    return Optimizer(OptimizerSpec("adam", 0.01, embedding=kind, embedding_rate=5.0, **numbers), ["table"])


def normal(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"table": (STUDENTS, ROWS, WIDTH), "bias": (STUDENTS, 3)}
    return {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def gradients(seed: int) -> Tensors:
    """Of a batch that names six of nine rows."""
    found = normal(seed)
    absent = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))[:3]
    return found | {"table": found["table"].index_fill(1, absent, 0.0)}


def midway(kind: str, **numbers: float) -> tuple[Optimizer, Tensors, Tensors]:
    found, theta = optimizer(kind, **numbers), normal(0)
    moments = found.init(theta)
    for step in range(STEPS):
        theta, moments = found.update(theta, gradients(step + 1), moments, RATES)
    return found, theta, moments


@pytest.mark.parametrize("kind", ["sgd", "adagrad", "lazy_adam"])
def test_a_table_moves_as_torch_optim_moves_it(kind: str) -> None:
    """Sparse gradients for Adam, whose bias correction follows the run's steps; torch's adds eps in another place."""
    eps = 1e-30 if kind == "lazy_adam" else 1e-8
    _, theta, _ = midway(kind, eps=eps)
    for r in range(STUDENTS):
        table, rate = normal(0)["table"][r].clone().requires_grad_(), 5 * float(RATES[r])
        makers = {
            "sgd": lambda t, lr: torch.optim.SGD([t], lr),
            "adagrad": lambda t, lr: torch.optim.Adagrad([t], lr, eps=eps),
            "lazy_adam": lambda t, lr: torch.optim.SparseAdam([t], lr, eps=eps),
        }
        oracle = makers[kind](table, rate)
        for step in range(STEPS):
            gradient = gradients(step + 1)["table"][r]
            # an Adagrad and an SGD without momentum do with zeros what they would do without them
            table.grad = gradient.to_sparse(1).coalesce() if kind == "lazy_adam" else gradient
            oracle.step()
        torch.testing.assert_close(theta["table"][r], table.detach(), rtol=1e-12, atol=1e-12)


def test_rowwise_adagrad_has_one_accumulator_a_row() -> None:
    """By the formula of FBGEMM's exact row-wise Adagrad: the mean square of a row's gradient."""
    _, theta, moments = midway("rowwise_adagrad")
    table, sums = normal(0)["table"].clone(), torch.zeros(STUDENTS, ROWS, 1, dtype=torch.float64)
    for step in range(STEPS):
        gradient = gradients(step + 1)["table"]
        sums += gradient.square().mean(-1, keepdim=True)
        table -= 5 * RATES.reshape(-1, 1, 1) * gradient / (sums.sqrt() + 1e-8)
    torch.testing.assert_close(theta["table"], table, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments["second.table"], sums, rtol=1e-12, atol=0)
    assert moments["second.table"].shape == (STUDENTS, ROWS, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_a_gradient_stay_and_nothing_decays(kind: str) -> None:
    found, theta, moments = midway(kind, weight_decay=0.1)
    grads = normal(50)
    grads["table"][:, 2] = 0
    new, later = found.update(theta, grads, moments, RATES)
    assert torch.equal(new["table"][:, 2], theta["table"][:, 2])
    for name in found.moments_of("table"):
        assert torch.equal(later[name][:, 2], moments[name][:, 2])
    undecayed, _ = Optimizer(found.spec.__class__(**{**vars(found.spec), "weight_decay": 0.0}), ["table"]).update(
        theta, grads, moments, RATES
    )
    assert torch.equal(new["table"], undecayed["table"])
    assert not torch.equal(new["bias"], undecayed["bias"])


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("kind", KINDS)
def test_pullback_equals_finite_differences(kind: str, clip: float | None) -> None:
    """<w, e> = d<v, U(g + t e)>/dt on the rows that have a gradient."""
    found, theta, moments = midway(kind, clip_norm=clip)  # type: ignore[arg-type]
    grads, v = gradients(60), normal(61)
    named = (grads["table"] != 0).any(-1, keepdim=True)
    w = found.pullback(theta, grads, moments, RATES, v)

    def value(size: float, direction: Tensors) -> Tensor:
        moved = {name: gradient + size * direction[name] for name, gradient in grads.items()}
        new, _ = found.update(theta, moved, moments, RATES)
        return sum(((theta[n] - new[n]) * v[n]).reshape(STUDENTS, -1).sum(1) for n in theta)  # type: ignore[return-value]

    for seed in range(5):
        direction = normal(70 + seed)
        direction["table"] = direction["table"] * named
        numeric = (value(1e-5, direction) - value(-1e-5, direction)) / 2e-5
        exact = sum((w[n] * direction[n]).reshape(STUDENTS, -1).sum(1) for n in w)
        torch.testing.assert_close(exact, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_were_never_seen_pull_back_finitely(kind: str) -> None:
    found, theta = optimizer(kind), normal(0)
    cold = {name: torch.zeros_like(value) for name, value in theta.items()}
    w = found.pullback(theta, cold, found.init(theta), RATES, normal(1))
    assert all(value.isfinite().all() for value in w.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_preconditioner_is_the_step_at_moments_that_stand_still(kind: str) -> None:
    """P at the rate of the table: that of the step, but for the floor 1e-4 under the root."""
    found, theta, moments = midway(kind)
    grads = normal(80)
    scale, decay = found.preconditioner(theta, grads, moments, RATES)
    assert decay is None
    assert scale["table"].shape == theta["table"].shape
    after = found.update(theta, grads, moments, RATES)[1]
    root: Tensor | float = 1.0
    if kind != "sgd":
        correction = 1 - 0.999 ** (STEPS + 1) if kind == "lazy_adam" else 1.0
        root = (after["second.table"] / correction).sqrt() + 1e-4
    expected = 5 * RATES.reshape(-1, 1, 1) / root * torch.ones_like(theta["table"])
    torch.testing.assert_close(scale["table"], expected, rtol=1e-10, atol=0)


def test_dense_tables_are_like_everything_else() -> None:
    plain = Optimizer(OptimizerSpec("adam", 0.01), ["table"])
    assert plain.tables == frozenset()
    assert plain.moments_of("table") == ("first.table", "second.table")


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        OptimizerSpec("adam", 0.01, embedding="lazy_adm", embedding_rate=0.0)
    assert "unknown optimizer.embedding 'lazy_adm'; did you mean 'lazy_adam'?" in str(caught.value)
    assert "optimizer.embedding_rate must be" in str(caught.value)
