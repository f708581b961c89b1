"""What a finished run leaves behind: figures of its best parameters, and the artifact that holds both."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, open_artifact, raw_names, save_tensors, staging, write_json
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.models import count_parameters
from tgeokd_ray.training.data import RunData
from tgeokd_ray.training.evaluation import evaluate, summarise_ratio
from tgeokd_ray.training.reuse import parents
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.state import State, Tensors
from tgeokd_ray.training.steps import Problem
from tgeokd_ray.training.worker import Worker

# What a model takes from its table, and under which name: what its kind does not see is left behind.
COPIED = {
    "teachers": {name: name for name in ("encoder.json", "teacher_encoder.json", "card.json")},
    "students": {"encoder.json": "encoder.json", "student_card.json": "card.json", "card.json": "card.json"},
}
REPLICATES = 200
WITH_INTERVALS = ("auc", "nll", "accuracy")


def measure(spec: RunSpec, problem: Problem, state: State, data: RunData, worker: Worker) -> list[dict[str, Any]]:
    """Results of the best parameters on valid and test, the history, what the ratio did: per student of the pack, or
    of the ensemble that the students are."""
    theta, omega = state.best_theta, state.best_omega
    how = {"weighted": data.table.has_weights, "as_one": spec.ensemble}
    valid, test = (
        evaluate(problem, theta, data.sequential(split), worker, data.table.negative, **how)
        for split in ("valid", "test")
    )
    ratio = None
    if data.logits and problem.rule.kind != "labels":
        ratio = summarise_ratio(problem, theta, omega, data.train.batches(0), worker)
        ratio = ratio.together() if spec.ensemble else ratio
    students = []
    for r in range(len(test)):
        metrics: dict[str, Any] = {
            "valid": valid[r].results(),
            "test": with_intervals(test[r], spec.data_seed, weighted=data.table.has_weights),
        }
        metrics["history"] = [{k: _of(v, r, spec) for k, v in entry.items()} for entry in state.history]
        metrics |= {"epoch": int(state.best_epoch.max() if spec.ensemble else state.best_epoch[r]), "steps": state.step}
        metrics |= {"parameters": count_parameters(problem.module) * len(state.best) // len(test)}
        metrics["rule"] = dict(spec.rule)
        if ratio is not None:
            metrics["ratio"] = ratio.results(r)
        students.append(metrics)
    return students


def _of(value: Any, student: int, spec: RunSpec) -> Any:
    """A measure of one student; of an ensemble the mean over its members, null where any has none."""
    if not isinstance(value, list):
        return value
    if not spec.ensemble:
        return value[student]
    return None if None in value else sum(value) / len(value)


def with_intervals(evaluation: Evaluation, seed: int, *, weighted: bool) -> dict[str, Any]:
    """Results with 95 % bootstrap intervals by rows, while the pass is small enough to have kept its rows and they
    count alike."""
    results = evaluation.results()
    if evaluation.exact and not weighted:
        for metric in WITH_INTERVALS:
            found = evaluation.interval(metric, replicates=REPLICATES, seed=seed)
            results[f"{metric}_interval"] = None if found is None else list(found)
    return results


def commit(
    spec: RunSpec, state: State, data: RunData, metrics: list[dict[str, Any]], record: dict[str, Any]
) -> Artifact:
    """Write the run's artifact: parameters, metrics, how to build the model, and the encoder that its inputs need."""
    table = open_artifact(Path(spec.table))
    member = dict(spec.model)
    model = {
        "model": {"kind": "ensemble", "members": state.num_students, "member": member} if spec.ensemble else member,
        "num_numeric": data.table.num_numeric,
        "num_ids": data.table.num_ids,
        "num_categorical": data.table.num_categorical,
        "classes": list(data.table.classes),
        "raw": raw_names(table),
    }
    with staging(spec.root, spec.kind, spec.artifact, arguments=spec.arguments(), parents=parents(spec)) as stage:
        for name, tensors in _parameters(spec, state).items():
            stage.write(f"{name}.safetensors", partial(_tensors, tensors))
        stage.write("metrics.json", partial(_json, metrics[0] if len(metrics) == 1 else {"students": metrics}))
        stage.write("model.json", partial(_json, model))
        for name, source in _copied(spec.kind, table).items():
            stage.write(name, partial(_copy, source))
        return stage.commit(schema={"classes": list(data.table.classes)}, record=record)


def _parameters(spec: RunSpec, state: State) -> dict[str, Tensors]:
    """Files of parameters by name: `model` and `fusion` of a student alone, `model-0`, ... of a pack; one of each with
    every member's parameters of an ensemble."""
    members = range(state.num_students)
    if spec.ensemble:
        return {
            file: {f"members.{r}.{name}": value[r].cpu() for r in members for name, value in part.items()}
            for file, part in (("model", state.best_theta), ("fusion", state.best_omega))
            if part
        }
    files: dict[str, Tensors] = {}
    for r in members:
        suffix = "" if state.num_students == 1 else f"-{r}"
        for name, part in (("model", state.best_theta), ("fusion", state.best_omega)):
            if part:
                files[f"{name}{suffix}"] = {key: value[r].cpu() for key, value in part.items()}
    return files


def _tensors(tensors: dict[str, Any], path: Path) -> None:
    save_tensors(path, tensors, finite=True)


def _json(value: Any, path: Path) -> None:
    write_json(path, value)


def _copied(kind: str, table: Artifact) -> dict[str, Path]:
    """The file of the table behind each name; only a table with teacher-only columns has all of them."""
    there = {entry.path for entry in table.manifest.files}
    found: dict[str, Path] = {}
    for source, name in COPIED[kind].items():
        if source in there:
            found.setdefault(name, table.file(source))
    return found


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)
