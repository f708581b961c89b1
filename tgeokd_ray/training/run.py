"""One pack of runs from their specs to their committed artifacts: set up, loop, measure on test, write."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Progress
from tgeokd_ray.models import build
from tgeokd_ray.models.compiled import compiled
from tgeokd_ray.models.network import Network
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import build_rule
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.training.captured import captured
from tgeokd_ray.training.checkpoint import Checkpoints
from tgeokd_ray.training.data import RunData, Source, open_data
from tgeokd_ray.training.dropout import Dropout
from tgeokd_ray.training.finish import finish_models, finish_ratios
from tgeokd_ray.training.log import MetricsLog
from tgeokd_ray.training.loop import Loop
from tgeokd_ray.training.memory import keep_freed_memory
from tgeokd_ray.training.pack import Pack
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.profile import Profile
from tgeokd_ray.training.reuse import joint_digest
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Schedule, Step, as_it_is
from tgeokd_ray.training.worker import Worker

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp64": None}
STORED = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


def train_run(pack: Pack, inputs: Sequence[str], worker: Worker, source: Source, progress: Progress) -> list[Artifact]:
    """Train, evaluate and commit the runs of a pack, whose digests are `inputs`; worker 0 returns the artifacts in the
    order of the specs, the others none.

    Continues from the newest whole checkpoint of the same inputs; checkpoints go when the results are committed.
    """
    keep_freed_memory()
    spec = pack.shared
    rule = RulePack.of([build_rule(**student.rule) for student in pack.students])
    if rule.whole_batch and spec.micro_rows is not None:
        raise ConfigError(
            f"rule {rule.whole_batch[0]!r} compares the rows of a batch: micro_rows={spec.micro_rows} takes it apart",
            fix="leave student.training.micro_rows out, or the rule",
        )
    data = open_data(spec, worker, source, outer=rule.outer)
    checkpoints = Checkpoints(Path(spec.folder), pack.name, joint_digest(inputs))
    resumed = checkpoints.newest(worker, progress)
    step = _step(pack, rule, data, worker)
    state = resumed or _start(pack, data, step)
    if resumed is not None:
        progress.warned(f"{pack.name}: continued from step {state.step}")
    runs = [(one.name, students) for one, students in pack.places()]
    log = MetricsLog(Path(spec.folder) / "metrics.jsonl" if worker.rank == 0 else None, runs, state.step)
    began = time.monotonic()
    progress.started(pack.name, spec.epochs * data.train.steps_per_epoch, "steps")
    progress.advanced(pack.name, state.step)
    seeds = [student.seed for student in pack.students]
    dropout = Dropout(spec.model.get("dropout", 0.0), sum(spec.model.get("hidden", ())), seeds)
    profile = _profile(pack, worker, progress)
    # Of recorded steps a profile could not tell where their time goes.
    quick = as_it_is if profile is not None else partial(captured, warned=partial(_slower, pack, progress))
    loop = Loop(pack, step, dropout, data, worker, checkpoints, log, progress, profile, quick)
    state = loop.run(state)
    record = {"seconds": time.monotonic() - began, "rows_per_second": loop.rows_per_second}
    finish = finish_ratios if spec.kind == "ratios" else finish_models
    artifacts = finish(pack, step.problem, state, data, worker, source, record)
    checkpoints.clear()
    return artifacts


def _step(pack: Pack, rule: RulePack, data: RunData, worker: Worker) -> Step:
    device, spec = worker.device, pack.shared
    computed = torch.float64 if spec.exact_sums and spec.precision == "fp32" else STORED[spec.precision]
    module = _build(spec, data, pack.students[0].seed)

    def per_student(values: Iterable[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(list(values), dtype=dtype, device=device)

    temperatures = [one.temperature for one in pack.students]
    alike = len(set(temperatures)) == 1
    module = module.to(device)
    problem = Problem(
        module=module,
        rule=rule,
        temperature=temperatures[0] if alike else per_student(temperatures, computed),
        class_means=data.class_means.to(device, computed),
        class_weights=_class_weights(spec, data).to(device) if spec.class_weights == "balanced" else None,
        autocast=AUTOCAST[spec.precision],
        fast=compiled(module) if spec.compile and isinstance(module, Network) else None,
    )
    optimizer = Optimizer(spec.optimizer, _tables(module))
    rates = per_student((one.learning_rate for one in pack.students), torch.float64)
    return Step(
        problem=problem,
        optimizer=optimizer,
        fusion_optimizer=Optimizer(spec.fusion.optimizer),
        worker=worker,
        learning_rate=Schedule(rates, spec.warm_up_steps, _lowered(spec, data.train.steps_per_epoch)),
        fusion_learning_rate=_fusion_rates(rates, spec, data.train.steps_per_epoch),
        hypergradient=spec.fusion.hypergradient,
        look_ahead=spec.fusion.look_ahead,
        num_parts=spec.hessian_parts(data.train.rows / max(data.train.steps_per_epoch, 1)),
        micro_rows=spec.micro_rows,
        windowed=bool(optimizer.tables) or _pays(spec, data, optimizer),
        fixed_window=worker.size == 1 and device.type != "cpu",
    )


def _lowered(spec: RunSpec, steps_per_epoch: int) -> tuple[int, ...]:
    """The first step of each epoch from which on the learning rate is a tenth."""
    return tuple(math.ceil(share * spec.epochs) * steps_per_epoch for share in spec.lower_at)


def _fusion_rates(rates: Tensor, spec: RunSpec, steps_per_epoch: int) -> Schedule:
    """The fusion network's learning rate, one for all students of a pack."""
    changes = tuple((epoch * steps_per_epoch, rate) for epoch, rate in spec.fusion.changes)
    return Schedule(torch.full_like(rates, spec.fusion.optimizer.learning_rate), changes=changes)


def _profile(pack: Pack, worker: Worker, progress: Progress) -> Profile | None:
    if not pack.shared.profile or worker.rank:
        return None
    return Profile(Path(pack.shared.folder) / "profile", pack.name, partial(progress.finished, "profile"))


def _slower(pack: Pack, progress: Progress, message: str) -> None:
    progress.warned(f"{pack.name}: {message}")


def _tables(module: torch.nn.Module) -> list[str]:
    return [module.table] if isinstance(module, Network) and module.table is not None else []


def _pays(spec: RunSpec, data: RunData, optimizer: Optimizer) -> bool:
    """Whether a dense table has more rows than a batch can name: then a window is smaller, and outer steps cheaper."""
    return bool(optimizer.named) and data.table.num_ids > spec.batch_rows * data.table.num_categorical


def _build(spec: RunSpec, data: RunData, seed: int) -> torch.nn.Module:
    table = data.table
    return build(
        spec.model,
        num_numeric=table.num_numeric,
        num_ids=table.num_ids,
        num_categorical=table.num_categorical,
        num_classes=len(table.classes),
        generator=torch.Generator().manual_seed(seed),
        image=table.image,
    )


def _class_weights(spec: RunSpec, data: RunData) -> Tensor:
    """Rows of every class weigh the same in sum, the mean weight of a row is 1; a class without rows weighs 0."""
    counts = torch.as_tensor(data.table.label_counts(*spec.splits), dtype=torch.float64)
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp_min(1)), 0.0).float()


def _start(pack: Pack, data: RunData, step: Step) -> State:
    device, spec = step.worker.device, pack.shared
    seeds = [student.seed for student in pack.students]
    drawn = {seed: _build(spec, data, seed) for seed in dict.fromkeys(seeds)}
    theta = stack([drawn[seed] for seed in seeds])
    omega = step.problem.rule.init(seeds, len(data.table.classes), len(data.logits))
    dtype = STORED[spec.precision]
    theta, omega = ({name: value.to(device, dtype) for name, value in part.items()} for part in (theta, omega))
    num_students = len(seeds)
    return State(
        theta=theta,
        moments=step.optimizer.init(theta),
        omega=omega,
        omega_moments=step.fusion_optimizer.init(omega) if omega else {},
        best_theta={name: value.clone() for name, value in theta.items()},
        best_omega=dict(omega),
        totals=step.totals(num_students),
        best=torch.full((num_students,), -float("inf"), dtype=torch.float64, device=device),
        best_epoch=torch.full((num_students,), -1, dtype=torch.int64, device=device),
        ended=torch.full((num_students,), -1, dtype=torch.int64, device=device),
        active=torch.arange(num_students, device=device),
    )
