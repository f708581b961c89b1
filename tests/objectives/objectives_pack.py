"""Random points, a tiny bilevel problem in float64, one step of it as a caller does it, and workers as threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tgeokd_ray.objectives.hypergradient import fusion_gradient, inner_gradient, ratio_gradient
from tgeokd_ray.objectives.losses import cross_entropy, source_losses
from tgeokd_ray.objectives.optimizers import Optimizer, OptimizerSpec
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules import Rule, TGeoOneStep
from tgeokd_ray.objectives.stacking import apply, stack

INPUTS, CLASSES, TEACHERS, ROWS, OUTER_ROWS = 4, 3, 2, 12, 9
Tensors = dict[str, Tensor]

# Every optimizer, without clipping and with one that is active (the gradients' norms are far above .05).
SPECS = [
    OptimizerSpec(kind, 0.01, weight_decay=decay, clip_norm=clip)
    for kind, decay in (("sgd", 0.03), ("momentum", 0.03), ("adam", 0.0), ("adam", 0.03), ("adamw", 0.03))
    for clip in (None, 0.05)
]


def spec_name(spec: OptimizerSpec) -> str:
    return f"{spec.kind}-decay{spec.weight_decay}-{'clipped' if spec.clip_norm else 'free'}"


@dataclass(frozen=True)
class Batch:
    """Rows of one worker: inputs [N, K], labels [N], teacher logits [N, M, C], row weights [N]."""

    inputs: Tensor
    labels: Tensor
    teachers: Tensor
    row_weights: Tensor

    def part(self, rows: slice) -> Batch:
        return Batch(self.inputs[rows], self.labels[rows], self.teachers[rows], self.row_weights[rows])


def make_batch(rows: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(CLASSES, (rows,), generator=generator)
    return Batch(normal(rows, INPUTS), labels, 2 * normal(rows, TEACHERS, CLASSES), normal(rows).abs() + 0.1)


def make_points(rows: int = 6, classes: int = 3, teachers: int = 2, students: int = 2, seed: int = 0) -> Points:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(classes, (rows,), generator=generator)
    means = normal(teachers, classes, classes).softmax(-1)
    return Points(normal(students, rows, classes), normal(rows, teachers, classes), labels, means, normal(rows).abs())


def make_module(seed: int) -> nn.Module:
    """A student with a smooth nonlinearity, so that finite differences see no kink."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(INPUTS, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()


@dataclass(frozen=True)
class Bilevel:
    """R students mid-training: theta and moments after seven steps on random gradients."""

    spec: OptimizerSpec
    seeds: Sequence[int] = (0,)
    rule: Rule = field(default_factory=TGeoOneStep)
    rates: Tensor = field(default_factory=lambda: torch.tensor([0.05], dtype=torch.float64))
    module: nn.Module = field(default_factory=lambda: make_module(99))
    inner: Batch = field(default_factory=lambda: make_batch(ROWS, 1))
    outer: Batch = field(default_factory=lambda: make_batch(OUTER_ROWS, 2))
    class_means: Tensor = field(
        default_factory=lambda: make_batch(CLASSES, 3).teachers.transpose(0, 1).softmax(-1).contiguous()
    )
    theta: Tensors = field(default_factory=dict)
    moments: Tensors = field(default_factory=dict)
    omega: Tensors = field(default_factory=dict)

    @property
    def optimizer(self) -> Optimizer:
        return Optimizer(self.spec)

    def student(self, index: int) -> Bilevel:
        """The same problem with one student of the pack alone."""

        def pick(tensors: Tensors) -> Tensors:
            return {name: value[index : index + 1].clone() for name, value in tensors.items()}

        return replace(
            self,
            seeds=self.seeds[index : index + 1],
            rates=self.rates[index : index + 1],
            theta=pick(self.theta),
            moments=pick(self.moments),
            omega=pick(self.omega),
        )

    def points(self, logits: Tensor, batch: Batch) -> Points:
        return Points(logits.detach(), batch.teachers, batch.labels, self.class_means, batch.row_weights)

    def losses(self, theta: Tensors, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = apply(self.module, theta, batch.inputs)
        return logits, source_losses(logits, batch.teachers, batch.labels, temperature=2.0)

    def outer_loss(self, theta: Tensors, batch: Batch) -> Tensor:
        """[R]: the weighted mean cross-entropy of the outer rows."""
        losses = cross_entropy(apply(self.module, theta, batch.inputs), batch.labels)
        return (losses * batch.row_weights).sum(-1) / batch.row_weights.sum()


def make_bilevel(spec: OptimizerSpec, seeds: Sequence[int] = (0,), **changes: object) -> Bilevel:
    """A problem whose moments are mid-training; rates differ per student."""
    rates = 0.05 * (1 + torch.arange(len(seeds), dtype=torch.float64))
    problem = Bilevel(spec, seeds, rates=rates, **changes)  # type: ignore[arg-type]
    theta = stack([make_module(seed) for seed in seeds])
    moments = problem.optimizer.init(theta)
    for step in range(7):
        parts = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(1000 * seed + step)
            parts.append([torch.randn(v.shape[1:], generator=generator, dtype=v.dtype) * 0.1 for v in theta.values()])
        grads = {name: torch.stack(one) for name, one in zip(theta, zip(*parts, strict=True), strict=True)}
        theta, moments = problem.optimizer.update(theta, grads, moments, problem.rates)
    omega = {k: 3 * v.double() for k, v in problem.rule.init(seeds, CLASSES, TEACHERS).items()}
    return replace(problem, theta=theta, moments=moments, omega=omega)


def leaves(tensors: Tensors) -> Tensors:
    return {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}


@dataclass(frozen=True)
class Outcome:
    """What one bilevel step gives: theta', d [R, N, 1 + M] of the local rows, the (averaged) gradient of omega."""

    theta: Tensors
    ratio: Tensor
    slope: Tensor
    fusion: Tensors


Mean = Callable[[Tensors, Tensor], Tensors]


def alone(tensors: Tensors, weight: Tensor) -> Tensors:
    return {name: value.detach() for name, value in tensors.items()}


def bilevel_step(
    problem: Bilevel, inner: Batch, outer: Batch, context: Context, mean: Mean = alone, ratio: Tensor | None = None
) -> Outcome:
    """The step of the training loop; `mean` averages over workers. A given ratio [R, N, 1 + M] replaces the rule's."""
    theta, omega, optimizer = leaves(problem.theta), leaves(problem.omega), problem.optimizer
    logits, losses = problem.losses(theta, inner)
    points = problem.points(logits, inner)
    weights = problem.rule.weights(omega, points, context)
    used = weights if ratio is None else ratio
    gradients, coefficients = inner_gradient(theta, losses, used, inner.row_weights, create_graph=True)
    averaged = mean(gradients, inner.row_weights.sum())
    new_theta, _ = optimizer.update(problem.theta, averaged, problem.moments, problem.rates)
    later = leaves(new_theta)
    losses = cross_entropy(apply(problem.module, later, outer.inputs), outer.labels) * outer.row_weights
    outer_loss = losses.sum() / outer.row_weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
    v = dict(zip(later, torch.autograd.grad(outer_loss, list(later.values())), strict=True))
    v = mean(v, outer.row_weights.sum())
    w = optimizer.pullback(problem.theta, averaged, problem.moments, problem.rates, v)
    slope = ratio_gradient(gradients, coefficients, w)
    fusion = mean(fusion_gradient(omega, weights, slope, points, context), inner.row_weights.sum())
    return Outcome(new_theta, weights.detach(), slope, fusion)


class Threads:
    """`size` workers that meet at a barrier; every collective is a mean over all of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=20)
        self._slots: list[tuple[Tensor, Tensor]] = [(torch.zeros(()), torch.zeros(()))] * size
        self._rank = threading.local()

    def exchange(self, value: Tensor, weight: Tensor) -> Tensor:
        self._slots[self._rank.value] = (value.detach().clone(), weight.detach().to(value.dtype))
        self._barrier.wait()
        slots = list(self._slots)
        self._barrier.wait()
        total = sum(one for _, one in slots)
        return sum(each * one for each, one in slots) / torch.where(total > 0, total, 1)

    def global_mean(self, value: Tensor, weight: Tensor | float) -> Tensor:
        return _SimulatedMean.apply(value, torch.as_tensor(weight), self)

    def mean(self, tensors: Tensors, weight: Tensor) -> Tensors:
        return {name: self.exchange(value, weight) for name, value in tensors.items()}

    def run(self, work: Callable[[int], object]) -> list[object]:
        """`work(rank)` on every worker at once; the first failure is raised."""
        results: list[object] = [None] * self.size
        errors: list[BaseException] = []

        def main(rank: int) -> None:
            self._rank.value = rank
            try:
                results[rank] = work(rank)
            except BaseException as error:
                errors.append(error)
                self._barrier.abort()

        threads = [threading.Thread(target=main, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error
        return results


class _SimulatedMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, weight, threads):
        ctx.weight, ctx.threads = weight, threads
        return threads.exchange(value, weight)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.threads.exchange(gradient, ctx.weight), None, None


def step_on_workers(problem: Bilevel, inner: Sequence[Batch], outer: Sequence[Batch]) -> list[Outcome]:
    """One step on as many workers as there are shards; each has its own copy of the module."""
    threads = Threads(len(inner))

    def work(rank: int) -> Outcome:
        own = replace(problem, module=copy.deepcopy(problem.module))
        return bilevel_step(own, inner[rank], outer[rank], Context(0.5, None, threads.global_mean), threads.mean)

    return threads.run(work)  # type: ignore[return-value]
