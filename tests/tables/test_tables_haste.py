"""Text is read in haste as long as nothing is wrong with it: what comes out is what careful reading gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from raw_files import make_card, write

from tgeokd_ray.errors import DataError
from tgeokd_ray.tables import delimited, readers
from tgeokd_ray.tables.delimited import Unsure, in_pieces
from tgeokd_ray.tables.readers import read_frames

HEADER = "y,x,c\n"
PLAIN = "no,1,a\nyes,,\nno,-2.5e3,b\n"
COLUMNS = {"numeric": [{"name": "x", "inf": "clip"}], "categorical": ["c"]}


def careful(monkeypatch: pytest.MonkeyPatch, path: Path) -> Any:
    def never(*arguments: object) -> Any:
        raise Unsure

    with monkeypatch.context() as patch:
        patch.setattr(readers, "_in_haste", never)
        return outcome(path)


def outcome(path: Path) -> Any:
    """The rows, or what the error says."""
    try:
        return pa.concat_tables(read_frames(make_card(columns=COLUMNS), path)).to_pylist()
    except DataError as error:
        return str(error)


@pytest.mark.parametrize(
    "cell",
    [
        "1",
        " 1",
        "1 ",
        "+1",
        "1.",
        ".5",
        "1e400",
        "1e-400",
        "nan",
        "NaN",
        "nan(5)",
        "inf",
        "-Infinity",
        "0x10",
        "1_000",
        "1d5",
        "-0",
        "12345678901234567890",
        "0.1",
        '"7"',
        '" 7"',
        '""',
        " ",
        "true",
        "٣",
        "1,5",
        "1\x00",
    ],
)
def test_every_way_to_write_a_number(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "f.csv", HEADER + PLAIN * 5 + f"no,{cell},a\n" + PLAIN)
    found = outcome(path)
    assert repr(found) == repr(careful(monkeypatch, path))


@pytest.mark.parametrize(
    "row",
    ['no,1,"two\nlines"\n', "no,1\n", "maybe,1,a\n", "\n", 'no,1,"open\n', "no,1,é\n", "no,1,a\0b\n", '"no",2,""\n'],
)
def test_every_kind_of_row(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "f.csv", HEADER + PLAIN * 5 + row + PLAIN)
    assert repr(outcome(path)) == repr(careful(monkeypatch, path))


def test_bytes_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes((HEADER + PLAIN).encode() + b"no,1,\xff\nno,1,\xff\xff\xff\xff\xff\xff\xff\xff\n")
    assert "UTF-8" in outcome(path)
    assert outcome(path) == careful(monkeypatch, path)


def test_rows_given_in_haste_are_not_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "FAST_BLOCK", 256)
    monkeypatch.setattr(readers, "PIECE_ROWS", 100)
    lines = [f"no,{n},v{n}\n" for n in range(1000)]
    path = write(tmp_path / "f.csv", HEADER + "".join(lines) + "no,+7,w\n" + "".join(lines[:50]))
    rows = outcome(path)
    assert [row["@row"] for row in rows] == list(range(1051))
    assert [row["x"] for row in rows] == [*range(1000), 7, *range(50)]


def test_a_row_longer_than_a_block_of_haste(tmp_path: Path) -> None:
    long = "a" * (3 * delimited.FAST_BLOCK)
    path = write(tmp_path / "f.csv", HEADER + PLAIN + f"no,1,{long}\n" + PLAIN)
    assert [row["c"] for row in outcome(path)] == ["a", None, "b", long, "a", None, "b"]


def test_a_number_that_decides_about_splits_is_read_as_text_too(tmp_path: Path) -> None:
    splits = {"kind": "time", "column": "x", "time": "number", "periods": [{"until": 2, "to": "train"}, {"to": "test"}]}
    path = write(tmp_path / "f.csv", HEADER + "no,1,a\nyes,3,b\n")
    (frame,) = read_frames(make_card(splits=splits), path)
    assert frame["x"].to_pylist() == frame["@time"].to_pylist() == [1, 3]


def test_pieces_are_cut_by_rows_or_by_tables() -> None:
    tables = [pa.table({"n": pa.array(range(n), pa.int64())}) for n in (3, 4, 0, 5)]
    assert [piece.num_rows for piece in in_pieces(tables, 5)] == [5, 5, 2]
    assert [piece.num_rows for piece in in_pieces(tables, 100, 2)] == [7, 5]
