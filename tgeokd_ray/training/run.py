"""One run from its spec to its committed artifact: set up, loop, measure on test, write."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.events import Progress
from tgeokd_ray.models import build
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.rules import Rule, build_rule
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.training.checkpoint import Checkpoints
from tgeokd_ray.training.data import RunData, Source, open_data
from tgeokd_ray.training.dropout import Dropout
from tgeokd_ray.training.log import MetricsLog
from tgeokd_ray.training.loop import Loop
from tgeokd_ray.training.result import commit, measure
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Problem, Step
from tgeokd_ray.training.worker import Worker

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp64": None}
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


def train_run(spec: RunSpec, inputs: str, worker: Worker, source: Source, progress: Progress) -> Artifact | None:
    """Train, evaluate and commit one run; worker 0 returns the artifact, the others None.

    Continues from the newest whole checkpoint of the same inputs; checkpoints go when the result is committed.
    """
    rule = build_rule(**spec.rule)
    data = open_data(spec, worker, source, learned=rule.learned)
    checkpoints = Checkpoints(Path(spec.folder), spec.name, inputs)
    resumed = checkpoints.newest(worker, progress)
    step = _step(spec, rule, data, worker)
    state = resumed or _start(spec, rule, data, step)
    if resumed is not None:
        progress.warned(f"{spec.name}: continued from step {state.step}")
    log = MetricsLog(Path(spec.folder) / "metrics.jsonl" if worker.rank == 0 else None, spec.name, state.step)
    began = time.monotonic()
    progress.started(spec.name, spec.epochs * data.train.steps_per_epoch, "steps")
    progress.advanced(spec.name, state.step)
    dropout = Dropout(spec.model.get("dropout", 0.0), sum(spec.model.get("hidden", ())), spec.model_seeds)
    loop = Loop(spec, step, dropout, data, worker, checkpoints, log, progress)
    state = loop.run(state)
    seconds = time.monotonic() - began
    metrics = measure(spec, step.problem, state, data, worker)
    if worker.rank:
        return None
    artifact = commit(spec, state, data, metrics, {"seconds": seconds, "rows_per_second": loop.rows_per_second})
    checkpoints.clear()
    return artifact


def _step(spec: RunSpec, rule: Rule, data: RunData, worker: Worker) -> Step:
    device = worker.device
    module = _build(spec, data, spec.model_seeds[0])
    problem = Problem(
        module=module.to(device),
        rule=rule,
        temperature=spec.temperature,
        class_means=data.class_means.to(device, DTYPES[spec.precision]),
        class_weights=_class_weights(spec, data).to(device) if spec.class_weights == "balanced" else None,
        autocast=AUTOCAST[spec.precision],
    )
    rate = torch.full((len(spec.model_seeds),), spec.optimizer.learning_rate, dtype=torch.float64, device=device)
    warm_up = max(spec.warm_up_steps, 1)
    return Step(
        problem=problem,
        optimizer=Optimizer(spec.optimizer),
        fusion_optimizer=Optimizer(spec.fusion.optimizer),
        worker=worker,
        learning_rate=lambda step: rate * min(1.0, (step + 1) / warm_up),
        fusion_learning_rate=torch.full_like(rate, spec.fusion.optimizer.learning_rate),
        hypergradient=spec.fusion.hypergradient,
        look_ahead=spec.fusion.look_ahead,
    )


def _build(spec: RunSpec, data: RunData, seed: int) -> torch.nn.Module:
    table = data.table
    return build(
        spec.model,
        num_numeric=table.num_numeric,
        num_ids=table.num_ids,
        num_categorical=table.num_categorical,
        num_classes=len(table.classes),
        generator=torch.Generator().manual_seed(seed),
    )


def _class_weights(spec: RunSpec, data: RunData) -> Tensor:
    """Rows of every class weigh the same in sum, the mean weight of a row is 1; a class without rows weighs 0."""
    counts = torch.as_tensor(data.table.label_counts(spec.split), dtype=torch.float64)
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp_min(1)), 0.0).float()


def _start(spec: RunSpec, rule: Rule, data: RunData, step: Step) -> State:
    device = step.worker.device
    theta = stack([_build(spec, data, seed) for seed in spec.model_seeds])
    omega = rule.init(spec.model_seeds, len(data.table.classes), len(data.logits))
    dtype = DTYPES[spec.precision]
    theta, omega = ({name: value.to(device, dtype) for name, value in part.items()} for part in (theta, omega))
    num_students = len(spec.model_seeds)
    return State(
        theta=theta,
        moments=step.optimizer.init(theta),
        omega=omega,
        omega_moments=step.fusion_optimizer.init(omega) if omega else {},
        best_theta=dict(theta),
        best_omega=dict(omega),
        totals={name: torch.zeros(num_students, device=device, dtype=dtype) for name in step.measures},
        best=torch.full((num_students,), -float("inf"), dtype=torch.float64, device=device),
        best_epoch=torch.full((num_students,), -1, dtype=torch.int64, device=device),
    )
