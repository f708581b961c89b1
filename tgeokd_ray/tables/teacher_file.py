"""What a teacher from elsewhere says of each row, read from Parquet or CSV: ids and logits, sorted by id, or refused.

N rows, C classes, W values of a row in the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN, Problem
from tgeokd_ray.tables.cards import Format
from tgeokd_ray.tables.columnar import parquet_file, pieces
from tgeokd_ray.tables.delimited import Marks, cut
from tgeokd_ray.tables.findings import Findings, file_error
from tgeokd_ray.tables.headers import first_record
from tgeokd_ray.tables.streams import BUFFER, TextBytes
from tgeokd_ray.tables.teacher_columns import FIX, ROW_ID, Form, Header, Kind, find_form
from tgeokd_ray.tables.teacher_values import Values, to_logits

SUFFIXES = (".parquet", ".pq")
MAGIC = b"PAR1"
_WHOLE = "a whole number, a row id of the table"


@dataclass(frozen=True)
class Told:
    """Row ids [N], ascending, each once, and the logits [N, C] float32 of those rows, in the table's order of classes.
    `form` says what the file held, `clipped` how many probabilities were too near 0 or 1 for a logarithm."""

    row_ids: NDArray[np.int64]
    logits: NDArray[np.float32]
    form: Form
    clipped: int


def read_teacher_file(path: Path, classes: Sequence[str], negative: int, kind: Kind | None = None) -> Told:
    """Read a whole file; 8 + 4 C bytes a row are kept. `kind` is needed only where the columns do not tell it.

    ConfigError and DataError as `find_form`; DataError with the first 20 problems of all rows, in their order, and the
    total: ids that are none or come twice, values that are missing, not finite, no probabilities.
    """
    findings = Findings(path)
    ids, logits = [np.empty(0, np.int64)], [np.empty((0, len(classes)), np.float32)]
    form, clipped, rows = None, 0, 0
    for form, piece in _pieces(path, classes, kind, findings):
        own = Values(form, classes, findings, rows)
        ids.append(_row_ids(piece[ROW_ID], findings, rows))
        found, too_near = to_logits(own.read(piece), form, negative)
        logits.append(found)
        clipped, rows = clipped + too_near, rows + piece.num_rows
    if form is None or not rows:
        findings.raise_if_any(FIX)
        raise file_error([Problem("has no rows", str(path))], fix=FIX)
    unsorted = np.concatenate(ids)
    order = np.argsort(unsorted, kind="stable")
    _check_once(unsorted, order, findings)
    findings.raise_if_any(FIX)
    return Told(unsorted[order], np.concatenate(logits)[order], form, clipped)


def _pieces(
    path: Path, classes: Sequence[str], kind: Kind | None, findings: Findings
) -> Iterator[tuple[Form, pa.Table]]:
    """Form and rows of the file, piece by piece."""
    if path.suffix.lower() in SUFFIXES or _starts_with(path, MAGIC):
        with parquet_file(path, fix="get the file again") as file:
            form = find_form(_parquet_header(path, file.schema_arrow), classes, kind)
            _check_types(path, file.schema_arrow, form, len(classes))
            for piece in pieces(file, [ROW_ID, *form.columns]):
                yield form, piece
        return
    names, _ = first_record(path, Format(kind="csv", quote='"'))
    form = find_form(Header(path, tuple(names)), classes, kind)
    with TextBytes(path) as raw, io.BufferedReader(raw, BUFFER) as text:
        for piece in cut(text, None, [ROW_ID, *form.columns], Marks(",", '"', ("",)), findings):
            yield form, piece


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise file_error([Problem(f"cannot be read: {error.strerror}", str(path))], fix=FIX) from None


def _parquet_header(path: Path, schema: pa.Schema) -> Header:
    lists = frozenset(field.name for field in schema if _is_list(field.type))
    told = (schema.metadata or {}).get(b"classes")
    return Header(path, tuple(schema.names), lists, None if told is None else told.decode("utf-8", "replace"))


def _check_types(path: Path, schema: pa.Schema, form: Form, num_classes: int) -> None:
    """DataError for columns of types that hold no such values, and lists of a fixed width that is not that of a row."""
    problems = []
    own = schema.field(ROW_ID).type
    if not pa.types.is_integer(own):
        problems.append(Problem("the row ids are no whole numbers", str(path), ROW_ID, expected=_WHOLE, got=str(own)))
    for name in form.columns:
        found = schema.field(name).type
        value = found.value_type if form.shape == "list" else found
        if not (pa.types.is_floating(value) or pa.types.is_integer(value) or pa.types.is_decimal(value)):
            problems.append(Problem("does not hold numbers", str(path), name, expected="numbers", got=str(found)))
        if pa.types.is_fixed_size_list(found) and found.list_size != num_classes:
            expected, got = f"{num_classes} values, one per class", f"{found.list_size} values"
            problems.append(Problem("the lists have another width", str(path), name, expected=expected, got=got))
    if problems:
        raise file_error(problems, fix=FIX)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _row_ids(column: pa.ChunkedArray, findings: Findings, first: int) -> NDArray[np.int64]:
    """Ids [N]; what is none is noted and becomes 0."""
    raw = column.combine_chunks()
    if pa.types.is_integer(raw.type):
        series = pl.Series(raw)
        numbers = series.cast(pl.Int64, strict=False)
    else:
        series = pl.Series(raw.cast(pa.large_binary())).cast(pl.String, strict=False)
        numbers = series.str.strip_chars().cast(pl.Int64, strict=False)
    bad = np.flatnonzero(numbers.is_null().to_numpy())
    for row in bad[:SHOWN].tolist():
        got = raw[row].as_py()
        what = "the row id is missing" if got is None else "the row id is no whole number"
        got = got.decode("utf-8", "replace") if isinstance(got, bytes) else got
        findings.add(first + row, what, column=ROW_ID, expected=_WHOLE, got=got)
    findings.count(max(len(bad) - SHOWN, 0))
    ids: NDArray[np.int64] = numbers.fill_null(0).to_numpy()
    return ids


def _check_once(unsorted: NDArray[np.int64], order: NDArray[np.int64], findings: Findings) -> None:
    """Note every row whose id an earlier row has."""
    if findings.total:  # ids that could not be read look alike
        return
    ids = unsorted[order]
    again = np.flatnonzero(ids[1:] == ids[:-1]) + 1
    by_row = again[np.argsort(order[again], kind="stable")]
    for place in by_row[:SHOWN].tolist():
        before = findings.number(int(order[place - 1]))
        what = f"the row id comes twice, before in row {before}"
        findings.add(int(order[place]), what, column=ROW_ID, expected="every row once", got=int(ids[place]))
    findings.count(max(len(again) - SHOWN, 0))
