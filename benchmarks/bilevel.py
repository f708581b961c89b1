"""What an outer step costs: whole bilevel steps over plain distillation steps, and against the textbook unroll.

python benchmarks/bilevel.py [steps unroll] [--quick] [--json]

DNN 400x3 and Wide & Deep on 13 numeric and 26 categorical columns of 16, batch 4096, one thread, float32, CPU seconds
of steps on batches in memory, in turns in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch
from figures import Figure, main
from student_steps import BATCH, DISTILLED, RATE, Running, Student, Table, in_turns, table
from torch import Tensor
from torch.func import functional_call

from tgeokd_ray.objectives.losses import cross_entropy, source_losses
from tgeokd_ray.training.spec import Fusion

LEARNED = {"kind": "tgeo_one_step", "level": 0.5}
IDS = 200_000
# name: model, table, outer rows, every, look-ahead, bar
CASES: dict[str, tuple[str, str, int, int, int, float | None]] = {
    "mlp.row_wise.same_size": ("dnn", "rowwise_adagrad", BATCH, 1, 1, 2.8),
    "mlp.row_wise.quarter": ("dnn", "rowwise_adagrad", BATCH // 4, 1, 1, 2.1),
    "mlp.dense.same_size": ("dnn", "dense", BATCH, 1, 1, 2.8),
    "wide_deep.dense.quarter": ("wide_deep", "dense", BATCH // 4, 1, 1, 1.6),
    "wide_deep.row_wise.quarter": ("wide_deep", "adagrad", BATCH // 4, 1, 1, 2.3),
    "mlp.dense.every_5": ("dnn", "dense", BATCH, 5, 1, 1.3),
    "mlp.row_wise.every_5": ("dnn", "rowwise_adagrad", BATCH, 5, 1, 1.4),
    "mlp.row_wise.look_ahead_20.every_10": ("dnn", "rowwise_adagrad", BATCH // 4, 10, 20, 2.0),
    "mlp.row_wise.look_ahead_20.every_10.whole_batches": ("dnn", "rowwise_adagrad", BATCH // 4, 10, 20, None),
}
QUICK = ("mlp.row_wise.same_size", "mlp.row_wise.every_5")


def steps(quick: bool) -> Iterator[Figure]:
    """Bar c: each case against a distilled student with the same network and table."""
    data = table(12 * BATCH, IDS)
    for name, (model, embedding, outer_rows, every, look_ahead, bar) in CASES.items():
        if quick and name not in QUICK:
            continue
        distilled = Student(model, IDS, embedding, rule=tuple(DISTILLED.items()))
        parts = 1 if name.endswith("whole_batches") or look_ahead == 1 else BATCH // Fusion().hessian_rows
        learned = replace(distilled, rule=tuple(LEARNED.items()), look_ahead=look_ahead, num_parts=parts)
        works = [
            Running(distilled, data).step,
            Running(learned, data, every=every, outer_rows=outer_rows).step,
        ]
        times = max(every, 2 if quick else 5)
        turns = in_turns(works, times, turns=3 if quick else 5, warm=2)
        ratios = [bilevel / plain for plain, bilevel in turns]
        value = median(ratios)
        plain_ms = round(1000 * median(plain for plain, _ in turns), 1)
        context = {"outer_rows": outer_rows, "hessian_parts": parts, "plain_ms": plain_ms}
        held = ("", None) if bar is None else (f"<= {bar:g}", value <= bar)
        yield Figure(f"bilevel.{name}", value, "ratio", *held, [min(ratios), max(ratios)], context)


def unroll(quick: bool) -> Iterator[Figure]:
    """Our step on a table of 1 M ids against differentiating through the whole update, table and all."""
    num_ids = 1_000_000
    data = table(4 * BATCH, num_ids)
    learned = Student("dnn", num_ids, "rowwise_adagrad", rule=tuple(LEARNED.items()))
    works = [Running(learned, data, every=1).step, textbook(learned, data)]
    turns = in_turns(works, 1, turns=3 if quick else 5, warm=1)
    ratios = [theirs / ours for ours, theirs in turns]
    value = median(ratios)
    name = f"bilevel.textbook_unroll_over_ours.{num_ids}"
    yield Figure(name, value, "ratio", ">= 2", value >= 2, [min(ratios), max(ratios)], {"num_ids": num_ids})


def textbook(student: Student, data: Table) -> Callable[[], None]:
    """The inner step on whole tensors with `create_graph`, the outer loss behind it, one backward pass to the ratio of
    every row (the fusion network is left out), then the real step."""

    module = student.step().problem.module
    theta = {name: value.detach().clone() for name, value in module.named_parameters()}
    sums = {name: torch.zeros_like(value) for name, value in theta.items()}
    taken = 0

    def loss_of(leaves: dict[str, Tensor], first: int) -> Tensor:
        rows = data.rows(first, BATCH, 1)
        logits: Tensor = functional_call(module, leaves, (rows.numeric, rows.categorical))
        return source_losses(logits.unsqueeze(0), rows.logits, rows.labels, temperature=1.0)[0]

    def step() -> None:
        nonlocal taken
        leaves = {name: value.requires_grad_() for name, value in theta.items()}
        ratio = torch.full((BATCH,), 0.5, requires_grad=True)
        weights = torch.stack([1 - ratio, ratio], -1)
        inner = (weights * loss_of(leaves, taken * BATCH)).sum(-1).mean()
        gradients = torch.autograd.grad(inner, list(leaves.values()), create_graph=True)
        later, squares = {}, {}
        for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
            squares[name] = sums[name] + gradient.square()
            later[name] = value - RATE * gradient / (squares[name] + 1e-10).sqrt()
        rows = data.rows(taken * BATCH + 7 * BATCH, BATCH)
        logits = functional_call(module, later, (rows.numeric, rows.categorical))
        torch.autograd.grad(cross_entropy(logits, rows.labels).mean(), [ratio])
        for name in theta:
            theta[name], sums[name] = later[name].detach(), squares[name].detach()
        taken += 1

    return step


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("What an outer step costs.", {"steps": steps, "unroll": unroll})
