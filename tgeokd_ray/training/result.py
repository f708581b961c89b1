"""What a finished run leaves behind: figures of its best parameters, and the artifact that holds both."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, open_artifact, raw_names, save_tensors, staging, write_json
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.models import count_parameters
from tgeokd_ray.training.choice import best_of
from tgeokd_ray.training.data import RunData
from tgeokd_ray.training.evaluation import evaluate, summarise_ratio
from tgeokd_ray.training.log import entry_of
from tgeokd_ray.training.pack import Pack
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.reuse import parents
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.state import State, Tensors
from tgeokd_ray.training.worker import Worker

# What a model takes from its table, and under which name: what its kind does not see is left behind.
COPIED = {
    "teachers": {name: name for name in ("encoder.json", "teacher_encoder.json", "card.json")},
    "students": {"encoder.json": "encoder.json", "student_card.json": "card.json", "card.json": "card.json"},
}
REPLICATES = 200
WITH_INTERVALS = ("auc", "nll", "accuracy")


def measure(pack: Pack, problem: Problem, state: State, data: RunData, worker: Worker) -> list[dict[str, Any]]:
    """For every run of the pack, results of its best parameters on valid and test, the history, what the ratio did; an
    ensemble is measured as the one model that its students are, a choice as its best candidate. A run that is not to be
    `measured` has None for test and nothing of the ratio."""
    as_one, table = pack.shared.ensemble, data.table
    winners = [_winner(students, state) if spec.choice else students for spec, students in pack.places()]
    measured = [
        students if spec.choice and spec.choice.measure_all else winner
        for (spec, students), winner in zip(pack.places(), winners, strict=True)
    ]
    students = [r for part in measured for r in part]
    theta, omega = ({n: v[students] for n, v in part.items()} for part in (state.best_theta, state.best_omega))
    problem = problem.take(students)
    how = {"weighted": table.has_weights, "as_one": as_one}
    found = {
        split: evaluate(problem, theta, data.sequential(split), worker, table.negative, **how) for split in data.passes
    }
    valid, test = found["valid"], found.get("test")
    ratio = None
    asks = bool(problem.rule.needs)  # of a step: the history has what its ratio was
    if test and data.logits and not problem.rule.labels_only and not asks:
        ratio = summarise_ratio(problem, theta, omega, data.train.batches(0), worker)
        ratio = ratio.together() if as_one else ratio
    runs = []
    for index, (spec, part) in enumerate(zip(pack.specs, winners, strict=True)):
        rule, place = pack.students[part[0]].rule, index if as_one else students.index(part[0])
        metrics: dict[str, Any] = {
            "valid": valid[place].results(),
            "test": test and with_intervals(test[place], spec.data_seed, weighted=table.has_weights),
            **followed(state, part),
            "epoch": max(int(state.best_epoch[r]) for r in part),
            "parameters": count_parameters(problem.module) * len(part),
            "rule": dict(rule),
        }
        if ratio is not None and rule["kind"] != "labels":
            metrics["ratio"] = ratio.results(place)
        if test and spec.choice and spec.choice.measure_all:
            metrics["candidates"] = [test[students.index(r)].results() for r in measured[index]]
        runs.append(metrics)
    return runs


def followed(state: State, students: range) -> dict[str, Any]:
    """The history of one run's students, and how many steps it took."""
    history = _told(state.history, students)
    return {"history": history, "steps": history[-1]["step"]}


def _winner(students: range, state: State) -> range:
    best = best_of(students, state)
    return range(best, best + 1)


def _told(history: Sequence[Mapping[str, Any]], students: range) -> list[dict[str, Any]]:
    """The history of one run: a measure is its student's, or the mean over the members that have one."""
    own = (entry_of(entry, students) for entry in history)
    return [{key: _mean(value) for key, value in entry.items()} for entry in own if entry is not None]


def _mean(value: Any) -> Any:
    known = [one for one in value if one is not None] if isinstance(value, list) else None
    return value if known is None else sum(known) / len(known) if known else None


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
    spec: RunSpec,
    students: range,
    problem: Problem,
    state: State,
    data: RunData,
    metrics: dict[str, Any],
    record: dict[str, Any],
) -> Artifact:
    """Write one run's artifact: parameters, metrics, how to build the model, and the encoder that its inputs need.

    `students` are the run's places in the pack.
    """
    table = open_artifact(Path(spec.table))
    member = dict(spec.model)
    model = {
        "model": {"kind": "ensemble", "members": len(students), "member": member} if spec.ensemble else member,
        "num_numeric": data.table.num_numeric,
        "num_ids": data.table.num_ids,
        "num_categorical": data.table.num_categorical,
        **({} if data.table.image is None else {"image": dict(data.table.image)}),
        "classes": list(data.table.classes),
        "raw": raw_names(table),
    }
    with staging(spec.root, spec.kind, spec.artifact, arguments=spec.arguments(), parents=parents(spec)) as stage:
        for name, tensors in _parameters(students, problem, state).items():
            stage.write(f"{name}.safetensors", partial(_tensors, tensors))
        stage.write("metrics.json", partial(_json, metrics))
        stage.write("model.json", partial(_json, model))
        for name, source in _copied(spec.kind, table).items():
            stage.write(name, partial(_copy, source))
        return stage.commit(schema={"classes": list(data.table.classes)}, record=record)


def _parameters(students: range, problem: Problem, state: State) -> dict[str, Tensors]:
    """Files of parameters by name: the model's, and those of the rule where it has some; of an ensemble with every
    member's."""
    files: dict[str, Tensors] = {"model": {}, "fusion": {}}
    for member, r in enumerate(students):
        prefix = f"members.{member}." if len(students) > 1 else ""
        files["model"] |= {prefix + name: value[r].cpu() for name, value in state.best_theta.items()}
        own = problem.rule.own(state.best_omega, r)
        files["fusion"] |= {prefix + name: value.cpu() for name, value in own.items()}
    return {name: tensors for name, tensors in files.items() if tensors}


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
