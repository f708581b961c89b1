"""Small raw files, the cards that fit them, what is read or refused, and bad files with what is told of them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tgeokd_ray.errors import DataError
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.readers import read_frames


def card_data(**changes: Any) -> dict[str, Any]:
    """A card as plain data: label y of no and yes, number x, category c. A change replaces a key, None removes it."""
    data = {
        "name": "raw",
        "format": {"kind": "csv"},
        "label": {"column": "y", "classes": ["no", "yes"]},
        "columns": {"numeric": ["x"], "categorical": ["c"]},
        "splits": {"kind": "hash", "salt": "a", "parts": {"train": 0.6, "test": 0.4}},
    }
    return {key: value for key, value in {**data, **changes}.items() if value is not None}


def make_card(kind: str = "csv", **changes: Any) -> Card:
    """The card of `card_data` for files of one kind."""
    return Card.model_validate(card_data(**{"format": {"kind": kind}, **changes}))


def write(path: Path, content: str | bytes) -> Path:
    """A file of this text or these bytes, packed if its name ends in .gz."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, columns: Mapping[str, Any] | pa.Table) -> Path:
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), path)
    return path


def read(card: Card, path: Path, labels: bool = True) -> pa.Table:
    """All rows of a file."""
    return pa.concat_tables(read_frames(card, path, labels)).combine_chunks()


def rows(card: Card, path: Path, *names: str) -> list[tuple[Any, ...]]:
    """The values of some columns, row by row."""
    table = read(card, path)
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def refused(card: Card, path: Path, labels: bool = True) -> DataError:
    """The error that reading the file ends in."""
    with pytest.raises(DataError) as caught:
        list(read_frames(card, path, labels))
    assert caught.value.exit_code == 3
    assert caught.value.fix
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return caught.value


def places(error: DataError) -> Sequence[tuple[str | None, int | None]]:
    """(column, row) of each problem."""
    return [(problem.column, problem.row) for problem in error.problems]


HEADER = "y,x,c\n"
GOOD = "no,1,a\n"
PLAIN_TIME = "expected a number (or `time: timestamp` under splits in the card, for dates and times)"
NUMBER = "a number (or list the text under format.null_values)"
CLASSES = "one of 'no', 'yes'"
DISTILL = "(or `missing: distill` under label in the card: train rows without one learn from the teachers alone)"
UNKNOWN = "the label is not one of the classes"
WHOLE = "a whole number from -2**63 to 2**63 - 1 (or `type: text` under row_id in the card)"
BARE = {"format": {"kind": "csv", "header": False, "names": ["y", "x", "c"]}}
IDS = {"row_id": {"kind": "column", "column": "id"}}
TEXT_IDS = {"row_id": {"kind": "column", "column": "id", "type": "text"}}
WEIGHTS = {"weight": "w"}
NOT_FINITE = "a finite number (or `inf: clip` or `inf: missing` in the card)"
ARFF = "@relation r\n@attribute y {no,yes}\n@attribute x real\n@attribute c string\n@data\n"
NO_COLUMN = "no column of the card is in the first line; if that is data, set format.header: false and format.names"


def policy(**options: str) -> dict[str, Any]:
    return {"columns": {"numeric": [{"name": "x", **options}], "categorical": ["c"]}}


def timed(time: str) -> dict[str, Any]:
    return {"splits": {"kind": "time", "column": "t", "time": time, "periods": [{"to": "train"}]}}


# name: (changes of the card, content, what is told after the file's name)
BAD: dict[str, tuple[dict[str, Any], str | bytes, list[str]]] = {
    "d7 empty": ({}, "", [": is empty"]),
    "d7 empty once unpacked": ({}, gzip.compress(b""), [": is empty"]),
    "d7 header only": ({}, HEADER, [": has no rows"]),
    "d7 only empty lines": ({}, "\n\r\n\n", [": holds nothing but empty lines"]),
    "d7 arff without rows": ({"format": {"kind": "arff"}}, ARFF + "% none\n", [": has no rows"]),
    "zip": ({}, b"PK\x03\x04" + bytes(60), [": is a zip archive: unpack it first"]),
    "parquet": ({}, b"PAR1" + bytes(60), [": is a Parquet file: set format.kind: parquet"]),
    "d3 utf-16": ({}, HEADER.encode("utf-16"), [": is UTF-16 text: convert it to UTF-8"]),
    "d14 binary": ({}, bytes(range(256)), [", line 1: is no text file: it holds NUL bytes"]),
    "d14 nul": (
        {},
        HEADER + "no,1,a\0b\n",
        [r", column 'c', row 1: the text holds a NUL byte; expected text; got 'a\x00b'"],
    ),
    "d14 nul in label and number": (
        {},
        HEADER + GOOD + "n\0o,1\0,a\n",
        [
            r", column 'y', row 2: the text holds a NUL byte; expected text; got 'n\x00o'",
            r", column 'x', row 2: the text holds a NUL byte; expected text; got '1\x00'",
        ],
    ),
    "d3 latin-1": (
        {},
        HEADER.encode() + b"n\xf6,1,a\nno,1,a\nno,1,caf\xe9\n",
        [
            r", column 'y', row 1: the bytes are not UTF-8 text; expected UTF-8; got b'n\xf6'",
            r", column 'c', row 3: the bytes are not UTF-8 text; expected UTF-8; got b'caf\xe9'",
        ],
    ),
    "d3 latin-1 header": ({}, b"y,x,caf\xe9\nno,1,a\n", [", line 1: the header is not UTF-8 text"]),
    "d1 separator": (
        {},
        "y;x;c\nno;1;a\n",
        [
            ", line 1: the header is not as the card says; expected 3 columns; "
            "got 1, but 3 when cut at every semicolon: set format.separator: ';'?"
        ],
    ),
    "d1 separator without header": (
        {"format": {**BARE["format"], "kind": "tsv"}},
        "no,1,a\n",
        [
            ", row 1: the file has another number of columns than the card; expected 3 columns; "
            "got 1, but 3 when cut at every comma: set format.kind: csv?"
        ],
    ),
    "headerless": ({}, "no,1,a\nyes,2,a\n", [f", line 1: {NO_COLUMN}; expected 'x', 'c', 'y'; got 'no,1,a'"]),
    "d1 d2 number of columns": (
        BARE,
        "no,1;2\n",
        [", row 1: the file has another number of columns than the card; expected 3 columns; got 2"],
    ),
    "d8 d13 header": (
        {},
        "y,x,cc,z,x\nno,1,a,1,1\n",
        [
            ", column 'x': the file has this column twice",
            ", column 'c': the file lacks this column; did you mean 'cc'?",
            *(
                f", column '{name}': the card does not name this column: give it a role, ignore it, or set "
                "columns.others: ignore"
                for name in ("cc", "z")
            ),
        ],
    ),
    "d1 d2 ragged": (
        {},
        HEADER + 'no,1,"a\nb"\n\nno,1\nno,1,a,4\nyes,1,"c\nd"\nno,zz,a\n',
        [
            ", row 2: another number of columns; expected 3 columns; got 2: 'no,1'",
            ", row 3: another number of columns; expected 3 columns; got 4: 'no,1,a,4'",
            f", column 'x', row 5: the value is not a number; expected {NUMBER}; got 'zz'",
        ],
    ),
    "d1 open quote in the last column": (
        {},
        HEADER + GOOD + 'no,1,"a\nno,2,b\n',
        [", column 'c', row 2: a quote is not closed before the end of the file"],
    ),
    "d1 open quote": (
        {},
        HEADER + GOOD + 'no,"1,a\nno,2,b\n',
        [
            ", row 2: another number of columns: is a quote not closed?; expected 3 columns; "
            r"""got 2: 'no,"1,a\nno,2,b'"""
        ],
    ),
    "d1 open quote in the header": ({}, 'y,x,"c\nno,2,b\n', [", line 1: a quote of the header is not closed"]),
    "d6 text at row 900": (
        {},
        HEADER + GOOD * 899 + "no,1_0,a\n" + GOOD * 9,
        [f", column 'x', row 900: the value is not a number; expected {NUMBER}; got '1_0'"],
    ),
    "n3 labels": (
        {},
        HEADER + "yess,1,a\n-100,1,a\n2.5,1,a\n,1,a\nYes,1,a\n",
        [
            f", column 'y', row 1: {UNKNOWN}; expected {CLASSES}; did you mean 'yes'?; got 'yess'",
            f", column 'y', row 2: {UNKNOWN}; expected {CLASSES}; got '-100'",
            f", column 'y', row 3: {UNKNOWN}; expected {CLASSES}; got '2.5'",
            f", column 'y', row 4: the label is missing; expected {CLASSES} {DISTILL}",
            f", column 'y', row 5: {UNKNOWN}; expected {CLASSES}; did you mean 'yes'?; got 'Yes'",
        ],
    ),
    "n3 label of many classes": (
        {"label": {"column": "y", "classes": list(range(20))}},
        HEADER + "20,1,a\n",
        [
            f", column 'y', row 1: {UNKNOWN}; expected one of {', '.join(repr(str(n)) for n in range(12))} and 8 more; "
            "got '20'"
        ],
    ),
    "d15 not finite": (
        policy(nan="error"),
        HEADER + "no,NaN,a\nno,-inf,a\nno,1e400,a\n",
        [
            ", column 'x', row 1: the value is NaN; expected a number (or `nan: missing` in the card); got 'NaN'",
            f", column 'x', row 2: the value is not a finite number; expected {NOT_FINITE}; got '-inf'",
            f", column 'x', row 3: the value is not a finite number; expected {NOT_FINITE}; got '1e400'",
        ],
    ),
    "d15 row ids": (
        IDS,
        "id,y,x,c\n9223372036854775808,no,1,a\n,no,1,a\n1.5,no,1,a\n",
        [
            f", column 'id', row 1: the row id cannot be used; expected {WHOLE}; got '9223372036854775808'",
            ", column 'id', row 2: the row id is missing; expected an id for every row",
            f", column 'id', row 3: the row id cannot be used; expected {WHOLE}; got '1.5'",
        ],
    ),
    "text ids": (
        TEXT_IDS,
        "id,y,x,c\na,no,1,a\n,no,1,a\n",
        [", column 'id', row 2: the row id is missing; expected an id for every row"],
    ),
    "weights": (
        WEIGHTS,
        "w,y,x,c\n,no,1,a\n-1,no,1,a\ninf,no,1,a\nnan,no,1,a\nx,no,1,a\n1e39,no,1,a\n",
        [
            ", column 'w', row 1: the weight is missing; expected a weight for every row",
            *(
                f", column 'w', row {row}: the weight cannot be used; expected a number from 0 to 3.4e38; got {text!r}"
                for row, text in ((2, "-1"), (3, "inf"), (4, "nan"))
            ),
            ", column 'w', row 5: the weight is not a number; expected a number; got 'x'",
            ", column 'w', row 6: the weight cannot be used; expected a number from 0 to 3.4e38; got '1e39'",
        ],
    ),
    "times": (
        timed("timestamp"),
        "t,y,x,c\n2024-13-01,no,1,a\n1706702400,no,1,a\n",
        [
            f", column 't', row {row}: is no time; expected ISO 8601, for instance 2024-01-31T12:00:00; got {value!r}"
            for row, value in ((1, "2024-13-01"), (2, "1706702400"))
        ],
    ),
    "numbers as times": (
        timed("number"),
        "t,y,x,c\n2024-01-31,no,1,a\n",
        [f", column 't', row 1: the time is not a number; {PLAIN_TIME}; got '2024-01-31'"],
    ),
    "arff head": (
        {"format": {"kind": "arff"}},
        "@relation r\n@atribute y {no}\n@attribute x relational\n" + GOOD,
        [
            ", line 2: is no line of an ARFF head; expected @relation, @attribute NAME TYPE or @data; "
            "got '@atribute y {no}'",
            ", column 'x', line 3: relational attributes cannot be read",
            ", line 4: is no line of an ARFF head; expected @relation, @attribute NAME TYPE or @data; got 'no,1,a'",
            ": has no @data line",
        ],
    ),
    "d1 d6 arff rows": (
        {"format": {"kind": "arff"}},
        ARFF + "% no, 1\nno, 1\n% one, two\nyes,q,a\n",
        [
            ", row 1: another number of columns; expected 3 columns; got 2: 'no, 1'",
            f", column 'x', row 2: the value is not a number; expected {NUMBER}; got 'q'",
        ],
    ),
    "sparse arff": (
        {"format": {"kind": "arff"}},
        ARFF + "{0 yes, 1 2}\n",
        [": sparse rows, {index value, ...}, cannot be read: write all values of a row"],
    ),
}
