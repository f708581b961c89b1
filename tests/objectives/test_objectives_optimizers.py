"""torch.optim is the oracle of `update`; autograd and finite differences are those of `pullback`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from objectives_pack import SPECS, Tensors, spec_name
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.optimizers import Optimizer, OptimizerSpec
from tgeokd_ray.objectives.settings import KINDS
from tgeokd_ray.objectives.settings import OptimizerSpec as PlainSpec

SHAPES = {"weight": (7, 3), "bias": (5,), "scale": ()}
STEPS = 20


def normal(students: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(students, *s, generator=generator, dtype=dtype) for k, s in SHAPES.items()}


def reference(spec: OptimizerSpec, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
    common = {"lr": learning_rate, "weight_decay": spec.weight_decay, "foreach": False}
    adam = {"betas": spec.betas, "eps": spec.eps}
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(parameters, **common),
        "momentum": lambda: torch.optim.SGD(parameters, momentum=spec.momentum, **common),
        "nesterov": lambda: torch.optim.SGD(parameters, momentum=spec.momentum, nesterov=True, **common),
        "adagrad": lambda: torch.optim.Adagrad(parameters, eps=spec.eps, **common),
        "adam": lambda: torch.optim.Adam(parameters, **common, **adam),
        "adamw": lambda: torch.optim.AdamW(parameters, **common, **adam),
    }
    return makers[spec.kind]()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_update_equals_torch_optim(spec: OptimizerSpec, dtype: torch.dtype) -> None:
    """20 steps, three students with learning rates of their own: the same bits without clipping, the last place with
    it (a norm is a sum, and sums of three students may be taken in another order)."""
    rates = [0.01, 0.003, 0.1]
    optimizer, theta = Optimizer(spec), normal(3, seed=0, dtype=dtype)
    moments = optimizer.init(theta)
    plain = [[value[r].clone().requires_grad_() for value in theta.values()] for r in range(3)]
    oracles = [reference(spec, parameters, rate) for parameters, rate in zip(plain, rates, strict=True)]
    for step in range(STEPS):
        grads = normal(3, seed=step + 1, dtype=dtype)
        for r, (parameters, oracle) in enumerate(zip(plain, oracles, strict=True)):
            for parameter, gradient in zip(parameters, grads.values(), strict=True):
                parameter.grad = gradient[r].clone()
            if spec.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, spec.clip_norm, foreach=False)
            oracle.step()
        theta, moments = optimizer.update(theta, grads, moments, torch.tensor(rates, dtype=torch.float64))
    tolerance = 0.0 if spec.clip_norm is None else 4 * torch.finfo(dtype).eps
    for r, parameters in enumerate(plain):
        for parameter, value in zip(parameters, theta.values(), strict=True):
            torch.testing.assert_close(value[r], parameter.detach(), rtol=tolerance, atol=tolerance)
    assert moments["step"].tolist() == [STEPS] * 3


@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_update_and_pullback_are_pure(spec: OptimizerSpec) -> None:
    optimizer, theta, grads, v = Optimizer(spec), normal(2, 0), normal(2, 1), normal(2, 2)
    moments, rates = optimizer.init(theta), torch.tensor([0.1, 0.2])
    given = {"theta": theta, "grads": grads, "moments": moments, "v": v}
    before = {part: {name: value.clone() for name, value in tensors.items()} for part, tensors in given.items()}
    leaf = {name: value.clone().requires_grad_() for name, value in theta.items()}
    new_theta, new_moments = optimizer.update(leaf, grads, moments, rates)
    optimizer.pullback(theta, grads, moments, rates, v)
    for part, tensors in given.items():
        assert all(torch.equal(value, before[part][name]) for name, value in tensors.items())
    assert not any(value.requires_grad for value in [*new_theta.values(), *new_moments.values()])
    assert set(new_moments) == set(moments)


@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_pullback_equals_finite_differences(spec: OptimizerSpec) -> None:
    """<w, e> = d<v, U(g + t e)>/dt for random e, moments mid-training, two students."""
    optimizer, theta, v = Optimizer(spec), normal(2, 0), normal(2, 50)
    moments, rates = optimizer.init(theta), torch.tensor([0.01, 0.05], dtype=torch.float64)
    for step in range(5):
        theta, moments = optimizer.update(theta, normal(2, step + 1), moments, rates)
    grads = normal(2, 60)
    w = optimizer.pullback(theta, grads, moments, rates, v)

    def value(size: float, direction: Tensors) -> Tensor:
        moved = {name: gradient + size * direction[name] for name, gradient in grads.items()}
        new_theta, _ = optimizer.update(theta, moved, moments, rates)
        return sum(((theta[name] - new_theta[name]) * v[name]).reshape(2, -1).sum(1) for name in theta)

    for seed in range(5):
        direction = normal(2, 70 + seed)
        numeric = (value(1e-5, direction) - value(-1e-5, direction)) / 2e-5
        exact = sum((w[name] * direction[name]).reshape(2, -1).sum(1) for name in w)
        torch.testing.assert_close(exact, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", SPECS, ids=spec_name)
def test_pullback_is_finite_where_nothing_was_ever_seen(spec: OptimizerSpec, dtype: torch.dtype) -> None:
    optimizer, theta, v = Optimizer(spec), normal(2, 0, dtype), normal(2, 1, dtype)
    moments, rates = optimizer.init(theta), torch.tensor([0.01, 0.05])
    cold = {name: torch.zeros_like(value) for name, value in theta.items()}
    for grads in (cold, {**cold, "bias": v["bias"]}, {**cold, "bias": 1e-30 * v["bias"]}):
        w = optimizer.pullback(theta, grads, moments, rates, v)
        assert all(value.isfinite().all() for value in w.values())
        assert all(value.dtype == dtype for value in w.values())


def test_the_slope_of_a_cold_row_is_the_exact_one() -> None:
    """Adam's first step at g = 0: U = lr g / (|g| + eps), slope lr / eps."""
    optimizer = Optimizer(OptimizerSpec("adam", 0.01))
    theta = {"x": torch.ones(1, 1, dtype=torch.float64)}
    zero = {"x": torch.zeros(1, 1, dtype=torch.float64)}
    w = optimizer.pullback(theta, zero, optimizer.init(theta), torch.tensor([0.01], dtype=torch.float64), theta)
    assert w["x"].item() == pytest.approx(0.01 / 1e-8, rel=1e-12)


def test_moments_have_flat_names() -> None:
    theta = normal(2, 0)
    names = {kind: set(Optimizer(OptimizerSpec(kind, 0.1)).init(theta)) for kind in KINDS}
    first, second = ({f"{part}.{name}" for name in SHAPES} for part in ("first", "second"))
    assert names["sgd"] == {"step"}
    assert names["momentum"] == names["nesterov"] == {"step"} | first
    assert names["adagrad"] == {"step"} | second
    assert names["adam"] == names["adamw"] == {"step"} | first | second
    adam = Optimizer(OptimizerSpec("adam", 0.1)).init(theta)
    assert adam["step"].shape == (2,)
    assert adam["step"].dtype == torch.float64


def test_wrong_numbers_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        OptimizerSpec("adm", -1.0, eps=0.0, betas=(0.9, 1.0), clip_norm=0.0, momentum=1.0, weight_decay=float("nan"))
    message = str(caught.value)
    assert "unknown optimizer.kind 'adm'; did you mean 'adam'?" in message
    for name in ("learning_rate", "eps", "betas", "clip_norm", "momentum", "weight_decay"):
        assert f"optimizer.{name} must be" in message
    assert PlainSpec is OptimizerSpec


def test_settings_are_readable_without_torch() -> None:
    code = "import sys, tgeokd_ray.objectives.settings; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)
