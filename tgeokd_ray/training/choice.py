"""The second of two phases: which candidate wins on valid, or whether the constant that was best stays ahead."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, open_artifact, staging, write_json
from tgeokd_ray.training.evaluation import signed
from tgeokd_ray.training.reuse import load_metrics, parents
from tgeokd_ray.training.spec import HIGHER_IS_BETTER, RunSpec
from tgeokd_ray.training.state import State


def chosen_among(
    spec: RunSpec, students: range, state: State, metrics: dict[str, Any]
) -> tuple[dict[str, Any], range | None]:
    """What was to choose from and what was chosen, JSON-ready, and the place of the winner in the pack: None where no
    candidate is better on valid than the constant that they had to beat."""
    assert spec.choice is not None
    winner = max(students, key=lambda r: float(state.best[r]))
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
    told["best"] = {**best, "test": {name: metrics["test"].get(name) for name in HIGHER_IS_BETTER}}
    if signed(known["valid"], spec.metric) >= float(state.best[winner]):
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
