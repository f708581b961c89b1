"""CSV, TSV and the rows of ARFF: text cut into columns by Arrow's parser, piece by piece, every bad row noted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.findings import Findings, file_error, shown

# A row must fit into two neighbouring blocks. Columns are taken out of a block one by one, so a block that the cache of
# a core holds is cut in half the time.
BLOCK, FAST_BLOCK = 1 << 23, 1 << 20
PIECE_ROWS, PIECE_BLOCKS = 1 << 16, 24


class Unsure(Exception):
    """What was read in haste does not go without saying: the file is to be read again with care."""


@dataclass(frozen=True)
class Marks:
    """How text is cut: separator, quote and escape or None, texts that mean a missing value."""

    separator: str
    quote: str | None
    nulls: tuple[str, ...]
    escape: str | None = None


def cut(
    text: BinaryIO,
    names: Sequence[str] | None,
    wanted: Sequence[str],
    marks: Marks,
    findings: Findings,
    numbers: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """The `wanted` columns of the rest of a stream as bytes, null where missing, in pieces of some megabytes.

    Without `names` the first record is the header. A row of another number of columns is noted and left out; a row
    that spans three blocks of 8 MiB, as after a quote that is not closed, is a DataError. Empty lines are no rows.
    With `numbers` the file is read in haste: those columns come as float64, and `Unsure` is raised for whatever is not
    plain, such as a text that is no number, or a row of more than a megabyte.
    """
    header = 1 if names is None else 0
    block = BLOCK if numbers is None else min(BLOCK, FAST_BLOCK)

    def uneven(row: pacsv.InvalidRow) -> str:
        open_quote = row.actual_columns < row.expected_columns and "\n" in row.text
        what = "another number of columns" + (": is a quote not closed?" if open_quote else "")
        expected, got = f"{row.expected_columns} columns", f"{row.actual_columns}: {shown(row.text)}"
        findings.add_uncut((row.number or 0) - header, what, expected=expected, got=got)
        return "skip"

    rows = 0
    try:
        reader = pacsv.open_csv(
            text,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=block, column_names=names),
            parse_options=pacsv.ParseOptions(
                delimiter=marks.separator,
                quote_char=marks.quote or False,
                escape_char=marks.escape or False,
                newlines_in_values=marks.quote is not None,
                invalid_row_handler=uneven,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.binary()) | dict.fromkeys(numbers or (), pa.float64()),
                include_columns=list(wanted),
                null_values=list(marks.nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        for batch in reader:
            rows += batch.num_rows
            yield pa.table(batch)
    except pa.ArrowInvalid as error:
        if numbers is not None:
            raise Unsure from None
        reason = str(error).partition("\n")[0]
        if reason == "Empty CSV file":
            return
        long = f"a row after row {rows} is longer than {BLOCK >> 20} MiB: is a quote not closed?"
        what = long if "straddling" in reason else f"cannot be cut into rows: {reason}"
        raise file_error([Problem(what, str(findings.path))]) from None


def in_pieces(tables: Iterable[pa.Table], rows: int, most: int | None = None) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows and a last shorter one, however they were cut before.

    Where `most` is given, a piece ends sooner, with so many tables. Nothing is copied.
    """
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.num_rows
        while size >= rows:
            whole = pa.concat_tables(held)
            yield whole[:rows]
            held, size = ([whole[rows:]] if size > rows else []), size - rows
        if len(held) == most:
            yield pa.concat_tables(held)
            held, size = [], 0
    if size:
        yield pa.concat_tables(held)
