"""Logits of any artifact as one plain file, that other tools read and `tgeokd import-logits` takes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.errors import ConfigError, Problem, ResourceError
from tgeokd_ray.feed.class_means import probabilities as softmax
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.table import LogitsTable
from tgeokd_ray.feed.teachers import scored
from tgeokd_ray.tables.teacher_columns import PREFIXES
from tgeokd_ray.tables.validation import did_you_mean

Writer = Callable[[Path, pa.Schema], AbstractContextManager[Any]]
WRITERS: dict[str, Writer] = {".parquet": pq.ParquetWriter, ".csv": pacsv.CSVWriter}


def export_logits(artifact: Artifact, out: Path, splits: Sequence[str], *, probabilities: bool) -> tuple[int, int]:
    """Write row_id, split, fold and logits (of lists in Parquet, logit_CLASS in CSV) of the splits, all by default.

    The file appears whole or not at all. Returns (rows, rows left out because nobody scored them). Numbers are written
    so that they are read back exactly. ConfigError for a split that the logits do not have and for another suffix.
    """
    logits = LogitsTable(artifact)
    if out.suffix not in WRITERS:
        raise ConfigError(f"--to {out}: the suffix says the format", fix="end it in .parquet or .csv")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--to {out}: there is no folder {out.parent}", fix="make it, or name another --to")
    asked = _splits(artifact, splits)
    rows, left_out = 0, 0
    draft = out.with_name(f".{out.name}.tmp")
    listed = out.suffix == ".parquet"
    try:
        with WRITERS[out.suffix](draft, _schema(logits.classes, listed, probabilities)) as writer:
            for table, without in _tables(logits, asked, listed, probabilities):
                writer.write_table(table)
                rows, left_out = rows + len(table), left_out + without
        draft.replace(out)
    except OSError as error:
        raise ResourceError(f"{out} cannot be written: {error.strerror}", fix="name another --to") from None
    finally:
        draft.unlink(missing_ok=True)
    return rows, left_out


def _splits(artifact: Artifact, asked: Sequence[str]) -> list[str]:
    known = list(dict.fromkeys(e.extra["split"] for e in artifact.manifest.files if "split" in e.extra))
    problems = [
        Problem(f"{artifact.label} has no logits of a split {split!r}{did_you_mean(split, known)}")
        for split in asked
        if split not in known
    ]
    if problems:
        raise ConfigError(problems, fix=f"name one of {', '.join(known)}")
    return [split for split in known if not asked or split in asked]


def _schema(classes: Sequence[str], listed: bool, probabilities: bool) -> pa.Schema:
    """Classes in order stand in the file's own metadata."""
    fields = [("row_id", pa.int64()), ("split", pa.string()), ("fold", pa.uint8())]
    for name in ("logits", *(["probabilities"] if probabilities else [])):
        if listed:
            fields.append((name, pa.list_(pa.float32(), len(classes))))
        else:
            # As float64, whose text is exact: that of a float32 could be read as its neighbour.
            fields += [(PREFIXES[name] + one, pa.float64()) for one in classes]
    return pa.schema(fields, metadata={"classes": ",".join(classes)} if listed else None)


def _tables(
    logits: LogitsTable, splits: Sequence[str], listed: bool, probabilities: bool
) -> Iterator[tuple[pa.Table, int]]:
    """(rows of one shard, how many of it are left out)."""
    schema = _schema(logits.classes, listed, probabilities)
    for split in splits:
        for shard in logits.shards(split):
            path, stored = logits.artifact.file(shard), logits.entry(shard).rows or 0
            table = read_shard(path, stored, ["row_id", "fold", *logits.storage.columns])
            known = scored(table).astype(bool)
            values = logits.storage.decode(table, path, len(logits.classes))[known]
            parts = [values, *([softmax(values).astype(np.float32)] if probabilities else [])]
            columns = [pa.array(table["row_id"].to_numpy()[known]), pa.array([split] * len(values), pa.string())]
            columns.append(pa.array(table["fold"].to_numpy()[known]))
            for part in parts:
                columns += _lists(part) if listed else [pa.array(column) for column in part.astype(np.float64).T]
            yield pa.table(columns, schema=schema), stored - len(values)


def _lists(values: np.ndarray[Any, Any]) -> list[pa.Array]:
    return [pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])]
