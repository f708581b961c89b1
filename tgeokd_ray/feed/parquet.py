"""Parquet reads whose damage is noticed and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.errors import IntegrityError, Problem
from tgeokd_ray.feed.arrow import unpacked

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
            table = unpacked(read(file))
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
