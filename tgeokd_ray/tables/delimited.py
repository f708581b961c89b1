"""CSV, TSV and the rows of ARFF: text cut into columns by Arrow's parser, piece by piece, every bad row noted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.findings import Findings, file_error, shown

# A row must fit into two neighbouring blocks.
BLOCK = 1 << 23


@dataclass(frozen=True)
class Marks:
    """How text is cut: separator, quote and escape or None, texts that mean a missing value."""

    separator: str
    quote: str | None
    nulls: tuple[str, ...]
    escape: str | None = None


def cut(
    text: BinaryIO, names: Sequence[str] | None, wanted: Sequence[str], marks: Marks, findings: Findings
) -> Iterator[pa.Table]:
    """The `wanted` columns of the rest of a stream as bytes, null where missing, in pieces of some megabytes.

    Without `names` the first record is the header. A row of another number of columns is noted and left out; a row
    that spans three blocks of 8 MiB, as after a quote that is not closed, is a DataError. Empty lines are no rows.
    """
    header = 1 if names is None else 0

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
            read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names),
            parse_options=pacsv.ParseOptions(
                delimiter=marks.separator,
                quote_char=marks.quote or False,
                escape_char=marks.escape or False,
                newlines_in_values=marks.quote is not None,
                invalid_row_handler=uneven,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.binary()),
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
        reason = str(error).partition("\n")[0]
        if reason == "Empty CSV file":
            return
        long = f"a row after row {rows} is longer than {BLOCK >> 20} MiB: is a quote not closed?"
        what = long if "straddling" in reason else f"cannot be cut into rows: {reason}"
        raise file_error([Problem(what, str(findings.path))]) from None
