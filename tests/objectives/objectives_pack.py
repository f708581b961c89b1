"""Random points, a tiny bilevel problem in float64, and one step of it as a caller does it, on one worker or many."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from worker_threads import Threads

from tgeokd_ray.objectives.hypergradient import InnerStep, fusion_gradient
from tgeokd_ray.objectives.losses import cross_entropy, source_losses
from tgeokd_ray.objectives.optimizers import Optimizer, OptimizerSpec
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules import Rule, TGeoOneStep
from tgeokd_ray.objectives.stacking import apply, stack
from tgeokd_ray.objectives.ways import WAYS, Inner

INPUTS, CLASSES, TEACHERS, ROWS, OUTER_ROWS = 4, 3, 2, 12, 9
Tensors = dict[str, Tensor]

# Every optimizer, without clipping and with one that is active (the gradients' norms are far above .05).
SPECS = [
    OptimizerSpec(kind, 0.01, weight_decay=decay, clip_norm=clip)
    for kind, decay in (
        ("sgd", 0.03),
        ("momentum", 0.03),
        ("nesterov", 0.03),
        ("adagrad", 0.03),
        ("adam", 0.0),
        ("adam", 0.03),
        ("adamw", 0.03),
    )
    for clip in (None, 0.05)
]

CLIPPED_ADAM = OptimizerSpec("adam", 0.01, weight_decay=0.03, clip_norm=0.05)


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
    """R students mid-training: theta and moments after seven steps on random gradients, in a warm-up of ten."""

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
    """A problem whose moments are mid-training; rates differ per student, and the next is eight tenths of the full."""
    rates = 0.0625 * (1 + torch.arange(len(seeds), dtype=torch.float64))
    problem = Bilevel(spec, seeds, rates=rates * 0.8, **changes)  # type: ignore[arg-type]
    theta = stack([make_module(seed) for seed in seeds])
    moments = problem.optimizer.init(theta)
    for step in range(7):
        parts = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(1000 * seed + step)
            parts.append([torch.randn(v.shape[1:], generator=generator, dtype=v.dtype) * 0.1 for v in theta.values()])
        grads = {name: torch.stack(one) for name, one in zip(theta, zip(*parts, strict=True), strict=True)}
        theta, moments = problem.optimizer.update(theta, grads, moments, rates * (step + 1) / 10)
    omega = {k: 3 * v.double() for k, v in problem.rule.init(seeds, CLASSES, TEACHERS).items()}
    return replace(problem, theta=theta, moments=moments, omega=omega)


def leaves(tensors: Tensors) -> Tensors:
    return {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}


@dataclass(frozen=True)
class Outcome:
    """What one bilevel step gives: theta', d [R, N, 1 + M] of the local rows, the (averaged) gradient of omega, w and
    the number of its terms [R]."""

    theta: Tensors
    ratio: Tensor
    slope: Tensor
    fusion: Tensors
    w: Tensors
    terms: Tensor


Mean = Callable[[Tensors, Tensor], Tensors]


def alone(tensors: Tensors, weight: Tensor) -> Tensors:
    return {name: value.detach() for name, value in tensors.items()}


def bilevel_step(
    problem: Bilevel,
    inner: Batch,
    outer: Batch,
    context: Context,
    mean: Mean = alone,
    ratio: Tensor | None = None,
    way: str = "split",
    look_ahead: int = 1,
) -> Outcome:
    """The step of the training loop; `mean` averages over workers. A given ratio [R, N, 1 + M] replaces the rule's."""
    theta, omega, optimizer = leaves(problem.theta), leaves(problem.omega), problem.optimizer
    logits, losses = problem.losses(theta, inner)
    points = problem.points(logits, inner)
    weights = problem.rule.weights(omega, points, context)
    used = (weights if ratio is None else ratio).detach()
    share = inner.row_weights.sum()
    local = WAYS[way](Inner(theta, losses, lambda at: problem.losses(at, inner)[1], used, inner.row_weights))
    averaged = mean(local.gradients, share)
    new_theta, _ = optimizer.update(problem.theta, averaged, problem.moments, problem.rates)
    later = leaves(new_theta)
    losses = cross_entropy(apply(problem.module, later, outer.inputs), outer.labels) * outer.row_weights
    outer_loss = losses.sum() / outer.row_weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
    v = dict(zip(later, torch.autograd.grad(outer_loss, list(later.values())), strict=True))
    v = mean(v, outer.row_weights.sum())
    taken = InnerStep(optimizer, problem.theta, averaged, problem.moments, problem.rates)
    w, terms = taken.pulled_back(v, lambda direction: mean(local.hessian(direction), share), look_ahead)
    slope = local.ratio_gradient(w)
    fusion = mean(fusion_gradient(omega, weights, slope, points, context), share)
    return Outcome(new_theta, weights.detach(), slope, fusion, w, terms)


def step_on_workers(
    problem: Bilevel, inner: Sequence[Batch], outer: Sequence[Batch], **options: object
) -> list[Outcome]:
    """One step on as many workers as there are shards; each has its own copy of the module. Options of
    `bilevel_step`."""
    threads = Threads(len(inner))

    def work(rank: int) -> Outcome:
        own = replace(problem, module=copy.deepcopy(problem.module))
        context = Context(0.5, None, threads.global_mean)
        return bilevel_step(own, inner[rank], outer[rank], context, threads.mean, **options)  # type: ignore[arg-type]

    return threads.run(work)  # type: ignore[return-value]
