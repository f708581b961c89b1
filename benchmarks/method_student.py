"""A small student on random rows, mid-training, in float64, and torch.optim as the oracle of its inner steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.models import build
from tgeokd_ray.objectives.hypergradient import InnerStep
from tgeokd_ray.objectives.look_ahead import LookAhead
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import Constant
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.objectives.ways import WAYS, Inner, Way
from tgeokd_ray.training.problem import Problem

Tensors = dict[str, Tensor]
NUMERIC, CATEGORICAL, IDS, CLASSES = 6, 2, 20, 3
# What torch.optim calls the moments that are here `first` and `second`.
STATES: dict[str, dict[str, str]] = {
    "sgd": {},
    "momentum": {"momentum_buffer": "first"},
    "nesterov": {"momentum_buffer": "first"},
    "adagrad": {"sum": "second"},
    "adam": {"exp_avg": "first", "exp_avg_sq": "second"},
    "adamw": {"exp_avg": "first", "exp_avg_sq": "second"},
}


def random_rows(rows: int, seed: int) -> Rows:
    """Rows whose labels follow the numeric columns, and a teacher that knows the scores with noise of its own."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    numeric = torch.randn(rows, NUMERIC, generator=generator, dtype=torch.float64)
    scores = numeric @ torch.linspace(-2, 2, NUMERIC * CLASSES, dtype=torch.float64).reshape(NUMERIC, CLASSES)
    gumbel = -(-uniform(2, rows, CLASSES).log()).log()
    return Rows(
        row_id=torch.arange(rows),
        numeric=numeric,
        categorical=torch.randint(IDS, (rows, CATEGORICAL), generator=generator),
        labels=(scores + gumbel[0]).argmax(-1),
        weights=uniform(rows) + 0.5,
        logits=(scores + gumbel[1]).unsqueeze(1),
        covered=torch.empty(rows, 0, dtype=torch.uint8),
        ratios=torch.empty(rows, 0, 2),
        targets=torch.empty(rows, 0),
        offset=torch.empty(rows, 0),
    )


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    shape = {"num_numeric": NUMERIC, "num_ids": IDS, "num_categorical": CATEGORICAL, "num_classes": CLASSES}
    options = {"kind": "mlp", "hidden": [12], "embedding": 3}
    return build(options, generator=torch.Generator().manual_seed(3), **shape).to(dtype)


@dataclass(frozen=True)
class Student:
    """One student (R = 1) in the middle of its training; `ratio` [1, N, 2] is what its next step uses."""

    spec: OptimizerSpec
    problem: Problem
    inner: Rows
    outer: Rows
    ratio: Tensor
    theta: Tensors
    moments: Tensors

    @property
    def rates(self) -> Tensor:
        return torch.tensor([self.spec.learning_rate], dtype=torch.float64)

    def losses(self, theta: Tensors) -> Tensor:
        return self.problem.losses(self.problem.logits(theta, self.inner), self.inner)

    def inner_gradient(self, theta: Tensors, ratio: Tensor) -> Tensors:
        """The gradient of the inner loss, differentiable by both."""
        shares = self.inner.weights / self.inner.weights.sum()
        loss = ((ratio * self.losses(theta)).sum(-1) * shares).sum()
        return dict(zip(theta, torch.autograd.grad(loss, list(theta.values()), create_graph=True), strict=True))

    def outer_after(self, ratio: Tensor) -> float:
        """J after the real step with this ratio."""
        grads = self.inner_gradient(leaves(self.theta), ratio)
        theta, _ = Optimizer(self.spec).update(self.theta, grads, self.moments, self.rates)
        return self.problem.outer_loss(theta, self.outer).item()

    def slope(
        self, name: str = "split", num_steps: int = 1, outer_after: int = 1, num_parts: int = 1
    ) -> tuple[Tensor, float]:
        """dJ/da [1, N, 2] as a step of the loop takes it, and how many terms its look-ahead kept.

        The loop's outer gradient is that after one step; it can be that after more of them on the same batch. Products
        with the Hessian read one of `num_parts` parts of the batch after the other.
        """
        theta, optimizer = leaves(self.theta), Optimizer(self.spec)
        way: Way = WAYS[name](Inner(theta, self.losses(theta), self.losses, self.ratio, self.inner.weights))
        later, moments = optimizer.update(self.theta, way.gradients, self.moments, self.rates)
        for _ in range(outer_after - 1):
            later, moments = optimizer.update(
                later, self.inner_gradient(leaves(later), self.ratio), moments, self.rates
            )
        after = leaves(later)
        v = torch.autograd.grad(self.problem.outer_loss(after, self.outer), list(after.values()))
        taken = InnerStep(optimizer, self.theta, way.gradients, self.moments, self.rates)
        parts = (
            [way] if num_parts == 1 else [self.part(name, theta, slice(n, None, num_parts)) for n in range(num_parts)]
        )
        turns = cycle(parts)
        found: LookAhead = taken.pulled_back(
            dict(zip(after, v, strict=True)), lambda d: next(turns).hessian(d), num_steps
        )
        return way.ratio_gradient(found.w), found.terms.item()

    def part(self, name: str, theta: Tensors, chosen: slice) -> Way:
        """The way of some rows of the inner batch."""
        rows = self.inner[chosen]

        def losses(at: Tensors) -> Tensor:
            return self.problem.losses(self.problem.logits(at, rows), rows)

        return WAYS[name](Inner(theta, losses(theta), losses, self.ratio[:, chosen], rows.weights))

    def unrolled(self, num_steps: int = 1) -> Tensor:
        """dJ/da [1, N, 2] by reverse mode through `num_steps` steps of torch.optim on the inner batch."""
        ratio, theta, moments = self.ratio.clone().requires_grad_(), leaves(self.theta), self.moments
        for _ in range(num_steps):
            theta, moments = torch_step(self.spec, theta, self.inner_gradient(theta, ratio), moments)
        return torch.autograd.grad(self.problem.outer_loss(theta, self.outer), ratio)[0]

    def in_float32(self) -> Student:
        """The same student in single precision."""

        def single(tensors: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name: v.float() if torch.is_floating_point(v) and name != "step" else v for name, v in tensors.items()
            }

        problem = replace(
            self.problem,
            module=network(torch.float32),
            temperature=self.problem.temperature.float(),
            class_means=self.problem.class_means.float(),
        )
        inner, outer = (Rows(**single(vars(rows))) for rows in (self.inner, self.outer))
        return Student(self.spec, problem, inner, outer, self.ratio.float(), single(self.theta), single(self.moments))


def make_student(spec: OptimizerSpec, rows: int, outer_rows: int, past: int = 30) -> Student:
    """A student after `past` steps on batches of its own."""
    means = torch.full((1, CLASSES, CLASSES), 1 / CLASSES, dtype=torch.float64)
    problem = Problem(network(), RulePack.of([Constant(0.5)]), torch.full((1,), 2.0, dtype=torch.float64), means)
    theta = stack([problem.module])
    optimizer = Optimizer(spec)
    ratio = torch.rand(1, rows, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ratio = torch.cat([1 - ratio, ratio], -1)
    made = Student(spec, problem, random_rows(rows, 0), random_rows(outer_rows, 1), ratio, theta, optimizer.init(theta))
    for step in range(past):
        here = replace(made, inner=random_rows(rows, 10 + step))
        grads = here.inner_gradient(leaves(made.theta), ratio)
        theta, moments = optimizer.update(made.theta, grads, made.moments, made.rates)
        made = replace(made, theta=theta, moments=moments)
    return made


def leaves(tensors: Tensors) -> Tensors:
    return {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}


def torch_step(spec: OptimizerSpec, theta: Tensors, grads: Tensors, moments: Tensors) -> tuple[Tensors, Tensors]:
    """A step of torch.optim that autograd can differentiate, from and to our moments."""
    if spec.clip_norm is not None:
        size = torch.stack([value.norm() for value in grads.values()]).norm()
        grads = {name: value * (spec.clip_norm / (size + 1e-6)).clamp(max=1) for name, value in grads.items()}
    new = {name: value.clone() for name, value in theta.items()}  # torch.optim writes into them
    oracle = _torch_optimizer(spec, list(new.values()))
    step = moments["step"].reshape(()).clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that a gradient lies on a tensor that is no leaf
        for name, value in new.items():
            value.grad = grads[name]
            kept = {theirs: moments[f"{ours}.{name}"].clone() for theirs, ours in STATES[spec.kind].items()}
            oracle.state[value] = kept | {"step": step.clone()}
        oracle.step()
    after = {
        f"{ours}.{name}": oracle.state[value][theirs]
        for name, value in new.items()
        for theirs, ours in STATES[spec.kind].items()
    }
    return new, after | {"step": moments["step"] + 1}


def _torch_optimizer(spec: OptimizerSpec, parameters: list[Tensor]) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay, "differentiable": True}
    adam = {**common, "betas": spec.betas, "eps": spec.eps}
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(parameters, **common),
        "momentum": lambda: torch.optim.SGD(parameters, momentum=spec.momentum, **common),
        "nesterov": lambda: torch.optim.SGD(parameters, momentum=spec.momentum, nesterov=True, **common),
        "adagrad": lambda: torch.optim.Adagrad(parameters, eps=spec.eps, **common),
        "adam": lambda: torch.optim.Adam(parameters, **adam),
        "adamw": lambda: torch.optim.AdamW(parameters, **adam),
    }
    return makers[spec.kind]()
