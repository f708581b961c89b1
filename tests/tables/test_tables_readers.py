"""Raw files as typed rows: whatever their form, the values are those that are written there."""

from __future__ import annotations

import csv
import gzip
import math
import random
import struct
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from raw_files import make_card, read, rows, write, write_parquet

from tgeokd_ray.tables.cards import LABEL, ROW, ROW_ID, TIME, WEIGHT
from tgeokd_ray.tables.readers import read_frames

HEADER = "y,x,c\n"
ARFF = "% weka\n@RELATION r\n\n@attribute 'the id' numeric\n@attribute x REAL\n@Attribute c {a,'b c'}\n"
ARFF += "@attribute y {no, yes}\n@data\n"
DATASETS = Path(__file__).resolve().parents[2] / "datasets"

# The same three rows in every form.
ROWS = [(0, 0, 1.5, "a"), (1, 1, None, "b c"), (2, 0, -200.0, None)]
PLAIN = "y,x,c\nno,1.5,a\nyes,,b c\nno,-2e2,\n"
BARE = {"header": False, "names": ["y", "x", "c"]}
FORMS: dict[str, tuple[dict[str, Any], str | bytes]] = {
    "plain": ({}, PLAIN),
    "other order": ({}, "c,y,x\na,no,1.5\nb c,yes,\n,no,-2e2\n"),
    "no newline at the end": ({}, PLAIN[:-1]),
    "crlf": ({}, PLAIN.replace("\n", "\r\n")),
    "cr": ({}, PLAIN.replace("\n", "\r")),
    "byte order mark": ({}, "\ufeff" + PLAIN),
    "empty lines": ({}, "\n\n" + PLAIN.replace("\n", "\n\n") + "\n\n"),
    "all quoted": ({}, '"y","x","c"\n"no","1.5","a"\n"yes","","b c"\n"no","-2e2",""\n'),
    "blanks around numbers": ({}, "y,x,c\nno, 1.5 ,a\nyes,,b c\nno,\t-2e2,\n"),
    "no header": (BARE, PLAIN.partition("\n")[2]),
    "semicolons": ({"separator": ";"}, PLAIN.replace(",", ";")),
    "tabs": ({"kind": "tsv"}, PLAIN.replace(",", "\t")),
    "tabs, no header": ({"kind": "tsv", **BARE}, PLAIN.partition("\n")[2].replace(",", "\t")),
    "gzip": ({}, gzip.compress(PLAIN.encode())),
    "d5 gzip of two members": ({}, gzip.compress(PLAIN[:20].encode()) + gzip.compress(PLAIN[20:].encode())),
    "gzip, padded": ({}, gzip.compress(PLAIN.encode()) + bytes(64)),
    "gzip with a byte order mark": ({}, gzip.compress(("\ufeff" + PLAIN).encode())),
}


@pytest.mark.parametrize(("form", "content"), FORMS.values(), ids=FORMS)
def test_one_table_in_many_forms(tmp_path: Path, form: dict[str, Any], content: str | bytes) -> None:
    card = make_card(format={"kind": "csv", **form})
    assert rows(card, write(tmp_path / "f", content), ROW, LABEL, "x", "c") == ROWS


def test_arff_and_parquet_hold_the_same_table(tmp_path: Path) -> None:
    arff = "@relation r\n@attribute y {no,yes}\n@attribute x real\n@attribute c string\n@data\n"
    arff = write(tmp_path / "f.arff", arff + "no,1.5,a\nyes,?,'b c'\nno,-2e2,?\n")
    parquet = write_parquet(
        tmp_path / "f.parquet", {"c": ["a", "b c", None], "x": [1.5, None, -200.0], "y": ["no", "yes", "no"]}
    )
    assert rows(make_card("arff"), arff, ROW, LABEL, "x", "c") == ROWS
    assert rows(make_card("parquet"), parquet, ROW, LABEL, "x", "c") == ROWS


class TestText:
    def test_quotes(self, tmp_path: Path) -> None:
        cells = ['say ""hi""', "a,b", "two\nlines", "two\r\nlines", "ends\n", ""]
        content = HEADER + "".join(f'no,1,"{cell}"\n' for cell in cells) + 'no,1,6" nail\nno,1,"ends\n"'
        found = [text for (text,) in rows(make_card(), write(tmp_path / "f.csv", content), "c")]
        expected = list(csv.reader(content.splitlines(keepends=True)[1:]))
        assert found == [row[2] or None for row in expected]
        assert found[-2:] == ['6" nail', "ends\n"]

    def test_quotes_mean_nothing_in_tsv_or_where_the_card_says_so(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f", 'y\tx\tc\nno\t1\t"a\nno\t1\t"a"\n')
        assert rows(make_card("tsv"), path, "c") == [('"a',), ('"a"',)]
        path = write(tmp_path / "f", 'y,x,c\nno,1,"a\n')
        assert rows(make_card(format={"kind": "csv", "quote": None}), path, "c") == [('"a',)]

    def test_d14_texts_and_names_of_any_kind(self, tmp_path: Path) -> None:
        """A cell of a megabyte, emoji, a newline in a column's name, blanks, which are kept in text."""
        texts = ["z" * (1 << 20), "😀 naïve", " padded ", "NaN", "0"]
        content = '"y","x\n😀","c"\n' + "".join(f"no,1,{text}\n" for text in texts)
        card = make_card(columns={"numeric": ["x\n😀"], "categorical": ["c"]})
        assert rows(card, write(tmp_path / "f.csv", content), "c", "x\n😀") == [(text, 1.0) for text in texts]

    def test_numbers_are_those_of_python(self, tmp_path: Path) -> None:
        """Doubles of all magnitudes, subnormal ones too, to the last bit; and other ways to write one."""
        written = ["1e308", "+3", " 2", "-0", ".5", "5.", "007", "1E+2", "4.9e-324", "123456789012345678901234567890"]
        bits = (struct.unpack("<d", random.randbytes(8))[0] for _ in range(3000))
        written += [repr(value) for value in bits if math.isfinite(value)]
        path = write(tmp_path / "f.csv", HEADER + "".join(f"no,{text},a\n" for text in written))
        found = [value for (value,) in rows(make_card(), path, "x")]
        assert [struct.pack("<d", a) for a in found] == [struct.pack("<d", float(text)) for text in written]

    def test_d15_values_that_are_not_finite(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f.csv", HEADER + "no,NaN,a\nno,inf,a\nno,-Infinity,a\nno,1e400,a\nno,1,a\n")
        for policy in ("clip", "missing"):  # what is infinite is left to the encoder
            card = make_card(columns={"numeric": [{"name": "x", "inf": policy}], "categorical": ["c"]})
            assert [x for (x,) in rows(card, path, "x")] == [None, math.inf, -math.inf, math.inf, 1.0]
        card = make_card(columns={"numeric": [{"name": "x", "inf": "clip", "nan": "error"}], "categorical": ["c"]})
        assert read(card, write(tmp_path / "g.csv", HEADER + "no,,a\nno,inf,a\n")).num_rows == 2

    @pytest.mark.parametrize("kind", ["csv", "arff", "parquet"])
    def test_texts_that_mean_missing(self, tmp_path: Path, kind: str) -> None:
        card = make_card(format={"kind": kind, "null_values": ["NA", "-"]})
        columns = {"y": ["no"] * 3, "x": ["NA", "-", "7"], "c": ["-", "", "NA "]}
        head = {"csv": HEADER, "arff": "@attribute y s\n@attribute x s\n@attribute c s\n@data\n"}
        if kind == "parquet":
            path = write_parquet(tmp_path / "f.parquet", columns)
        else:
            lines = [",".join(row) + "\n" for row in zip(*columns.values(), strict=True)]
            path = write(tmp_path / "f", head[kind] + "".join(lines))
        last = None if kind == "arff" else "NA "
        assert rows(card, path, "x", "c") == [(None, None), (None, ""), (7.0, last)]


class TestArff:
    def test_quotes_comments_and_blanks(self, tmp_path: Path) -> None:
        """Comments may look like rows, and blanks stand before and after a comma; neither is told by Arrow's parser."""
        data = (
            "1, 2.5, 'b c', yes\n% 5,5,a,no\n\n 2 ,\t? ,'b c' , no\n  % it's a comment\n3,-1,'it\\'s, so',no\n4,?,?,yes"
        )
        card = make_card("arff", row_id={"kind": "column", "column": "the id"})
        found = rows(card, write(tmp_path / "f.arff.gz", ARFF + data), ROW, ROW_ID, "x", "c", LABEL)
        assert found == [
            (0, 1, 2.5, "b c", 1),
            (1, 2, None, "b c", 0),
            (2, 3, -1.0, "it's, so", 0),
            (3, 4, None, None, 1),
        ]

    def test_names(self, tmp_path: Path) -> None:
        names = ["plain", "two words", "it's", 'say "hi"', "a,b", "{x"]
        quoted = ["plain", '"two words"', r"'it\'s'", r'"say \"hi\""', "'a,b'", "'{x'"]
        head = "".join(f"@ATTRIBUTE {name} numeric\r\n" for name in quoted) + "@attribute y{no,yes}\r\n@DATA\r\n"
        path = write(tmp_path / "f.arff", head + "1,2,3,4,5,6,no\r\n")
        table = read(make_card("arff", columns={"numeric": names}), path)
        assert table.select(names).to_pylist() == [dict(zip(names, range(1, 7), strict=True))]


class TestParquet:
    NUMBERS = (
        (pa.array([2**53, None, -7]), [2.0**53, None, -7.0]),
        (pa.array([1, 2, 255], pa.uint8()), [1.0, 2.0, 255.0]),
        (pa.array([1.5, math.nan, None]), [1.5, None, None]),
        (pa.array([0.5, 2.0, None], pa.float16()), [0.5, 2.0, None]),
        (pa.array([True, False, None]), [1.0, 0.0, None]),
        (pa.array([Decimal("1.25"), None, Decimal("-3.00")]), [1.25, None, -3.0]),
        (pa.array(["1.5", " 2", None]), [1.5, 2.0, None]),
        (pa.array(["4", "5", None]).dictionary_encode(), [4.0, 5.0, None]),
        (pa.nulls(3), [None, None, None]),
    )
    TEXTS = (
        (pa.array(["a", None, "😀"]), ["a", None, "😀"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array(["a", None, "b"], pa.large_string()), ["a", None, "b"]),
        (pa.array([b"ab", None, b"cd"], pa.binary(2)), ["ab", None, "cd"]),
        (pa.array([10, None, -2]), ["10", None, "-2"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
        (pa.array([date(2024, 1, 31), None, date(1969, 1, 1)]), ["2024-01-31", None, "1969-01-01"]),
    )

    @pytest.mark.parametrize(("column", "values"), NUMBERS, ids=[str(column.type) for column, _ in NUMBERS])
    def test_numbers(self, tmp_path: Path, column: pa.Array, values: list[float | None]) -> None:
        path = write_parquet(tmp_path / "f.parquet", {"y": ["no"] * 3, "x": column, "c": ["a"] * 3})
        assert rows(make_card("parquet"), path, "x") == [(value,) for value in values]

    @pytest.mark.parametrize(("column", "values"), TEXTS, ids=[str(column.type) for column, _ in TEXTS])
    def test_texts(self, tmp_path: Path, column: pa.Array, values: list[str | None]) -> None:
        path = write_parquet(tmp_path / "f.parquet", {"y": ["no"] * 3, "x": [1, 2, 3], "c": column})
        assert rows(make_card("parquet"), path, "c") == [(value,) for value in values]

    @pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0], ["0", "1"]], ids=str)
    def test_labels_may_be_numbers(self, tmp_path: Path, labels: list[Any]) -> None:
        card = make_card("parquet", label={"column": "y", "classes": [0, 1]})
        path = write_parquet(tmp_path / "f.parquet", {"y": labels, "x": [1, 2], "c": ["a", "b"]})
        assert rows(card, path, LABEL) == [(0,), (1,)]

    def test_d7_a_file_of_polars_and_one_without_rows(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"y": ["no", "yes"], "x": [1, None], "c": pl.Series(["a", None], dtype=pl.Categorical)})
        frame.write_parquet(tmp_path / "f.parquet")
        assert rows(make_card("parquet"), tmp_path / "f.parquet", "x", "c") == [(1.0, "a"), (None, None)]
        frame.clear().write_parquet(tmp_path / "f.parquet")
        assert list(read_frames(make_card("parquet"), tmp_path / "f.parquet")) == []


class TestOwnColumns:
    EXTREMES = (-(2**63), 2**63 - 1, 2**53 + 1, 0)

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_d15_row_ids(self, tmp_path: Path, kind: str) -> None:
        if kind == "csv":
            path = write(tmp_path / "f", "id,y,x,c\n" + "".join(f"{number},no,1,a\n" for number in self.EXTREMES))
        else:
            path = write_parquet(tmp_path / "f", {"y": ["no"] * 4, "x": [1] * 4, "c": ["a"] * 4, "id": self.EXTREMES})
        for type_ in ("int", "text"):
            card = make_card(kind, row_id={"kind": "column", "column": "id", "type": type_})
            as_type = str if type_ == "text" else int
            assert rows(card, path, ROW_ID) == [(as_type(number),) for number in self.EXTREMES]

    def test_weights(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f.csv", "y,x,c,w\nno,1,a,0\nyes,1,a, 2.5\n")
        assert rows(make_card(weight="w"), path, WEIGHT) == [(0.0,), (2.5,)]
        path = write_parquet(tmp_path / "f.parquet", {"y": ["no"], "x": [1], "c": ["a"], "w": [3]})
        assert rows(make_card("parquet", weight="w"), path, WEIGHT) == [(3.0,)]

    MOMENT = datetime(2024, 1, 31, 12)
    TIMES = (
        ("number", ["5", " -1.5 ", ""], [5.0, -1.5, math.nan]),
        ("number", pa.array([5, -1, None]), [5.0, -1.0, math.nan]),
        ("timestamp", ["2024-01-31T12:00:00", "2024-01-31 14:00+02:00", ""], [1706702400.0, 1706702400.0, math.nan]),
        ("timestamp", ["2024-01-31T12:00:00.25Z", "20240131", "1969-12-31"], [1706702400.25, 1706659200.0, -86400.0]),
        ("timestamp", pa.array([MOMENT, None]), [1706702400.0, math.nan]),
        ("timestamp", pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin")), [1706702400.0]),
        ("timestamp", pa.array([MOMENT.date()]), [1706659200.0]),
    )

    @pytest.mark.parametrize(("time", "values", "expected"), TIMES, ids=range(len(TIMES)))
    def test_times(self, tmp_path: Path, time: str, values: Any, expected: list[float]) -> None:
        """Seconds from `date -u -d '2024-01-31 12:00' +%s`; a row without a time keeps NaN."""
        splits = {"kind": "time", "column": "t", "time": time, "periods": [{"to": "train"}]}
        if isinstance(values, pa.Array):
            number = len(values)
            columns = {"y": ["no"] * number, "x": [1] * number, "c": ["a"] * number, "t": values}
            found = rows(make_card("parquet", splits=splits), write_parquet(tmp_path / "f", columns), TIME)
        else:
            path = write(tmp_path / "f", "y,x,c,t\n" + "".join(f"no,1,a,{value}\n" for value in values))
            found = rows(make_card(splits=splits), path, TIME)
        assert [seconds for (seconds,) in found] == pytest.approx(expected, nan_ok=True, abs=0)
