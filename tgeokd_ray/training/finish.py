"""The end of a pack: what its runs leave behind is measured on all workers, and committed by worker 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, open_artifact
from tgeokd_ray.training.choice import chosen_among, commit_incumbent, gain_over_constant
from tgeokd_ray.training.data import RunData, Source
from tgeokd_ray.training.evaluation import summarise_ratio
from tgeokd_ray.training.pack import Pack
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.ratios import commit_ratios, score
from tgeokd_ray.training.result import commit, followed, measure
from tgeokd_ray.training.state import State
from tgeokd_ray.training.worker import Worker

Record = dict[str, Any]


def finish_models(
    pack: Pack, problem: Problem, state: State, data: RunData, worker: Worker, source: Source, record: Record
) -> list[Artifact]:
    """Measure and commit the models of a pack; of a choice the best candidate, or the constant that none has beaten."""
    del source
    metrics = measure(pack, problem, state, data, worker)
    artifacts = []
    for (spec, students), found in zip(pack.places(), metrics, strict=True):
        gain = gain_over_constant(spec, students, problem, state, data, worker) if spec.choice else None
        if worker.rank:
            continue
        if spec.choice is None:
            artifacts.append(commit(spec, students, problem, state, data, found, record))
            continue
        choice, winner = chosen_among(spec, students, state, found, gain)
        if winner is None:
            assert spec.choice.incumbent is not None
            artifacts.append(commit_incumbent(spec, open_artifact(Path(spec.choice.incumbent)), choice, record))
        else:
            artifacts.append(commit(spec, winner, problem, state, data, found | {"choice": choice}, record))
    return artifacts


def finish_ratios(
    pack: Pack, problem: Problem, state: State, data: RunData, worker: Worker, source: Source, record: Record
) -> list[Artifact]:
    """Score every row with the mean of the ratios that a run's members have learned, and commit it."""
    ((spec, students),) = pack.places()
    training = problem.take(state.active.tolist())
    ratio = summarise_ratio(training, state.theta, state.omega, data.train.batches(0), worker).together()
    rows = score(spec, problem, state, worker, source, data.evaluation_rows)
    if worker.rank:
        return []
    metrics = {**followed(state, students), "rule": dict(spec.rule), "ratio": ratio.results(0)}
    return [commit_ratios(spec, rows, state, metrics, record)]
