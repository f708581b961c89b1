"""What the first of two phases leaves behind: the ratio of every row, averaged over states of its second half.

N rows, M teachers, S snapshots of the students: of one, or of all members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tgeokd_ray.artifacts import Artifact, Staging, find, inputs_digest, save_tensors, staging, write_json
from tgeokd_ray.errors import IntegrityError, Problem
from tgeokd_ray.feed import Feed, Sampler
from tgeokd_ray.feed.beside import like_shard, write_beside
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.feed.teachers import places
from tgeokd_ray.objectives.distributions import distance
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.training.data import Source, train_rows
from tgeokd_ray.training.problem import Problem as Trained
from tgeokd_ray.training.reuse import parents
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.state import State, Tensors
from tgeokd_ray.training.worker import Worker

KIND = "ratios"
SMALLEST = 1e-9  # of a weight, before its logarithm


def snapshot_every(spec: RunSpec, total_steps: int) -> int:
    """Inner steps between snapshots: as many in the second half of a run as `spec.snapshots`, fewer if steps are."""
    return max(total_steps // (2 * spec.snapshots), 1)


def second_half(state: State) -> tuple[Tensors, Tensors]:
    """Theta and omega, [S, ...], of the snapshots from the second half of the steps that were taken; of a run that was
    too short for any, what it ended with."""
    kept = state.snapshots if state.snapshots else state.with_snapshot().snapshots
    steps = sorted({name.partition("/")[0] for name in kept})
    late = [step for step in steps if 2 * int(step) > state.step] or steps[-1:]
    theta, omega = (
        {name: torch.cat([kept[f"{step}/{part}/{name}"] for step in late]) for name in getattr(state, part)}
        for part in ("theta", "omega")
    )
    return theta, omega


@dataclass(frozen=True)
class RowRatios:
    """`row_ids` [N] int64, `weights` [N, 1 + M] float32 of label and teachers, and `distances` [N, M] float32: how far
    student and teacher are apart at temperature 1, NaN where the teacher did not score the row; all on the CPU."""

    row_ids: Tensor
    weights: Tensor
    distances: Tensor


def score(spec: RunSpec, problem: Trained, state: State, worker: Worker, source: Source, at_once: int) -> RowRatios:
    """Weights of all rows of `spec.ratio_splits`, averaged over snapshots, and distances of the last one; on every
    worker, in no order.

    Statistics of a batch are those of `evaluation_rows` rows that do not depend on the number of workers, of which
    `at_once` go through the network together. The rule is asked as it is: rows that lack a label or a teacher's logits
    get some number, which no step will use.
    """
    theta, omega = second_half(state)
    (num_snapshots,) = {len(value) for value in theta.values()}
    rules = RulePack.of([problem.rule.groups[0].rule] * num_snapshots)
    averaged = replace(problem, rule=rules)
    train = train_rows(spec)
    wanted = replace(train, splits=spec.ratio_splits, ratios=())
    sampler = Sampler(wanted.units, spec.evaluation_rows, 0)
    feed = Feed(source.reader(wanted), sampler, worker.rank, worker.size, cache_bytes=0, shared=source.rows(wanted))
    found = [_nothing(len(train.logits))]
    context = Context(progress=1.0, generator=None, mean=worker.global_mean)
    with torch.no_grad():
        for rows in feed.batches(0):
            there = rows.to(worker.device)
            points = averaged.points(_logits(averaged, theta, there, at_once), there)
            weights = rules.mixture(omega, points, there.covered[:, :0], context)
            found.append((rows.row_id, weights.double().mean(0).float().cpu(), _distances(points, there).cpu()))
    gathered = (worker.gather(torch.cat(part).to(worker.device)) for part in zip(*found, strict=True))
    return RowRatios(*(torch.cat([one.cpu() for one in part]) for part in gathered))


def _logits(problem: Trained, theta: Tensors, rows: Rows, at_once: int) -> Tensor:
    """Student logits [S, N, C]: the maps of images are there for `at_once` rows only, the logits for all."""
    starts = range(0, max(len(rows), 1), at_once)
    return torch.cat([problem.logits(theta, rows[first : first + at_once]) for first in starts], 1)


def _nothing(num_teachers: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty(0, dtype=torch.int64), torch.empty(0, 1 + num_teachers), torch.empty(0, num_teachers)


def _distances(points: Points, rows: Rows) -> Tensor:
    """|S - T| [N, M] of the last snapshot."""
    student = points.student_logits[-1].softmax(-1).unsqueeze(-2)
    apart = distance(student, points.teacher_logits.to(student.dtype).softmax(-1)).float()
    return apart.masked_fill(rows.covered == 0, torch.nan) if rows.covered.shape[1] else apart


def commit_ratios(
    spec: RunSpec, rows: RowRatios, state: State, metrics: dict[str, Any], record: dict[str, Any]
) -> Artifact:
    """Write `ratios/NAME`: u, gate and distances of every row in shards like the table's, the mean of u, the median
    distances, the last fusion network, of an ensemble that of every member that trained to the end.

    IntegrityError if a row of the table was not scored.
    """
    table = EncodedTable.open(Path(spec.table))
    with staging(spec.root, spec.kind, spec.artifact, arguments=spec.arguments(), parents=parents(spec)) as stage:
        of_rows = (rows.row_ids.numpy(), rows.weights.numpy(), rows.distances.numpy())
        schema = write_shards(stage, table, spec.ratio_splits, *of_rows)
        prefixes = [f"members.{member}." if spec.ensemble else "" for member in state.active.tolist()]
        fusion = {
            f"{prefix}{name}": value[place].cpu()
            for name, value in state.omega.items()
            for place, prefix in enumerate(prefixes)
        }
        stage.write("fusion.safetensors", lambda path: save_tensors(path, fusion, finite=True))
        metrics = metrics | {"mean_logit": schema["mean"]}
        stage.write("metrics.json", lambda path: write_json(path, metrics))
        return stage.commit(schema=schema, record=record)


def commit_known(
    root: Path,
    name: str,
    table: Artifact,
    splits: Sequence[str],
    row_ids: NDArray[np.int64],
    weights: NDArray[np.floating],
    arguments: Mapping[str, Any],
) -> Artifact:
    """`ratios/NAME` of weights [N, 1 + M] that are known from elsewhere, for all rows of these splits; found again by
    `arguments`. IntegrityError as `commit_ratios`."""
    parent = {"table": table}
    inputs = inputs_digest(KIND, arguments, {role: one.as_parent() for role, one in parent.items()})
    there = find(root, KIND, name, inputs)
    if there is not None:
        return there
    with staging(root, KIND, name, arguments=arguments, parents=parent) as stage:
        schema = write_shards(stage, EncodedTable.open(table.path), splits, row_ids, weights)
        return stage.commit(schema=schema, record={})


def write_shards(
    stage: Staging,
    table: EncodedTable,
    splits: Sequence[str],
    row_ids: NDArray[np.int64],
    weights: NDArray[np.floating],
    distances: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """Write u and gate of the rows of these splits, and `distances` [N, M] where they are known, found by id, in shards
    like the table's, and return the schema: the mean of u and the median distances over rows with a label, the splits,
    the number of teachers."""
    order = np.argsort(row_ids, kind="stable")
    known, ratios = row_ids[order], logits_and_gates(weights[order])
    apart = None if distances is None else distances[order]
    total, count = 0.0, 0
    labelled_apart: list[NDArray[np.float32]] = []
    for entry in (table.entry(shard) for split in splits for shard in _shards(table, split)):
        stored = read_shard(table.artifact.file(entry.path), entry.rows or 0, ["row_id", "label"])
        own = stored.column("row_id").to_numpy()
        place, there = places(known, own)
        if not there.all():
            raise IntegrityError([Problem(f"{int((~there).sum())} rows were not scored", file=entry.path)])
        part = ratios[place]
        known_label = stored.column("label").to_numpy() >= 0
        labelled = part[known_label, :-1].astype(np.float64)
        total, count = total + float(labelled.sum()), count + labelled.size
        columns = {"ratio": part}
        if apart is not None:
            columns["distance"] = apart[place]
            labelled_apart.append(columns["distance"][known_label])
        written = partial(write_beside, row_ids=own, columns=columns, groups=list(entry.extra["groups"]))
        stage.write(entry.path, written, rows=entry.rows, extra=like_shard(entry))
    medians = {} if apart is None else {"median_distances": _medians(np.concatenate(labelled_apart))}
    return {"mean": total / max(count, 1), "splits": list(splits), "num_teachers": ratios.shape[1] - 1, **medians}


def _medians(distances: NDArray[np.float32]) -> list[float | None]:
    """The median of each column [N, M] over the rows that have a value; None for a column without any."""
    known = [column[~np.isnan(column)] for column in distances.T]
    return [float(np.median(column)) if len(column) else None for column in known]


def logits_and_gates(weights: NDArray[np.floating]) -> NDArray[np.float32]:
    """[u_1, ..., u_M, gate] of mean weights [N, 1 + M]: u_m the log of teacher over label, the gate the row's sum over
    the mean sum."""
    floor = np.maximum(weights.astype(np.float64), SMALLEST)
    sums = weights.astype(np.float64).sum(1, keepdims=True)
    gates = sums / sums.mean()
    return np.concatenate([np.log(floor[:, 1:] / floor[:, :1]), gates], axis=1).astype(np.float32)


def _shards(table: EncodedTable, split: str) -> Sequence[str]:
    return sorted({unit.shard for unit in table.units(split)})
