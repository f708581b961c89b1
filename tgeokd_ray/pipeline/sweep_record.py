"""What a sweep leaves behind: what it is, so that another of its name is refused, its leaderboard, its part of
results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tgeokd_ray.artifacts import Artifact, find, inputs_digest, read_json, staging, write_json
from tgeokd_ray.config.space import Point
from tgeokd_ray.config.sweep import Resolved
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem
from tgeokd_ray.pipeline.sweep_board import count_of
from tgeokd_ray.pipeline.sweep_importance import importance
from tgeokd_ray.pipeline.sweep_journal import Trial, ranked

FILE = "sweep.json"
KIND = "sweeps"


@dataclass(frozen=True)
class Began:
    """What stands in FILE: the identity of the sweep, how many trials were asked for in all, how often it ran."""

    identity: dict[str, Any]
    trials: int
    runs: int


def begun(folder: Path, identity: Mapping[str, Any], trials: int) -> Began:
    """The sweep in the folder, or a new one of so many trials. ConfigError with every difference, in the keys that
    `identity` has, where it is another one; trials that were added before are not forgotten."""
    identity, path = json.loads(json.dumps(identity)), folder / FILE
    if not path.exists():
        return Began(dict(identity), trials, 0)
    there = _read(path)
    differences = different({key: there["identity"].get(key) for key in identity}, identity)
    if differences:
        raise ConfigError(
            [Problem(f"runs/{folder.name} holds another sweep: {one}") for one in differences],
            fix="give this one a name of its own, or take the old settings back",
        )
    return Began(there["identity"], max(trials, there["trials"]), there["runs"])


def _read(path: Path) -> dict[str, Any]:
    try:
        there = read_json(path)
        if isinstance(there, dict) and isinstance(there.get("identity"), dict) and {"trials", "runs"} <= set(there):
            return there
        problems = [Problem("this is no record of a sweep", file=str(path))]
    except IntegrityError as error:
        problems = list(error.problems)
    raise IntegrityError(problems, fix="remove this file: the same command writes it anew and keeps what is over")


def begin(folder: Path, resolved: Resolved, parents: Mapping[str, Artifact], add_trials: int) -> Began:
    """Note what this sweep is, or go on with the one that is there. ConfigError as of `begun`."""
    identity = resolved.identity | {"made_from": {role: artifact.digest for role, artifact in parents.items()}}
    there = begun(folder, identity, resolved.sweep.trials)
    began = replace(there, trials=there.trials + add_trials, runs=there.runs + 1)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, {"identity": began.identity, "trials": began.trials, "runs": began.runs})
    return began


def different(old: Any, new: Any, place: str = "") -> list[str]:
    """Every value that differs, by its path: `sweep.seed was 0 and is 1`."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += different(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return found
    return [] if old == new else [f"{place} was {json.dumps(old)} and is {json.dumps(new)}"]


def told_sweep(resolved: Resolved, began: Began, trials: Sequence[Trial], left: int, seconds: float) -> dict[str, Any]:
    """`extra.sweep` of results.json: the space, every trial from best to worst, what matters, what it cost."""
    sweep = resolved.sweep
    in_order = ranked(trials, higher_is_better=resolved.sign > 0)
    shares, why = importance(sweep.ordered, in_order, higher_is_better=resolved.sign > 0)
    spent = sum(trial.seconds for trial in trials)
    hours = spent * resolved.job.workers / 3600
    return {
        "name": resolved.name,
        "metric": resolved.metric,
        "higher_is_better": resolved.sign > 0,
        "search": sweep.search,
        "scheduler": sweep.scheduler,
        "seeds": sweep.seeds,
        "resumed": began.runs > 1,
        "space": {name: p.model_dump(mode="json", exclude_none=True) for name, p in sweep.ordered.items()},
        "trials": [_told(trial, rank) for rank, trial in enumerate(in_order, start=1)],
        "counts": count_of({trial.name: trial for trial in trials}) | {"unfinished": left},
        "best": in_order[0].name if in_order and in_order[0].status == "finished" else None,
        "importance": shares,
        "importance_note": why,
        "cost": {
            "cpu_hours": hours * sweep.resources.cpu,
            "gpu_hours": hours * sweep.resources.gpu,
            "trial_seconds": spent,
        },
        "seconds": seconds,
        "budget_minutes": sweep.budget_minutes,
    }


def _told(trial: Trial, rank: int) -> dict[str, Any]:
    figures = dict(trial.figures)
    return {
        "rank": rank if trial.status == "finished" else None,
        "name": trial.name,
        "point": dict(trial.point),
        "status": trial.status,
        "value": trial.value,
        "curve": list(trial.curve),
        "epochs": trial.epochs,
        "steps": figures.pop("steps", None),
        "seconds": trial.seconds,
        "students": trial.students,
        "parameters": trial.parameters,
        "reason": trial.reason,
        "code": trial.code,
        "figures": figures,
    }


def keep_sweep(
    root: Path, resolved: Resolved, told: Mapping[str, Any], best: Mapping[str, Any], parents: Mapping[str, Artifact]
) -> Artifact:
    """`sweeps/NAME`: leaderboard.json, leaderboard.parquet, and the `best` job as best.yaml for --config. The same
    trials give the same artifact, which is not made twice."""
    lasting = ("name", "point", "status", "value", "curve")
    trials = sorted(({key: trial[key] for key in lasting} for trial in told["trials"]), key=lambda one: one["name"])
    confirmed = {} if told["confirmation"] is None else {"confirmation": told["confirmation"]}
    arguments = json.loads(json.dumps({"identity": resolved.identity, "trials": trials, **confirmed}))
    digest = inputs_digest(KIND, arguments, {role: one.as_parent() for role, one in parents.items()})
    there = find(root, KIND, resolved.name, digest)
    if there is not None:
        return there
    with staging(root, KIND, resolved.name, arguments=arguments, parents=parents) as stage:
        stage.write("leaderboard.json", lambda path: write_json(path, dict(told)))
        stage.write("leaderboard.parquet", lambda path: _write_parquet(path, told["trials"], list(told["space"])))
        stage.write("best.yaml", lambda path: _write_text(path, yaml.safe_dump(dict(best), sort_keys=False)))
        return stage.commit(schema={"metric": told["metric"], "trials": len(trials)}, record={})


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_parquet(path: Path, trials: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """One row a trial; a parameter is a column of numbers, or of JSON where it is not a number throughout."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        key: [trial[key] for trial in trials]
        for key in ("rank", "name", "status", "value", "epochs", "steps", "seconds", "students", "parameters", "reason")
    }
    columns |= {name: _column([trial["point"] for trial in trials], name) for name in names}
    columns["curve"] = pa.array([trial["curve"] for trial in trials], pa.list_(pa.float64()))
    pq.write_table(pa.table(columns), path)


def _column(points: Sequence[Point], name: str) -> list[Any]:
    values = [point.get(name) for point in points]
    numbers = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)
    if numbers:
        return [None if value is None else float(value) for value in values]
    return [None if name not in point else json.dumps(point[name]) for point in points]
