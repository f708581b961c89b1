"""A teacher scores one shard of a table: logits in the rows' own order, and its part of the class means.

Every shard is one task that writes its own file under a name fixed by the shard, so that a retry overwrites itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tgeokd_ray.artifacts import FileEntry, load_tensors, open_artifact, read_json
from tgeokd_ray.errors import UserError
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.class_means import ClassMeans
from tgeokd_ray.feed.folds import fold_of
from tgeokd_ray.feed.logits_files import Piece, one_fold, write_logits
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.models import build

MODEL_BYTES = 1 << 20
BATCH_ROWS = {"cpu": 2048, "cuda": 65_536}  # of a forward pass: what stays in a CPU's cache is fastest
BATCH_IMAGES = {"cpu": 256, "cuda": 4096}  # whose maps are a hundred times as large
MODELS = 12  # kept loaded in one process


@dataclass(frozen=True)
class Scored:
    """A shard that was written, and its part of the class means where it has one."""

    entry: FileEntry
    means: ClassMeans | None


@dataclass(frozen=True)
class ScoreShard:
    """Picklable task: call it with a shard's file name. Returns its manifest entry with, for a shard of `means_split`,
    its part of the class means (of the logits as they are stored), or the UserError as a value.

    With several `teachers`, teacher f scores fold f of `means_split`, on which it was not trained, and the log of their
    mean probabilities is taken for rows of other splits.
    """

    table: str
    teachers: tuple[str, ...]
    folder: str
    means_split: str = "train"
    device: str = "cpu"
    precision: str = "fp32"
    storage: Storage = field(default_factory=Storage)
    holds: ClassVar[bool] = True  # the teachers, loaded once per process

    def __call__(self, shard: str) -> Scored | UserError:
        try:
            return self._score(shard)
        except UserError as error:
            return error

    def _score(self, shard: str) -> Scored:
        table = _table(self.table)
        units, num_classes = table.shard_units(shard), len(table.classes)
        split = units[0].split
        entry = table.entry(shard)
        # As a whole: batches of the forward pass need not end where row groups do, which may be small.
        columns = ["row_id", "label", *table.feature_columns]
        rows = decode(read_shard(table.artifact.file(shard), entry.rows or 0, columns), num_classes).as_batch()
        whole = self._piece(rows, split)
        pieces = [whole[unit.first : unit.first + unit.rows] for unit in units]
        extra = {key: entry.extra[key] for key in ("split", "shard", "groups", "row_ids")} | {"of": entry.sha256}
        scored_by = "/".join(Path(self.teachers[0]).parts[-3:])
        written = write_logits(Path(self.folder), shard, pieces, self.storage, scored_by=scored_by, extra=extra)
        if split != self.means_split:
            return Scored(written, None)
        means = ClassMeans(num_classes)
        for piece, unit in zip(pieces, units, strict=True):
            labels = rows.labels[unit.first : unit.first + unit.rows].numpy()
            means.add(self.storage.round_trip(piece.logits), labels)
        return Scored(written, means)

    def _piece(self, rows: Rows, split: str) -> Piece:
        row_ids = rows.row_id.numpy()
        score = [predictor(teacher, self.device, self.precision) for teacher in self.teachers]
        if len(score) == 1:
            return Piece(row_ids, score[0](rows.numeric, rows.categorical), one_fold(len(rows)))
        if split != self.means_split:
            parts = [one(rows.numeric, rows.categorical) for one in score]
            return Piece(row_ids, mean_of_members(parts), one_fold(len(rows), mean=True))
        fold = fold_of(row_ids, len(score))
        logits = np.empty((len(rows), len(score[0].classes)), np.float32)
        for number, one in enumerate(score):
            own = torch.from_numpy(np.flatnonzero(fold == number))
            logits[own.numpy()] = one(rows.numeric[own], rows.categorical[own])
        return Piece(row_ids, logits, fold)


def mean_of_members(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The log of the mean of the members' probabilities, [F][N, C] to [N, C], computed in float64."""
    stacked = torch.from_numpy(np.stack(parts)).double()
    mean = stacked.log_softmax(-1).logsumexp(0) - math.log(len(parts))
    return mean.float().numpy()


class Predictor:
    """A committed teacher or student as a function from encoded rows to float32 logits [N, C]."""

    def __init__(self, path: Path, device: str = "cpu", precision: str = "fp32") -> None:
        artifact = open_artifact(path, level="full")
        facts = read_json(artifact.file("model.json"), MODEL_BYTES)
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.raw: tuple[str, ...] = tuple(facts.get("raw", ()))  # names of the raw files of its table, in their places
        shape = {key: facts[key] for key in ("num_numeric", "num_ids", "num_categorical")}
        image = facts.get("image")
        classes, generator = len(self.classes), torch.Generator().manual_seed(0)
        module = build(facts["model"], **shape, num_classes=classes, generator=generator, image=image)
        module.load_state_dict(load_tensors(artifact.file("model.safetensors")))
        self.module = module.to(device).eval()
        self._device = torch.device(device)
        self._autocast = precision == "bf16"
        self._most = (BATCH_ROWS if image is None else BATCH_IMAGES)[self._device.type]

    def __call__(self, numeric: torch.Tensor, categorical: torch.Tensor) -> NDArray[np.float32]:
        return np.concatenate([part.cpu().numpy() for part in self._parts(numeric, categorical)])

    def tensor(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """The same logits as a tensor on the predictor's device."""
        return torch.cat(self._parts(numeric, categorical)).clone()  # not one of inference mode, which no graph takes

    def _parts(self, numeric: torch.Tensor, categorical: torch.Tensor) -> list[torch.Tensor]:
        """Of so many rows as fit a forward pass each; one empty part for no rows."""
        parts = [torch.empty(0, len(self.classes), device=self._device)] if not len(numeric) else []
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            for first in range(0, len(numeric), self._most):
                rows = slice(first, first + self._most)
                logits = self.module(numeric[rows].to(self._device), categorical[rows].to(self._device))
                parts.append(logits.float())
        return parts


@lru_cache(maxsize=1)
def _table(path: str) -> EncodedTable:
    """The table of this process, all its columns: its manifest is read and checked once, not once a shard."""
    return EncodedTable.open(Path(path), model="teachers")


@lru_cache(maxsize=MODELS)
def predictor(path: str, device: str, precision: str) -> Predictor:
    """The predictor of this process: a task that follows another on the same teacher does not load it again."""
    return Predictor(Path(path), device, precision)
