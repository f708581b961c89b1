"""One step on the ranks of a gloo group, with unequal parts of the rows, against one process; for method.py."""

from __future__ import annotations

import multiprocessing as mp
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from method_student import CLASSES, Tensors, make_student, random_rows

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import TGeoOneStep
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.training.distributed import ProcessGroupWorker
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Schedule, Step
from tgeokd_ray.training.worker import LocalWorker, Worker

SPEC = OptimizerSpec("adam", 0.01, weight_decay=0.01, clip_norm=0.05)
ROWS, OUTER_ROWS = 24, 15
SHARDS = {2: ([7, 17], [15, 0]), 3: ([5, 0, 19], [1, 4, 10])}


def step(worker: Worker, look_ahead: int, inner: Rows, outer: Rows) -> Tensors:
    """theta and omega after one bilevel step with centring; omega moves by its gradient itself."""
    torch.set_num_threads(1)
    student, rule = make_student(SPEC, ROWS, OUTER_ROWS), RulePack.of([TGeoOneStep()])
    omega = {name: 3 * value.double() for name, value in rule.init((0,), CLASSES, 1).items()}
    bilevel = Step(
        problem=replace(student.problem, rule=rule),
        optimizer=Optimizer(SPEC),
        fusion_optimizer=Optimizer(OptimizerSpec("sgd", 1.0)),
        worker=worker,
        learning_rate=Schedule(student.rates),
        fusion_learning_rate=Schedule(torch.ones(1, dtype=torch.float64)),
        look_ahead=look_ahead,
    )
    none = bilevel.fusion_optimizer.init(omega)
    best, none_yet = torch.zeros(1, dtype=torch.float64), torch.full((1,), -1)
    state = State(
        theta=student.theta,
        moments=student.moments,
        omega=omega,
        omega_moments=none,
        best_theta=student.theta,
        best_omega=omega,
        totals={},
        best=best,
        best_epoch=none_yet,
        ended=none_yet,
        active=torch.arange(1),
    )
    new, _ = bilevel(state, inner, outer, 0.5)
    return new.theta | {f"omega.{name}": value for name, value in new.omega.items()}


def difference(world: int, look_ahead: int) -> float:
    """The largest difference of a parameter, of student or fusion network, on any rank."""
    alone = step(LocalWorker(), look_ahead, random_rows(ROWS, 0), random_rows(OUTER_ROWS, 1))
    context = mp.get_context("spawn")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        ranks = [context.Process(target=_rank, args=(r, world, store, look_ahead, queue)) for r in range(world)]
        for process in ranks:
            process.start()
        found = [{name: torch.as_tensor(values) for name, values in queue.get(timeout=120).items()} for _ in ranks]
        for process in ranks:
            process.join()
    return max((one[name] - value).abs().max().item() for one in found for name, value in alone.items())


def _rank(rank: int, world: int, store: str, look_ahead: int, queue: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    inner, outer = (
        random_rows(rows, seed)[sum(sizes[:rank]) : sum(sizes[: rank + 1])]
        for rows, seed, sizes in ((ROWS, 0, SHARDS[world][0]), (OUTER_ROWS, 1, SHARDS[world][1]))
    )
    found = step(ProcessGroupWorker(), look_ahead, inner, outer)
    queue.put({name: value.numpy() for name, value in found.items()})
    torch.distributed.destroy_process_group()
