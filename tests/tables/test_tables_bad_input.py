"""Raw files that break a rule: each error names file, column, row, rule, value and a way out; nothing is half done."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import BAD, GOOD, HEADER, IDS, TEXT_IDS, make_card, places, refused, write, write_parquet

from tgeokd_ray.errors import SHOWN, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.tables import delimited, headers
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.readers import read_frames

CORRECT = "correct the file or the card; tgeokd check reads without writing"
AGAIN = "get the file again"
X_AND_C = {"numeric": ["x"], "categorical": ["c"]}


@pytest.mark.parametrize(("changes", "content", "expected"), BAD.values(), ids=BAD)
def test_a_bad_file_is_told(tmp_path: Path, changes: dict[str, Any], content: str | bytes, expected: list[str]) -> None:
    path = write(tmp_path / "f", content)
    error = refused(make_card(**changes), path)
    assert [str(problem).removeprefix(f"file {path}") for problem in error.problems] == expected
    assert (error.total, error.fix) == (len(expected), CORRECT)


def told(path: Path, error: DataError) -> str:
    """The first problem, without the file."""
    return str(error.problems[0]).removeprefix(f"file {path}")


@pytest.fixture(scope="module")
def packed() -> bytes:
    """Random rows, so that the damage lies behind the first megabyte, which is read before anything is cut."""
    generator = random.Random(1)
    return gzip.compress((HEADER + "".join(f"no,{generator.random()},a\n" for _ in range(80_000))).encode(), 1)


class TestPacked:
    @pytest.mark.parametrize(
        ("damage", "what"),
        [
            (lambda data: data[:-1000], "Compressed file ended before the end-of-stream marker was reached"),
            (lambda data: data[:-3], "Compressed file ended before the end-of-stream marker was reached"),
            (lambda data: data[:5], "Compressed file ended before the end-of-stream marker was reached"),
            (lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], "CRC check failed"),
            (lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], "Incorrect length of data produced"),
            (lambda data: data + b"more", "Not a gzipped file (b'mo')"),
        ],
        ids=["cut", "cut in the checksum", "cut in the head", "checksum", "length", "more behind it"],
    )
    def test_d4_damage(self, tmp_path: Path, packed: bytes, damage: Callable[[bytes], bytes], what: str) -> None:
        (tmp_path / "f.csv.gz").write_bytes(damage(packed))
        error = refused(make_card(), tmp_path / "f.csv.gz")
        assert told(tmp_path / "f.csv.gz", error).startswith(f": the gzip data is cut or damaged: {what}")
        assert error.fix == AGAIN

    def test_the_undamaged_file_is_read(self, tmp_path: Path, packed: bytes) -> None:
        (tmp_path / "f.csv.gz").write_bytes(packed)
        assert sum(frame.num_rows for frame in read_frames(make_card(), tmp_path / "f.csv.gz")) == 80_000


def test_d1_d14_a_row_of_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "f.csv", HEADER + GOOD * 3 + 'no,1,"' + "a" * (3 * delimited.BLOCK))
    error = refused(make_card(), path)
    assert "longer than 8 MiB: is a quote not closed?" in told(path, error)
    monkeypatch.setattr(headers, "CELL", 1000)
    path = write(tmp_path / "g.csv", 'y,x,"c\n' + GOOD * 1000)
    assert ", line 1: cannot be cut into columns: " in told(path, refused(make_card(), path))


class TestParquet:
    def refused(self, path: Path, changes: dict[str, Any] | None = None, **columns: Any) -> DataError:
        full = {"y": ["no", "yes"], "x": [1.0, 2.0], "c": ["a", "b"], **columns}
        write_parquet(path, {name: column for name, column in full.items() if column is not None})
        return refused(make_card("parquet", **(changes or {})), path)

    TYPES = (
        ({"c": pa.array([[1], [2]])}, "c", "a column of lists or structs cannot be read", "list<"),
        ({"x": pa.array([{"a": 1}] * 2)}, "x", "a column of lists or structs cannot be read", "struct<"),
        ({"x": pa.array([1, 2], pa.date32())}, "x", "a time is no number", "date32[day]"),
        (
            {"c": pa.array([b"0" * 16, None], pa.uuid())},
            "c",
            "a column of this type cannot be read: write it as",
            "ext",
        ),
        ({"t": pa.array([1, 2], pa.timestamp("us"))}, "t", "a time is no number: set splits.time: timestamp", "time"),
        ({"s": pa.array([1, 2], pa.time32("ms"))}, "s", "is no point in time", "time32[ms]"),
    )

    @pytest.mark.parametrize(("columns", "name", "what", "got"), TYPES, ids=[case[-1] for case in TYPES])
    def test_types_that_cannot_be_read(
        self, tmp_path: Path, columns: dict[str, Any], name: str, what: str, got: str
    ) -> None:
        time = {"t": "number", "s": "timestamp"}.get(name)
        splits = {"splits": {"kind": "time", "column": name, "time": time, "periods": [{"to": "train"}]}}
        (problem,) = self.refused(tmp_path / "f", splits if time else None, **columns).problems
        assert problem.what.startswith(what)
        assert (problem.column, problem.row) == (name, None)
        assert problem.expected
        assert str(problem.got).startswith(got)

    def test_d13_all_that_differs_from_the_card_at_once(self, tmp_path: Path) -> None:
        error = self.refused(tmp_path / "f", y=None, x=[[1], [2]], c=None, cc=["a", "b"])
        assert [(p.column, p.what.partition(":")[0]) for p in error.problems] == [
            ("c", "the file lacks this column; did you mean 'cc'?"),
            ("y", "the file lacks this column"),
            ("cc", "the card does not name this column"),
            ("x", "a column of lists or structs cannot be read"),
        ]

    VALUES = (
        (None, {"y": ["no", None]}, "y", "the label is missing", None),
        (None, {"x": ["1", "one"]}, "x", "the value is not a number", "'one'"),
        (None, {"x": [1.0, -float("inf")]}, "x", "the value is not a finite number", "-inf"),
        (None, {"c": pa.array([b"a", b"\xe9"])}, "c", "the bytes are not UTF-8 text", r"b'\xe9'"),
        (None, {"c": pa.array([b"a", b"\xe9"]).view(pa.string())}, "c", "the bytes are not UTF-8 text", r"b'\xe9'"),
        (IDS, {"id": pa.array([1, 2**63], pa.uint64())}, "id", "the row id cannot be used", "9223372036854775808"),
        (IDS, {"id": [1, None]}, "id", "the row id is missing", None),
        ({"weight": "w"}, {"w": [0.0, -0.5]}, "w", "the weight cannot be used", "-0.5"),
        ({"weight": "w"}, {"w": [0.0, None]}, "w", "the weight is missing", None),
    )

    @pytest.mark.parametrize(("changes", "columns", "name", "what", "got"), VALUES, ids=[case[-2] for case in VALUES])
    def test_values(
        self, tmp_path: Path, changes: dict[str, Any], columns: dict[str, Any], name: str, what: str, got: str
    ) -> None:
        (problem,) = self.refused(tmp_path / "f", changes, **columns).problems
        assert (problem.column, problem.row, problem.what, problem.got) == (name, 2, what, got)
        assert problem.expected

    @pytest.mark.parametrize("size", [0, 7, -9])
    def test_d4_what_is_no_whole_file(self, tmp_path: Path, size: int) -> None:
        path = write_parquet(tmp_path / "f", {"y": ["no"], "x": [1], "c": ["a"]})
        path.write_bytes(path.read_bytes()[:size])
        error = refused(make_card("parquet"), path)
        assert told(path, error).startswith(": is no whole Parquet file: Parquet ")
        assert error.fix == f"{AGAIN}, or correct format.kind in the card"

    def test_d4_s3_a_flipped_bit(self, tmp_path: Path) -> None:
        columns = {"y": ["no"] * 999, "x": range(999), "c": ["a"] * 999}
        path = tmp_path / "f"
        pq.write_table(pa.table(columns), path, write_page_checksum=True, use_dictionary=False)
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
        assert "is no whole Parquet file: " in told(path, refused(make_card("parquet"), path))


def test_of_many_problems_the_first_are_told_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of rows, whatever their kind and column, also where the file was read in pieces."""
    lines = [f"{'maybe' if n % 2 else 'no'},{'x' if n % 3 == 0 else n},a{',' * (n % 5 == 0)}\n" for n in range(1, 601)]
    path = write(tmp_path / "f.csv", HEADER + "".join(lines))
    expected: list[tuple[str | None, int]] = []
    for n in range(1, 601):
        bad = [("y", n)] * (n % 2) + [("x", n)] * (n % 3 == 0)
        expected += [(None, n)] if n % 5 == 0 else bad
    for block in (delimited.BLOCK, 128):
        monkeypatch.setattr(delimited, "BLOCK", block)
        error = refused(make_card(), path)
        assert places(error) == expected[:SHOWN]
        assert error.total == len(expected)
        assert f"... {len(expected)} in all, the first 20 are shown" in str(error)


def engine(function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
    return map(function, items)


def encoding(card: Card, files: list[Path], root: Path) -> DataError:
    """The error that encoding ends in; nothing of the table can be seen then."""
    with pytest.raises(DataError) as caught:
        encode(card, files, root, engine, Silent())
    assert caught.value.exit_code == 3
    tables = root / "tables" / "raw"
    assert [path.name for path in tables.iterdir() if not path.name.startswith(".")] == []
    return caught.value


class TestEncode:
    LINES = tuple(f"{n},{('no', 'yes')[n % 2]},{n},v{n % 3}\n" for n in range(400))

    def file(self, path: Path, **changed: str) -> Path:
        """400 rows of id, y, x, c; `changed` replaces lines, as `row7`, counted from 1."""
        lines = list(self.LINES)
        for row, line in changed.items():
            lines[int(row.removeprefix("row")) - 1] = line
        return write(path, "id," + HEADER + "".join(lines))

    @pytest.mark.parametrize("ids", [IDS, TEXT_IDS], ids=["int", "text"])
    def test_d9_a_repeated_row_id(self, tmp_path: Path, ids: dict[str, Any]) -> None:
        path = self.file(tmp_path / "a.csv", row301="17,no,1,a\n")
        error = encoding(make_card(**ids), [path], tmp_path)
        (problem,) = error.problems
        assert (problem.file, problem.column, problem.row) == ("a.csv", "id", 301)
        assert problem.what == "another row has this row id"
        assert error.fix == "give every row its own id"
        if ids is IDS:
            assert problem.got == "17"

    def test_n4_a_class_that_train_lacks(self, tmp_path: Path) -> None:
        card = make_card(
            label={"column": "y", "classes": ["no", "yes", "maybe"]}, columns={**X_AND_C, "ignore": ["id"]}
        )
        error = encoding(card, [self.file(tmp_path / "a.csv")], tmp_path)
        assert [str(p) for p in error.problems] == [
            "column 'y': no train row is of class 'maybe'; got 400 rows in all splits"
        ]
        assert error.fix == "give train a larger share, or take the class out of the card"

    def test_problems_of_two_files(self, tmp_path: Path) -> None:
        paths = [self.file(tmp_path / "a.csv", row7="1,oui,1,a\n"), self.file(tmp_path / "b.csv", row9="1,no,one,a\n")]
        error = encoding(make_card(columns={**X_AND_C, "ignore": ["id"]}), paths, tmp_path)
        found = [(problem.file, problem.column, problem.row) for problem in error.problems]
        assert found == [(str(paths[0]), "y", 7), (str(paths[1]), "x", 9)]
        assert error.total == 2

    def test_d11_an_unseen_category_is_counted_and_no_error(self, tmp_path: Path) -> None:
        """Every test row has a value that train lacks, and train has one that test lacks."""
        files = {"train*": "train", "test*": "test"}
        card = make_card(columns={**X_AND_C, "ignore": ["id"]}, splits={"kind": "file", "files": files})
        new = {f"row{row}": f"{row},no,1,new{row}\n" for row in range(1, 101)}
        paths = [self.file(tmp_path / "train.csv"), self.file(tmp_path / "test.csv", **new)]
        artifact, _ = encode(card, paths, tmp_path, engine, Silent())
        assert artifact.manifest.schema["extra"]["unseen_test"] == {"c": 100 / 400}
        assert artifact.manifest.schema["rows"]["test"] == 400
