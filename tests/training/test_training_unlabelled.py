"""Rows without a label in a step: the gradient of the teachers alone, nothing for the labels' student or the ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.models import build
from tgeokd_ray.objectives.optimizers import Optimizer, OptimizerSpec
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import ADA, RULES, WLS, Constant, Labels, Rule, TGeoOneStep, build_rule
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.training.evaluation import summarise_ratio
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.spread import percentiles
from tgeokd_ray.training.state import PER_STUDENT, State
from tgeokd_ray.training.steps import Schedule, Step
from tgeokd_ray.training.worker import LocalWorker

N, C = 24, 3
HIDDEN = torch.arange(N) % 3 > 0
KNOWN = ~HIDDEN
RATE = torch.tensor([0.1], dtype=torch.float64)


def some_rows(teachers: int = 1, *, hide: bool = True) -> Rows:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, C, (N,), generator=generator)
    return Rows(
        row_id=torch.arange(N),
        numeric=torch.randn(N, 4, generator=generator, dtype=torch.float64),
        categorical=torch.empty(N, 0, dtype=torch.int64),
        labels=torch.where(HIDDEN, -1, labels) if hide else labels,
        weights=torch.rand(N, generator=generator) + 0.5,
        logits=torch.randn(N, teachers, C, generator=generator, dtype=torch.float64),
        covered=torch.empty(N, 0, dtype=torch.uint8),
        ratios=torch.randn(N, 1, 1 + teachers, generator=generator).exp(),
        targets=torch.empty(N, 0),
        offset=torch.empty(N, 0),
    )


def without_teachers(rows: Rows) -> Rows:
    return replace(rows, logits=rows.logits[:, :0])


class Setting:
    """A student, others `beside` it in the pack that start as it does, and their plain step theta' = theta - rate g."""

    def __init__(
        self, rule: Rule, teachers: int = 1, class_weights: Tensor | None = None, beside: Sequence[Rule] = ()
    ) -> None:
        rules = [rule, *beside]
        shape = {"num_numeric": 4, "num_ids": 0, "num_categorical": 0, "num_classes": C}
        module = build({"kind": "mlp", "hidden": [5]}, **shape, generator=torch.Generator().manual_seed(1)).double()
        means = torch.full((teachers, C, C), 1 / C, dtype=torch.float64)
        temperature, rates = torch.full((len(rules),), 2.0, dtype=torch.float64), RATE.expand(len(rules))
        self.problem = Problem(module, RulePack.of(rules), temperature, means, class_weights=class_weights)
        sgd = Optimizer(OptimizerSpec("sgd", 0.1))
        fusion = Optimizer(OptimizerSpec("sgd", 0.1))
        self.step = Step(self.problem, sgd, fusion, LocalWorker(), Schedule(rates), Schedule(rates))
        self.theta = stack([module] * len(rules))
        omega = self.problem.rule.init([0] * len(rules), C, teachers)
        self.omega = {name: value.double() for name, value in omega.items()}

    def after(self, rows: Rows, outer: Rows | None = None) -> tuple[State, dict[str, Tensor]]:
        nothing = {name: torch.zeros(len(self.problem.temperature)) for name in PER_STUDENT}
        sgd, fusion = self.step.optimizer, self.step.fusion_optimizer
        moments, omega_moments = sgd.init(self.theta), fusion.init(self.omega) if self.omega else {}
        state = State(self.theta, moments, self.omega, omega_moments, {}, {}, {}, **nothing)
        return self.step(state, rows, outer, 0.5)

    def gradient(self, rows: Rows) -> dict[str, Tensor]:
        after, _ = self.after(rows)
        return {name: (self.theta[name] - value) / RATE for name, value in after.theta.items()}


def gradient_of(setting: Setting, rows: Rows, loss: Tensor | None, which: Tensor) -> dict[str, Tensor]:
    """That of the weighted mean, over all rows, of the written-out losses of those in `which`."""
    leaves = {name: value.detach().requires_grad_() for name, value in setting.theta.items()}
    z = setting.problem.logits(leaves, rows)[0]
    student, teacher = (z / 2).log_softmax(-1), (rows.logits[:, 0] / 2).log_softmax(-1)
    kd = 4 * (teacher.exp() * (teacher - student)).sum(-1)
    gt = -z.log_softmax(-1)[torch.arange(N), rows.labels.clamp_min(0)]
    losses = kd if loss is None else loss * kd + (1 - loss) * gt
    weights = rows.weights.double() * which
    found = torch.autograd.grad((losses * weights).sum() / rows.weights.double().sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_a_row_without_a_label_gives_the_gradient_of_the_teacher_and_none_of_its_label(ratio: float) -> None:
    rows, setting = some_rows(), Setting(Constant(ratio))
    share = torch.full((N,), ratio, dtype=torch.float64)
    taught = gradient_of(setting, rows, None, HIDDEN)
    mixed = gradient_of(setting, rows, share, KNOWN)
    for name, found in setting.gradient(rows).items():
        torch.testing.assert_close(found, taught[name] + mixed[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("teachers", [0, 1])
def test_for_the_student_on_labels_such_rows_are_not_there(teachers: int) -> None:
    rows = some_rows(1) if teachers else without_teachers(some_rows(1))
    setting = Setting(Labels(), teachers)
    found, expected = setting.gradient(rows), setting.gradient(rows.take(KNOWN.nonzero().squeeze(-1)))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_in_a_pack_each_student_takes_the_step_that_it_takes_alone() -> None:
    """The student on labels beside those that learn from rows without one."""
    rules = [Labels(), Constant(0.5), WLS(), ADA()]
    rows = some_rows()
    together = Setting(rules[0], beside=rules[1:]).gradient(rows)
    for place, rule in enumerate(rules):
        for name, value in Setting(rule).gradient(rows).items():
            torch.testing.assert_close(together[name][place], value[0], rtol=1e-9, atol=1e-12)


def test_a_row_with_neither_label_nor_teacher_weighs_nothing() -> None:
    covered = (torch.arange(N) % 2).to(torch.uint8).unsqueeze(1)
    rows = replace(some_rows(), covered=covered)
    useless = HIDDEN & ~covered[:, 0].bool()
    setting = Setting(Constant(0.5))
    assert (setting.problem.row_weights(rows)[useless] == 0).all()
    assert (setting.problem.row_weights(rows)[~useless] > 0).all()
    found, expected = setting.gradient(rows), setting.gradient(rows.take((~useless).nonzero().squeeze(-1)))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_class_weights_multiply_labelled_rows_only() -> None:
    rows, weights = some_rows(), torch.tensor([0.25, 2.0, 3.0])
    found = Setting(Constant(0.5), class_weights=weights).problem.row_weights(rows)
    factor = torch.where(KNOWN, weights[rows.labels.clamp_min(0)], 1.0)
    torch.testing.assert_close(found, (rows.weights * factor).double())


def outer_rows() -> Rows:
    return without_teachers(replace(some_rows(hide=False), numeric=torch.randn(N, 4).double()))


def test_the_fusion_network_learns_from_labelled_rows_alone() -> None:
    """Other logits of the hidden rows, with the student's step held, give the same gradient of the network: here they
    weigh so little that they do not move the student."""
    rows, outer = some_rows(2), outer_rows()
    light = replace(rows, weights=torch.where(HIDDEN, rows.weights * 1e-9, rows.weights))
    alone = rows.take(KNOWN.nonzero().squeeze(-1))
    setting = Setting(TGeoOneStep(), 2)
    found, expected = (setting.after(given, outer)[0].omega for given in (light, alone))
    moved = 0.0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-9)
        moved = max(moved, float((value - setting.omega[name]).abs().max()))
    assert moved > 1e-3


def test_heavy_rows_without_a_label_leave_the_scale_of_its_gradient() -> None:
    """The mean size of dJ/da, by which it is divided, is that of labelled rows: the largest step does not shrink."""
    rows, outer, setting = some_rows(), outer_rows(), Setting(TGeoOneStep())
    heavy = replace(rows, weights=torch.where(HIDDEN, rows.weights * 100, rows.weights))

    def size(given: Rows) -> float:
        after = setting.after(given, outer)[0].omega
        return max(float((after[name] - value).abs().max()) for name, value in setting.omega.items())

    assert size(heavy) > 0.3 * size(rows)


@pytest.mark.parametrize("kind", [kind for kind in RULES if kind != "labels" and not RULES[kind].needs])
def test_the_ratio_that_is_told_is_that_of_labelled_rows(kind: str) -> None:
    rows, rule = some_rows(), build_rule(kind)
    setting = Setting(rule)
    alone = rows.take(KNOWN.nonzero().squeeze(-1))
    _, measures = setting.after(rows)
    _, expected = setting.after(alone)
    torch.testing.assert_close(measures["ratio"], expected["ratio"], rtol=1e-9, atol=1e-12)
    if rule.learned:
        spreads = [percentiles(one["ratio_spread"]) for one in (measures, expected)]
        torch.testing.assert_close(*spreads, rtol=1e-9, atol=1e-12)

    def batches(given: Rows) -> Iterator[Rows]:
        yield given

    told = [
        summarise_ratio(setting.problem, setting.theta, setting.omega, batches(given), LocalWorker()).results(0)
        for given in (rows, alone)
    ]
    assert told[0]["histogram"] == told[1]["histogram"]
    assert sum(told[0]["histogram"]["counts"]) == int(KNOWN.sum())
    assert told[0]["by_class"] == pytest.approx(told[1]["by_class"])
    np.testing.assert_allclose(told[0]["mean"], told[1]["mean"])
