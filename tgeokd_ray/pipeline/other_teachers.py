"""Controls that change the teacher, not the ratio: one recalibrated on outer rows, one stacked with the student itself.

N rows, M teachers, C classes, F folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact, FileEntry, find, inputs_digest, staging
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.folds import FOLD_NOBODY, fold_of
from tgeokd_ray.feed.logits_files import Piece, finish, write_logits
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.teachers import scored
from tgeokd_ray.pipeline.denoising import FOLDS, judges_of
from tgeokd_ray.pipeline.plans import StudentsPlan
from tgeokd_ray.training.scoring import Predictor
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.stacker import Stacker, fit_stacker

RECALIBRATED, STACKED = "recalibrated", "stacked"
OTHER_TEACHERS = (RECALIBRATED, STACKED)
FITTED, TAUGHT = "outer", ("train", "outer")
# Raised when the same parents are to give other logits than before.
DERIVING = 1


def judges(labels: RunSpec, card: str) -> tuple[RunSpec, ...]:
    """The student on labels, once without each fold of train and outer rows: what it says of rows it has not seen."""
    return judges_of(labels, f"{card}-apprentice", "apprentice", TAUGHT)


def recalibrated(root: Path, name: str, table: Artifact, logits: Sequence[Artifact]) -> list[Artifact]:
    """`logits/NAME-M` of each teacher, with a temperature and a bias for each class that fit the labels of outer rows
    (`fit_stacker`)."""
    return [_derived(root, f"{name}-{number}", Combined(table, (one,))) for number, one in enumerate(logits)]


def stacked(
    root: Path, name: str, table: Artifact, logits: Sequence[Artifact], students: Sequence[Artifact]
) -> list[Artifact]:
    """`logits/NAME`, one teacher: all teachers and the student on labels, combined such that they fit the labels of
    outer rows. `students` are one per fold, each of which judges the rows that it has not seen."""
    return [_derived(root, name, Combined(table, tuple(logits), tuple(students)))]


def taught_by(plan: StudentsPlan, rule: str, logits: Sequence[Artifact]) -> StudentsPlan:
    """The constants of a plan under other teachers, as runs of the control `rule`; nothing is learned."""
    constants = [spec for spec in plan.constants if not isinstance(spec.rule["value"], list | tuple)]
    paths = tuple(str(one.path) for one in logits)

    def named(spec: RunSpec) -> RunSpec:
        name = spec.name.replace("constant", rule, 1)
        return replace(spec, name=name, artifact=spec.artifact.removesuffix(spec.name) + name, logits=paths)

    return replace(plan, controls=(plan.controls[0], *map(named, constants)), shapes=(), learned=None, known=())


@dataclass(frozen=True)
class Shown:
    """What is known of the rows of a shard: ids, labels and weights [N], logits of all sources [N, K, C], and `covered`
    [N] bool, whether every teacher scored the row."""

    row_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    sources: NDArray[np.float64]
    covered: NDArray[np.bool_]


@dataclass(frozen=True)
class Combined:
    """The sources of one derived teacher: a table, logits of it, and students that judge each fold or none."""

    table: Artifact
    logits: tuple[Artifact, ...]
    students: tuple[Artifact, ...] = ()

    @property
    def parents(self) -> dict[str, Artifact]:
        """By role, for the derived artifact."""
        numbered = {f"logits_{k}": one for k, one in enumerate(self.logits)}
        return {"table": self.table, **numbered, **{f"judge_{k}": one for k, one in enumerate(self.students)}}

    @cached_property
    def encoded(self) -> EncodedTable:
        """The table as the student sees it."""
        return EncodedTable.open(self.table.path)

    def shards(self, split: str) -> list[str]:
        """Names of the shards of a split, in order."""
        return sorted({unit.shard for unit in self.encoded.units(split)})

    def shown(self, shard: str) -> Shown:
        """The rows of a shard in stored order."""
        table, rows = self.encoded, self.encoded.entry(shard).rows or 0
        columns = ["row_id", "label", *(["weight"] if table.has_weights else []), *table.feature_columns]
        batch = decode(read_shard(self.table.file(shard), rows, columns), len(table.classes)).as_batch()
        sources, covered = [], np.ones(rows, dtype=bool)
        for one in self.logits:
            known = LogitsTable.open(one.path, table)
            path = one.file(shard)
            stored = read_shard(path, rows, [*known.storage.columns, "fold"])
            sources.append(known.storage.decode(stored, path, len(table.classes)).astype(np.float64))
            covered &= scored(stored).astype(bool)
        row_ids = batch.row_id.numpy()
        if self.students:
            folds, judged = fold_of(row_ids, FOLDS), np.empty_like(sources[0])
            for fold, judge in enumerate(self._judges):
                own = np.flatnonzero(folds == fold)
                judged[own] = judge(batch.numeric[own], batch.categorical[own])
            sources.append(judged)
        weights = batch.weights.numpy().astype(np.float64)
        logs = np.stack([_log_probabilities(one) for one in sources], axis=1)
        return Shown(row_ids, batch.labels.numpy(), weights, logs, covered)

    def fit(self) -> Stacker:
        """The combination that fits the outer rows that have a label and all sources."""
        parts = [self.shown(shard) for shard in self.shards(FITTED)]
        known = [(one.labels >= 0) & one.covered for one in parts]
        sources, labels, weights = (
            np.concatenate([getattr(one, name)[rows] for one, rows in zip(parts, known, strict=True)])
            for name in ("sources", "labels", "weights")
        )
        return fit_stacker(sources, labels, weights)

    @cached_property
    def _judges(self) -> list[Callable[..., Any]]:
        return [Predictor(student.path) for student in self.students]


def _derived(root: Path, name: str, combined: Combined) -> Artifact:
    """The artifact of logits, found again where it was made from the same sources."""
    arguments = {"deriving": DERIVING, "splits": list(TAUGHT), "fitted": FITTED, "means": "train"}
    parents = {role: one.as_parent() for role, one in combined.parents.items()}
    there = find(root, "logits", name, inputs_digest("logits", arguments, parents))
    if there is not None:
        return there
    stacker = combined.fit()
    with staging(root, "logits", name, arguments=arguments, parents=combined.parents) as stage:
        entries = list(map(partial(_write, stage.folder, combined, stacker), _all_shards(combined)))
        schema = finish(stage, entries, combined.encoded, Storage(), {})
        return stage.commit(schema=schema | {"stacker": stacker.to_json()}, record={})


def _all_shards(combined: Combined) -> Iterator[str]:
    return (shard for split in TAUGHT for shard in combined.shards(split))


def _write(folder: Path, combined: Combined, stacker: Stacker, shard: str) -> FileEntry:
    """One shard; rows that a teacher did not score hold zeros, as everywhere."""
    shown, entry = combined.shown(shard), combined.encoded.entry(shard)
    logits = np.where(shown.covered[:, None], stacker(shown.sources), 0).astype(np.float32)
    whole = Piece(shown.row_ids, logits, np.where(shown.covered, 0, FOLD_NOBODY).astype(np.uint8))
    pieces = [whole[unit.first : unit.first + unit.rows] for unit in combined.encoded.shard_units(shard)]
    extra = {key: entry.extra[key] for key in ("split", "shard", "groups", "row_ids")} | {"of": entry.sha256}
    uncovered = int((~shown.covered).sum())
    extra |= {"uncovered": uncovered} if uncovered else {}
    return write_logits(folder, shard, pieces, Storage(), scored_by="the derived teacher", extra=extra)


def _log_probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
