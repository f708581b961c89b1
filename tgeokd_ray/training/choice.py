"""The second of two phases: which candidate wins on valid, or whether the constant that was best stays ahead."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tgeokd_ray.artifacts import Artifact, load_tensors, open_artifact, staging, write_json
from tgeokd_ray.metrics import paired_gain
from tgeokd_ray.training.data import RunData
from tgeokd_ray.training.evaluation import evaluate, signed
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.reuse import load_metrics, parents
from tgeokd_ray.training.spec import HIGHER_IS_BETTER, RunSpec
from tgeokd_ray.training.state import State
from tgeokd_ray.training.worker import Worker


def best_of(students: range, state: State) -> int:
    """The place of the student that was best on valid, the first of equals."""
    return max(students, key=lambda r: float(state.best[r]))


def gain_over_constant(
    spec: RunSpec, students: range, problem: Problem, state: State, data: RunData, worker: Worker
) -> tuple[float, float] | None:
    """By how much the best candidate is better on valid than the constant, and the standard error of that
    (`paired_gain`); None without a constant and where the rows do not tell. All workers call it."""
    assert spec.choice is not None
    if spec.choice.incumbent is None:
        return None
    constant = load_tensors(open_artifact(Path(spec.choice.incumbent)).file("model.safetensors"))
    winner = best_of(students, state)
    both = {n: torch.stack([v[winner], constant[n].to(v)]) for n, v in state.best_theta.items()}
    table = data.table
    ours, theirs = evaluate(problem, both, data.sequential("valid"), worker, table.negative, weighted=table.has_weights)
    return paired_gain(ours, theirs, spec.metric)


def chosen_among(
    spec: RunSpec,
    students: range,
    state: State,
    metrics: dict[str, Any],
    gain: tuple[float, float] | None,
) -> tuple[dict[str, Any], range | None]:
    """What was to choose from and what was chosen, JSON-ready, and the place of the winner in the pack: None where no
    candidate is better on valid than the constant that they had to beat, by the margin where `gain` has its error."""
    assert spec.choice is not None
    winner = best_of(students, state)
    sign = signed({spec.metric: 1.0}, spec.metric)  # the state holds metrics of which more is better
    candidates = [
        {**dict(one.rule), "temperature": one.temperature, "valid": sign * float(state.best[r])}
        | {"epochs": int(state.ended[r]) + 1 if state.ended[r] >= 0 else state.epoch}
        for one, r in zip(spec.choice.candidates, students, strict=True)
    ]
    for one, figures in zip(candidates, metrics.pop("candidates", ()), strict=False):
        one["test"] = {name: figures.get(name) for name in HIGHER_IS_BETTER}
    told: dict[str, Any] = {"metric": spec.metric, "pays": True, "candidates": candidates}
    best = candidates[winner - students.start]
    if spec.choice.incumbent is None:
        return told | {"chosen": best}, range(winner, winner + 1)
    known = load_metrics(open_artifact(Path(spec.choice.incumbent)))
    told["constant"] = {**known["rule"], "valid": known["valid"][spec.metric]}
    test = metrics["test"]
    told["best"] = best if test is None else {**best, "test": {name: test.get(name) for name in HIGHER_IS_BETTER}}
    if gain is None:
        told["standard_error"] = None
    else:
        told |= {"gain": gain[0], "standard_error": gain[1], "margin": spec.choice.margin}
    within = gain is not None and gain[0] <= spec.choice.margin * gain[1]
    if within or signed(known["valid"], spec.metric) >= float(state.best[winner]):
        return told | {"pays": False, "chosen": told["constant"]}, None
    return told | {"chosen": best}, range(winner, winner + 1)


def commit_incumbent(spec: RunSpec, constant: Artifact, choice: dict[str, Any], record: dict[str, Any]) -> Artifact:
    """The run's artifact where the constant wins: the same model under the run's own name, and the choice beside it."""
    metrics = load_metrics(constant)
    metrics.pop("rows_per_second")
    with staging(spec.root, spec.kind, spec.artifact, arguments=spec.arguments(), parents=parents(spec)) as stage:
        for entry in constant.manifest.files:
            if entry.path != "metrics.json":
                stage.write(entry.path, partial(_copy, constant.file(entry.path)))
        stage.write("metrics.json", lambda path: write_json(path, metrics | {"choice": choice}))
        return stage.commit(schema=constant.manifest.schema, record=record)


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)
