"""A test that finds wrong code: the learned ratio must find the regions where the teacher deserves belief.

Three regions of x_0 (a third of the rows each). A: the teacher is confidently wrong, labels good; B: both fair;
C: the teacher is exact, labels noisy by nature. The best ratio is known: 0, .75 and 1. In the null twin the teacher is
fair everywhere and no ratio per row pays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tgeokd_ray.objectives.hypergradient import fusion_gradient
from tgeokd_ray.objectives.losses import cross_entropy, source_losses
from tgeokd_ray.objectives.optimizers import Optimizer, OptimizerSpec
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules import TGeoOneStep
from tgeokd_ray.objectives.stacking import apply, stack
from tgeokd_ray.objectives.ways import Inner, Split

INPUTS, CLASSES, TRAIN, OUTER, BATCH, EPOCHS, EVERY = 10, 3, 1500, 1000, 100, 10, 4
ORACLE = torch.tensor([0.0, 0.75, 1.0])
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Regions:
    """Inputs [N, 10], labels [N], teacher logits [N, 1, C], region [N], mean teacher distributions [1, C, C]."""

    inputs: Tensor
    labels: Tensor
    teachers: Tensor
    region: Tensor
    class_means: Tensor

    def points(self, logits: Tensor, rows: Tensor) -> Points:
        weights = torch.ones(len(rows))
        return Points(logits.detach(), self.teachers[rows], self.labels[rows], self.class_means, weights)


def student(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(INPUTS, 24), nn.ReLU(), nn.Linear(24, CLASSES))


def make_regions(null: bool) -> Regions:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(TRAIN + OUTER, INPUTS, generator=generator)
    with torch.no_grad():
        scores = student(11)(inputs)
    scores = (scores - scores.mean(0)) / scores.std()
    region = torch.bucketize(inputs[:, 0].contiguous(), torch.tensor([-0.43, 0.43]))
    scores = scores * (4.0 if null else torch.tensor([6.0, 3.0, 1.2])[region][:, None])
    labels = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
    noise = torch.randn(scores.shape, generator=generator)
    wrong = torch.where((region == 0)[:, None], scores.roll(1, 1), scores)
    teachers = scores + 0.5 * noise if null else wrong + 0.3 * noise
    distributions = teachers[:TRAIN].softmax(-1)
    means = torch.stack([distributions[labels[:TRAIN] == c].mean(0) for c in range(CLASSES)])
    return Regions(inputs, labels, teachers[:, None], region, means[None])


def _never(theta: dict[str, Tensor]) -> Tensor:
    raise AssertionError("split reverse runs the network once")


def learned_ratio(data: Regions) -> Tensor:
    """Ten epochs of the one-step learner with the level at one half; the ratio [R, N] of every row at the end."""
    rule, module = TGeoOneStep(), student(0)
    optimizer, fusion = Optimizer(OptimizerSpec("adam", 5e-3)), Optimizer(OptimizerSpec("adam", 3e-3))
    rates, fusion_rates = torch.full((len(SEEDS),), 5e-3), torch.full((len(SEEDS),), 3e-3)
    theta = stack([student(seed) for seed in SEEDS])
    omega = rule.init(SEEDS, CLASSES, 1)
    moments, omega_moments = optimizer.init(theta), fusion.init(omega)
    generator = torch.Generator().manual_seed(1)
    outer = torch.arange(TRAIN, TRAIN + OUTER)
    batches = [b for _ in range(EPOCHS) for b in torch.randperm(TRAIN, generator=generator).split(BATCH)]
    for step, rows in enumerate(batches, start=1):
        bilevel = step % EVERY == 0
        leaf = {name: value.requires_grad_() for name, value in theta.items()}
        logits = apply(module, leaf, data.inputs[rows])
        points, context = data.points(logits, rows), Context(step / len(batches))
        fusion_leaf = {name: value.requires_grad_(bilevel) for name, value in omega.items()}
        ratio = rule.weights(fusion_leaf, points, context)
        losses = source_losses(logits, points.teacher_logits, points.labels, temperature=2.0)
        inner = Inner(leaf, losses, _never, ratio.detach(), points.row_weights)
        way = Split(inner) if bilevel else None
        grads = inner.gradients() if way is None else way.gradients
        plain = {name: value.detach() for name, value in grads.items()}
        new_theta, new_moments = optimizer.update(theta, plain, moments, rates)
        if way is not None:
            later = {name: value.requires_grad_() for name, value in new_theta.items()}
            loss = cross_entropy(apply(module, later, data.inputs[outer]), data.labels[outer]).mean(-1).sum()
            v = dict(zip(later, torch.autograd.grad(loss, list(later.values())), strict=True))
            w = optimizer.pullback(theta, plain, moments, rates, v)
            slope = way.ratio_gradient(w)
            gradient = fusion_gradient(fusion_leaf, ratio, slope, points, context)
            omega, omega_moments = fusion.update(omega, gradient, omega_moments, fusion_rates)
        theta, moments = {name: value.detach() for name, value in new_theta.items()}, new_moments
    every = torch.arange(TRAIN + OUTER)
    with torch.no_grad():
        points = data.points(apply(module, theta, data.inputs), every)
        return rule.weights(omega, points, Context(1.0))[..., 1]


def correlation(ratio: Tensor, oracle: Tensor) -> Tensor:
    return torch.stack([torch.corrcoef(torch.stack([one, oracle]))[0, 1] for one in ratio])


def test_the_learner_finds_the_regions() -> None:
    """A flipped sign gives -.8, no hypergradient at most .66, features without the teacher at most .28."""
    data = make_regions(null=False)
    ratio = learned_ratio(data)
    wrong, fair, exact = (ratio[:, data.region == region].mean(1) for region in range(3))
    assert (correlation(ratio, ORACLE[data.region]) > 0.75).all()
    assert (wrong < 0.3).all()
    assert (fair > 0.6).all()
    assert (exact > 0.7).all()


def test_the_null_twin_has_no_regions() -> None:
    data = make_regions(null=True)
    ratio = learned_ratio(data)
    means = torch.stack([ratio[:, data.region == region].mean(1) for region in range(3)])
    assert (correlation(ratio, ORACLE[data.region]).abs() < 0.2).all()
    assert ((means > 0.4) & (means < 0.6)).all()
