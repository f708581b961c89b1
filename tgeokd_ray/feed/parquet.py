"""Parquet reads whose damage is noticed and named. C classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN, IntegrityError, Problem

REMAKE = "verify the artifact (tgeokd verify) and make it again"


def read_group(path: Path, group: int, rows: int, columns: Sequence[str]) -> pa.Table:
    """One row group, checksums of its pages verified; IntegrityError unless it has these columns and so many rows."""
    return _read(path, columns, rows, lambda file: file.read_row_group(group, columns=list(columns), use_threads=False))


def read_shard(path: Path, rows: int, columns: Sequence[str]) -> pa.Table:
    """A whole shard, read as `read_group` reads a part of it."""
    return _read(path, columns, rows, lambda file: file.read(columns=list(columns), use_threads=False))


def _read(path: Path, columns: Sequence[str], rows: int, read: Callable[[pq.ParquetFile], pa.Table]) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = read(file)
    except (OSError, IndexError, pa.ArrowException) as error:
        raise IntegrityError([Problem(f"can not be read: {error}", file=str(path))], fix=REMAKE) from error
    missing = [name for name in columns if name not in table.column_names]
    problems = [Problem("this column is missing", str(path), name) for name in missing]
    if table.num_rows != rows:
        expected, got = f"{rows} rows", f"{table.num_rows} rows"
        problems.append(Problem("the number of rows differs", str(path), expected=expected, got=got))
    if problems:
        raise IntegrityError(problems, fix=REMAKE)
    return table


def logits_values(column: pa.ChunkedArray, path: Path, num_classes: int) -> NDArray[np.float32]:
    """The values [N, C] of a column of logits, without a copy where it is one piece.

    IntegrityError for another type or width, a null, and values that are not finite.
    """
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    expected = pa.list_(pa.float32(), num_classes)
    lists = pa.types.is_fixed_size_list(array.type)
    if not (lists and array.type.list_size == num_classes and array.type.value_type == pa.float32()):
        problem = Problem("wrong type", str(path), "logits", expected=str(expected), got=str(array.type))
        raise IntegrityError([problem], fix=REMAKE)
    if array.null_count or array.flatten().null_count:
        raise IntegrityError([Problem("a value is missing (null)", str(path), "logits")], fix=REMAKE)
    values: NDArray[np.float32] = array.flatten().to_numpy().reshape(-1, num_classes)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        shown = [
            Problem("not finite", str(path), "logits", int(k) + 1, got=str(values[k].tolist())) for k in bad[:SHOWN]
        ]
        raise IntegrityError(shown, fix="train the teacher again and run tgeokd precompute", total=len(bad))
    return values
