"""Parquet: every difference between file and card is told from the schema, before a row is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.findings import file_error
from tgeokd_ray.tables.headers import check_names

PIECE_ROWS = 1 << 16


def columnar_pieces(card: Card, path: Path, wanted: Sequence[str], labels: bool) -> Iterator[pa.Table]:
    """The `wanted` columns in pieces of at most 65,536 rows. DataError for what is no whole Parquet file, or does not
    fit the card: all differences at once."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_schema(card, path, file.schema_arrow, wanted, labels)
            for batch in file.iter_batches(batch_size=PIECE_ROWS, columns=list(wanted), use_threads=False):
                yield pa.table(batch)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0].removesuffix(".")
        raise file_error(
            [Problem(f"is no whole Parquet file: {reason}", str(path))], fix="get the file again"
        ) from None


def _check_schema(card: Card, path: Path, schema: pa.Schema, wanted: Sequence[str], labels: bool) -> None:
    check_names(card, path, schema.names, labels)
    problems = []
    for name in wanted:
        kind = schema.field(name).type
        if pa.types.is_nested(kind):
            what = "a column of lists or structs cannot be read: write one column per value"
            problems.append(Problem(what, str(path), name, expected="one value per row", got=str(kind)))
        elif name in card.numeric and pa.types.is_temporal(kind):
            problems.append(Problem("a time is no number", str(path), name, expected="numbers or text", got=str(kind)))
    if problems:
        raise file_error(problems)
