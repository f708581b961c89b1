"""What a step must be to be recorded: it waits for no device, fills batches up unseen, and gives a GPU's numbers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_training_bilevel import INNER
from test_training_captured import recorded
from test_training_window import FEW, KINDS, OTHERS, agree, copied, row_wise
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import RULES, build_rule
from tgeokd_ray.training.captured import Captured, captured
from tgeokd_ray.training.parts import places
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Step


def with_rules(step: Step, state: State, rules: RulePack) -> tuple[Step, State]:
    """Other rules for the two students."""
    omega = {n: v.double() for n, v in rules.init((1, 2), INNER.logits.shape[2], INNER.logits.shape[1]).items()}
    state = replace(state, omega=omega, omega_moments=step.fusion_optimizer.init(omega) if omega else {}, totals={})
    return replace(step, problem=replace(step.problem, rule=rules)), state


def with_holes(rows: Rows) -> Rows:
    """Rows without a label, without a teacher, of weight zero; with stored ratios and an offset."""
    generator, size = torch.Generator().manual_seed(3), len(rows)

    def share() -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64)

    return replace(
        rows,
        labels=torch.where(share() < 0.25, -1, rows.labels),
        covered=(share() < 0.75).to(torch.uint8).unsqueeze(-1),
        weights=share() * (share() < 0.8),
        ratios=torch.randn(size, 2, 2, generator=generator, dtype=torch.float64).abs(),
        offset=torch.randn(size, 1, generator=generator, dtype=torch.float64),
    )


class Waits(TorchDispatchMode):
    """Collects the operations that on a device are waited for, or bring Python's numbers there."""

    WAITED = frozenset(
        {"_local_scalar_dense", "nonzero", "_unique2", "unique_consecutive", "masked_select", "lift_fresh"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = operation.overloadpacket.__name__
        chosen = [one for one in args if isinstance(one, list | tuple)] if name.startswith("index") else []
        if name in self.WAITED or any(isinstance(t, Tensor) and t.dtype == torch.bool for one in chosen for t in one):
            self.found.add(name)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "kinds",
    [
        *((kind, kind) for kind in RULES if kind != "given"),
        ("labels", "tgeo_one_step"),
        ("constant", "dist"),
        ("bikd", "dkd"),
    ],
)
def test_nothing_in_a_step_waits_for_a_device(kinds: tuple[str, str]) -> None:
    """For every rule and mixed packs, after a first step that makes what is kept."""
    step, state = with_rules(*row_wise("rowwise_adagrad", 3), RulePack.of([build_rule(kind) for kind in kinds]))
    step = replace(step, fixed_window=True)
    state, _ = step(state, FEW, OTHERS, 0.5)
    parts = places([(0, len(FEW))], 2)
    with Waits() as waits:
        step(state, FEW, OTHERS, 0.6)
        step(state, FEW, OTHERS, 0.6, None, parts)
    assert not waits.found


PAIRS = [
    *((kind, kind) for kind in RULES if kind != "anl" and not RULES[kind].needs),
    ("labels", "tgeo_one_step"),
    ("dist", "dkd"),
    ("labels", "dist"),
    ("bikd", "tgeo_shape"),
    ("given", "labels"),
]


@pytest.mark.parametrize(("way", "bound"), [("split", 1e-9), ("forward", 1e-9), ("finite", 1e-5)])
@pytest.mark.parametrize("kinds", PAIRS)
def test_no_rule_counts_the_rows_that_fill_up_a_batch(kinds: tuple[str, str], way: str, bound: float) -> None:
    """With class weights, missing labels and teachers, an outer batch or none, three steps ahead."""
    options: dict[str, dict[str, Any]] = {"given": {"source": 1, "strength": 0.7}, "tgeo_shape": {"offset": True}}
    rules = RulePack.of([build_rule(kind, **options.get(kind, {})) for kind in kinds])
    step, state = with_rules(*row_wise("lazy_adam", 3), rules)
    weights = torch.tensor([0.5, 1.5, 2.0], dtype=torch.float64)
    step = replace(step, problem=replace(step.problem, class_weights=weights), hypergradient=way)
    expected, found, quick = copied(state), copied(state), recorded(step)
    for inner, outer in ((21, 13), (18, None), (24, 9), (3, 11)):
        batches = with_holes(FEW)[:inner], None if outer is None else OTHERS[:outer]
        parts = places([(0, inner)], 2)
        expected, measures = step(expected, *batches, 0.0, None, parts)
        found, seen = quick(found, *batches, 0.0, None, parts)
        torch.testing.assert_close(seen, measures, rtol=bound, atol=bound)
    agree(found, expected, bound)


def on_gpu(step: Step, state: State) -> tuple[Step, State]:
    """Both on the first CUDA device."""
    device, problem = torch.device("cuda"), step.problem
    moved = replace(
        problem,
        module=copy.deepcopy(problem.module).to(device),
        temperature=problem.temperature.to(device),  # type: ignore[union-attr]
        class_means=problem.class_means.to(device),
    )
    rates = [replace(one, rates=one.rates.to(device)) for one in (step.learning_rate, step.fusion_learning_rate)]
    worker = copy.copy(step.worker)
    worker.device = device
    there = replace(step, problem=moved, worker=worker, learning_rate=rates[0], fusion_learning_rate=rates[1])
    flat = {name: value.clone() for name, value in state.flat().items()}
    return there, State.from_flat(flat, epoch=state.epoch, step=state.step, history=(), device=device)


@pytest.mark.gpu
@pytest.mark.parametrize("look_ahead", [1, 5])
@pytest.mark.parametrize("kind", [*KINDS, "dense"])
def test_a_gpu_ends_where_a_processor_does(kind: str, look_ahead: int) -> None:
    """In float64, steps one by one and recorded, sizes that change, outer batches now and then."""
    step, state = row_wise(kind, look_ahead)
    there, start = on_gpu(step, copied(state))
    expected, plain, found = copied(state), start, copied_on(start)
    quick = captured(there, pytest.fail)
    assert isinstance(quick, Captured)
    for inner, outer in [(FEW, OTHERS), (FEW[:3], None), (FEW, OTHERS[:2]), (FEW[:2], OTHERS), (FEW, None)]:
        moved = None if outer is None else outer.to("cuda")
        parts, there_too = (places([(0, len(inner))], 2, device) for device in ("cpu", "cuda"))
        expected, _ = step(expected, inner, outer, 0.5, None, parts)
        plain, _ = replace(there, fixed_window=True)(plain, inner.to("cuda"), moved, 0.5, None, there_too)
        found, _ = quick(found, inner.to("cuda"), moved, 0.5, None, there_too)
    for one in (plain, found):
        back = {name: value.cpu() for name, value in one.flat().items()}
        agree(State.from_flat(back, epoch=0, step=0, history=(), device=torch.device("cpu")), expected, 1e-9)


def copied_on(state: State) -> State:
    """The state in memory of its own, on its device."""
    flat = {name: value.clone() for name, value in state.flat().items()}
    return State.from_flat(flat, epoch=state.epoch, step=state.step, history=(), device=state.active.device)
