"""A teacher scores one shard of a table: logits in the rows' own order, and its part of the class means.

Every shard is one task that writes its own file under a name fixed by the shard, so that a retry overwrites itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from tgeokd_ray.artifacts import FileEntry, load_tensors, open_artifact, read_json, write_file
from tgeokd_ray.errors import IntegrityError, UserError
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.reader import DirectReader
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.models import build

MODEL_BYTES = 1 << 20
BATCH_ROWS = 8192


@dataclass(frozen=True)
class ScoreShard:
    """Picklable task: call it with a shard's file name. Returns its manifest entry, or the UserError as a value.

    The entry of a shard of `means_split` carries `means`: sums [C, C] of the teacher's distributions by true class
    (float64) and rows per class, so that a finished shard need not be scored again after a crash.
    """

    table: str
    teacher: str
    folder: str
    means_split: str = "train"
    device: str = "cpu"
    precision: str = "fp32"

    def __call__(self, shard: str) -> FileEntry | UserError:
        try:
            return self._score(shard)
        except UserError as error:
            return error

    def _score(self, shard: str) -> FileEntry:
        table = EncodedTable.open(Path(self.table))
        units = table.shard_units(shard)
        predict = predictor(self.teacher, self.device, self.precision)
        num_classes = len(table.classes)
        sums, counts = np.zeros((num_classes, num_classes)), np.zeros(num_classes, dtype=np.int64)
        groups: list[pa.Table] = []
        for piece in DirectReader(table, (), units[0].split)(units):
            rows = decode(piece, num_classes).as_batch()
            logits = predict(rows.numeric, rows.categorical)
            _check_finite(logits, rows.row_id.numpy(), self.teacher, shard)
            if units[0].split == self.means_split:
                _accumulate(sums, counts, logits, rows.labels.numpy())
            groups.append(_arrow(rows.row_id.numpy(), logits))
        extra = {key: table.entry(shard).extra[key] for key in ("split", "shard", "groups", "row_ids")}
        if units[0].split == self.means_split:
            extra["means"] = {"sums": sums.tolist(), "counts": counts.tolist()}
        total = sum(len(group) for group in groups)
        return write_file(Path(self.folder), shard, lambda path: _write(path, groups), rows=total, extra=extra)


class Predictor:
    """A committed teacher or student as a function from encoded rows to float32 logits [N, C]."""

    def __init__(self, path: Path, device: str = "cpu", precision: str = "fp32") -> None:
        artifact = open_artifact(path, level="full")
        facts = read_json(artifact.file("model.json"), MODEL_BYTES)
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        shape = {key: facts[key] for key in ("num_numeric", "num_ids", "num_categorical")}
        module = build(
            facts["model"], **shape, num_classes=len(self.classes), generator=torch.Generator().manual_seed(0)
        )
        module.load_state_dict(load_tensors(artifact.file("model.safetensors")))
        self._module = module.to(device).eval()
        self._device = torch.device(device)
        self._autocast = precision == "bf16"

    def __call__(self, numeric: torch.Tensor, categorical: torch.Tensor) -> NDArray[np.float32]:
        parts = []
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            for first in range(0, len(numeric), BATCH_ROWS):
                rows = slice(first, first + BATCH_ROWS)
                logits = self._module(numeric[rows].to(self._device), categorical[rows].to(self._device))
                parts.append(logits.float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)


@lru_cache(maxsize=2)
def predictor(path: str, device: str, precision: str) -> Predictor:
    """The predictor of this process: a task that follows another on the same teacher does not load it again."""
    return Predictor(Path(path), device, precision)


def _check_finite(logits: NDArray[np.float32], row_ids: NDArray[np.int64], teacher: str, shard: str) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        ids = ", ".join(str(int(i)) for i in row_ids[bad[:5]])
        raise IntegrityError(
            f"teacher {teacher} gives logits that are not finite for {len(bad)} rows of {shard} (row ids {ids})",
            fix="train the teacher again with a lower learning rate or clipping",
        )


def _accumulate(
    sums: NDArray[np.float64], counts: NDArray[np.int64], logits: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    """Add the softmax of each row, in float64, to its true class's sum."""
    scaled = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    np.add.at(sums, labels, scaled / scaled.sum(axis=1, keepdims=True))
    counts += np.bincount(labels, minlength=len(counts))


def _arrow(row_ids: NDArray[np.int64], logits: NDArray[np.float32]) -> pa.Table:
    values = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), logits.shape[1])
    fold = pa.array(np.zeros(len(row_ids), dtype=np.uint8))
    return pa.table({"row_id": pa.array(row_ids), "logits": values, "fold": fold})


def _write(path: Path, groups: list[pa.Table]) -> None:
    """Row groups as in the table's shard, pages with checksums."""
    with pq.ParquetWriter(path, groups[0].schema, compression="zstd", write_page_checksum=True) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(len(group), 1))
