"""A student's step on rows in memory, as the loop takes it: what the benchmarks of speed time.

B rows of a batch, 13 numeric and 26 categorical columns of embeddings of 16, two classes, one student.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import workload
from torch import Tensor

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.feed.sampler import LANES
from tgeokd_ray.models import build
from tgeokd_ray.models.compiled import compiled
from tgeokd_ray.models.network import Network
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import build_rule
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.training.memory import keep_freed_memory
from tgeokd_ray.training.parts import places
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Schedule, Step
from tgeokd_ray.training.worker import LocalWorker, Worker

BATCH, HIDDEN, WIDTH, RATE = 4096, (400, 400, 400), 16, 1e-3
NUMERIC, CATEGORICAL = 13, 26
# Row-wise Adagrad takes the rate that TorchRec's examples take, .05; lazy Adam that of everything else.
EMBEDDING_RATES = {"rowwise_adagrad": 50.0, "adagrad": 30.0, "lazy_adam": 1.0, "dense": 1.0}
# The first-order weights of Wide & Deep share a row with an embedding, but not its scale: no accumulator for both.
EMBEDDINGS = {"dnn": "rowwise_adagrad", "dcnv2": "rowwise_adagrad", "wide_deep": "adagrad"}
MODELS = {
    "dnn": {"kind": "mlp", "hidden": HIDDEN, "embedding": WIDTH},
    "dcnv2": {"kind": "dcnv2", "hidden": HIDDEN, "embedding": WIDTH, "cross_layers": 3},
    "wide_deep": {"kind": "wide_deep", "hidden": HIDDEN, "embedding": WIDTH},
}
LABELS = {"kind": "labels"}
DISTILLED = {"kind": "constant", "value": 0.5}


@dataclass(frozen=True)
class Student:
    """What a student is: its network, the table's rows V, how they move, its rule with M teachers (0 or 1). An `exact`
    one is in float64."""

    model: str = "dnn"
    num_ids: int = 200_000
    embedding: str = "rowwise_adagrad"
    bf16: bool = False
    rule: tuple[tuple[str, Any], ...] = tuple(LABELS.items())
    look_ahead: int = 1
    num_parts: int = 1
    hypergradient: str = "split"
    compile: bool = False
    exact: bool = False

    @property
    def num_teachers(self) -> int:
        return 0 if dict(self.rule)["kind"] == "labels" else 1

    def step(self, worker: Worker | None = None) -> Step:
        """The step of a run, on this worker."""
        module = build(dict(MODELS[self.model]), **_columns(self.num_ids), generator=torch.Generator().manual_seed(0))
        assert isinstance(module, Network)
        worker, teachers = worker or LocalWorker(), self.num_teachers
        module = module.to(worker.device, torch.float64 if self.exact else None)
        rates = torch.tensor([RATE, 3e-3], dtype=torch.float64, device=worker.device)
        problem = Problem(
            module=module,
            rule=RulePack.of([build_rule(**dict(self.rule))]),
            temperature=1.0,
            class_means=(torch.eye(2).expand(teachers, 2, 2) * 0.6 + 0.2).to(
                rates if self.exact else module.head.weight
            ),
            autocast=torch.bfloat16 if self.bf16 else None,
            fast=compiled(module) if self.compile else None,
        )
        spec = OptimizerSpec("adam", RATE, embedding=self.embedding, embedding_rate=EMBEDDING_RATES[self.embedding])
        return Step(
            problem=problem,
            optimizer=Optimizer(spec, [module.table] if module.table else []),
            fusion_optimizer=Optimizer(OptimizerSpec("adam", 3e-3)),
            worker=worker,
            learning_rate=Schedule(rates[:1]),
            fusion_learning_rate=Schedule(rates[1:]),
            hypergradient=self.hypergradient,
            look_ahead=self.look_ahead,
            num_parts=self.num_parts,
            windowed=True,
            fixed_window=worker.size == 1 and worker.device.type != "cpu",
        )

    def start(self, step: Step) -> State:
        """The state before the first step."""
        keep_freed_memory()
        theta = stack([step.problem.module])
        device = step.worker.device
        omega = {
            n: v.to(device, torch.float64 if self.exact else None)
            for n, v in step.problem.rule.init((0,), 2, self.num_teachers).items()
        }
        none = torch.zeros(1, dtype=torch.int64, device=device)
        return State(
            theta=theta,
            moments=step.optimizer.init(theta),
            omega=omega,
            omega_moments=step.fusion_optimizer.init(omega) if omega else {},
            best_theta={},
            best_omega={},
            totals=step.totals(1),
            best=torch.zeros(1, dtype=torch.float64, device=device),
            best_epoch=none,
            ended=none - 1,
            active=none,
        )


def _columns(num_ids: int) -> dict[str, int]:
    return {"num_numeric": NUMERIC, "num_ids": num_ids, "num_categorical": CATEGORICAL, "num_classes": 2}


@dataclass
class Table:
    """Rows in memory with ids in one space and a teacher that knows each label with probability .9."""

    numeric: Tensor
    categorical: Tensor
    labels: Tensor
    teacher: Tensor

    @classmethod
    def of(cls, rows: workload.Clicks, num_ids: int) -> Table:
        """Rows of the workload, whose ids are within their column, with ids of the whole table."""
        sizes = workload.sizes(num_ids)
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        labels = torch.from_numpy(rows.labels).long()
        sure = torch.rand(len(labels), generator=torch.Generator().manual_seed(1)) < 0.9
        said = torch.where(sure, labels, 1 - labels)
        teacher = torch.nn.functional.one_hot(said, 2).float() * 3
        return cls(torch.from_numpy(rows.numeric), torch.from_numpy(rows.categorical + offsets), labels, teacher)

    def rows(self, first: int, count: int, num_teachers: int = 0) -> Rows:
        """`count` rows from `first` on, round and round, as a batch of the feed."""
        index = (torch.arange(first, first + count)) % len(self.labels)
        whole = int(index[0]) + count <= len(self.labels)
        part: Any = slice(int(index[0]), int(index[0]) + count) if whole else index
        return Rows(
            row_id=index,
            numeric=self.numeric[part],
            categorical=self.categorical[part],
            labels=self.labels[part],
            weights=torch.ones(count),
            logits=self.teacher[part].unsqueeze(1)[:, :num_teachers],
            covered=torch.empty(count, 0, dtype=torch.uint8),
            ratios=torch.empty(count, 0, 1 + num_teachers),
            targets=torch.empty(count, 0),
            offset=torch.empty(count, 0),
        )


def table(num_rows: int, num_ids: int) -> Table:
    """The first rows of the workload."""
    return Table.of(workload.clicks(num_rows, num_ids), num_ids)


def parts_of(step: Step, batch_rows: int) -> Tensor | None:
    """The parts that a look-ahead of the step reads of a batch of so many rows, in twelve lanes."""
    shares = [(lane, (batch_rows + lane) // LANES) for lane in range(LANES)]
    return places(shares, step.num_parts, step.worker.device)


@dataclass
class Running:
    """A student in training: `step()` takes the next batch, and every `every` steps an outer batch as well. A worker of
    several takes every `stride`-th batch, the first one number `first`."""

    student: Student
    data: Table
    batch_rows: int = BATCH
    every: int = 0
    outer_rows: int = BATCH
    worker: Worker | None = None
    first: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        self._step = self.student.step(self.worker)
        self.state = self.student.start(self._step)
        self.taken = 0

    def step(self) -> None:
        teachers = self.student.num_teachers
        batch = self.taken * self.stride + self.first
        rows, outer = self.data.rows(batch * self.batch_rows, self.batch_rows, teachers), None
        if self.every and self.taken % self.every == 0:
            outer = self.data.rows(batch * self.outer_rows + 7 * self.batch_rows, self.outer_rows, teachers)
        device = self._step.worker.device
        parts = None if outer is None else parts_of(self._step, self.batch_rows)
        outer = None if outer is None else outer.to(device)
        self.state, _ = self._step(self.state, rows.to(device), outer, 0.5, None, parts)
        self.taken += 1

    def logits(self, data: Table) -> Iterator[Tensor]:
        """Of the student as it is, batch by batch."""
        self.state = self.state.settled()
        with torch.inference_mode():
            for first in range(0, len(data.labels), self.batch_rows):
                rows = data.rows(first, min(self.batch_rows, len(data.labels) - first)).to(self._step.worker.device)
                yield self._step.problem.logits(self.state.theta, rows)[0].cpu()


def seconds(work: Callable[[], Any], times: int) -> float:
    """CPU seconds of all threads for one call, over so many."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def in_turns(works: Sequence[Callable[[], Any]], times: int, turns: int, warm: int = 3) -> list[list[float]]:
    """CPU seconds of one call of each, in `turns` turns of `times` calls after `warm` calls of each: [turn][work]."""
    for work in works:
        for _ in range(warm):
            work()
    return [[measure() for measure in [partial(seconds, work, times) for work in works]] for _ in range(turns)]
