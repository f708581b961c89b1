"""Parquet: every difference between file and card is told from the schema, before a row is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.findings import file_error
from tgeokd_ray.tables.headers import name_problems

PIECE_ROWS = 1 << 16


def columnar_pieces(card: Card, path: Path, wanted: Sequence[str], labels: bool) -> Iterator[pa.Table]:
    """The `wanted` columns in pieces of at most 65,536 rows. DataError for what is no whole Parquet file, or does not
    fit the card: all differences at once."""
    with parquet_file(path, fix="get the file again, or correct format.kind in the card") as file:
        _check_schema(card, path, file.schema_arrow, wanted, labels)
        yield from pieces(file, wanted)


def pieces(file: pq.ParquetFile, wanted: Sequence[str]) -> Iterator[pa.Table]:
    """The `wanted` columns of an open file in pieces of at most 65,536 rows."""
    for batch in file.iter_batches(batch_size=PIECE_ROWS, columns=list(wanted), use_threads=False):
        yield pa.table(batch)


@contextmanager
def parquet_file(path: Path, fix: str) -> Iterator[pq.ParquetFile]:
    """The open file, checksums of its pages verified. DataError, then or while it is read, for what is no whole Parquet
    file; nothing of it is executed."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0].removesuffix(".")
        raise file_error([Problem(f"is no whole Parquet file: {reason}", str(path))], fix=fix) from None


def _check_schema(card: Card, path: Path, schema: pa.Schema, wanted: Sequence[str], labels: bool) -> None:
    problems = name_problems(card, path, schema.names, labels)
    for name in wanted:
        if schema.names.count(name) == 1 and (wrong := _unfit(card, name, schema.field(name).type)):
            what, expected = wrong
            problems.append(Problem(what, str(path), name, expected=expected, got=str(schema.field(name).type)))
    if problems:
        raise file_error(problems)


def _unfit(card: Card, name: str, kind: pa.DataType) -> tuple[str, str] | None:
    """(what is wrong, what is expected) if no value of this type can be read for a column."""
    types, splits = pa.types, card.splits
    if types.is_nested(kind):
        return "a column of lists or structs cannot be read: write one column per value", "one value per row"
    if isinstance(kind, pa.BaseExtensionType):
        return "a column of this type cannot be read: write it as text or numbers", "text or numbers"
    if types.is_temporal(kind) and name in card.numeric:
        return "a time is no number", "numbers, or texts of numbers"
    if types.is_temporal(kind) and name in splits.times:
        key, time = splits.times[name]
        if time == "number":
            return f"a time is no number: set {key}: timestamp", "numbers, or texts of numbers"
        if not (types.is_timestamp(kind) or types.is_date(kind)):
            return "is no point in time", "timestamps, dates, or texts in ISO 8601"
    return None
