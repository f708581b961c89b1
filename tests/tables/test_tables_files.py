"""Whole files: which ones a name leads to, the same rows in any pieces, files without labels, and real tables."""

from __future__ import annotations

import csv
import gzip
import math
import os
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from raw_files import make_card, read, refused, write, write_parquet

from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.tables import columnar, delimited, readers
from tgeokd_ray.tables.cards import LABEL, ROW, Card, load_card
from tgeokd_ray.tables.readers import read_frames
from tgeokd_ray.tables.sources import expand_files

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


class TestExpand:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("b.csv", "a.tsv.gz", "C.CSV", "d.parquet", ".hidden.csv", "_part.csv", "notes.md", "e[1].csv"):
            write(tmp_path / name, "x")
        (tmp_path / "deep").mkdir()
        write(tmp_path / "deep" / "f.csv", "x")
        return tmp_path

    def names(self, kind: str, *data: str | Path, **changes: Any) -> list[str]:
        return [path.name for path in expand_files(make_card(kind, **changes), data)]

    def test_a_folder_stands_for_its_data_files(self, folder: Path) -> None:
        assert self.names("csv", folder) == ["C.CSV", "a.tsv.gz", "b.csv", "e[1].csv"]
        assert self.names("parquet", folder) == ["d.parquet"]

    def test_patterns_and_names_keep_their_order_and_each_file_comes_once(self, folder: Path) -> None:
        assert self.names("csv", folder / "[ab].*") == ["a.tsv.gz", "b.csv"]
        assert self.names("csv", folder / "**" / "*.csv") == ["_part.csv", "b.csv", "f.csv", "e[1].csv"]
        assert self.names("csv", folder / "notes.md", folder / "b.csv", folder / "*.csv")[:2] == ["notes.md", "b.csv"]
        assert self.names("csv", folder / "b.csv", folder / "deep" / ".." / "b.csv") == ["b.csv"]

    def test_a_file_whose_name_looks_like_a_pattern_is_a_file(self, folder: Path) -> None:
        assert self.names("csv", folder / "e[1].csv") == ["e[1].csv"]

    def test_the_card_s_own_files_come_in_where_none_are_named(self, folder: Path) -> None:
        files = [str(folder / "b.csv")]
        assert self.names("csv", files=files) == ["b.csv"]
        assert self.names("csv", folder / "C.CSV", files=files) == ["C.CSV"]

    def test_a_synthetic_card_has_no_files(self) -> None:
        card = load_card("synthetic_ctr")
        assert expand_files(card, []) == []
        with pytest.raises(ConfigError, match="the card synthetic_ctr makes its own rows and takes no data"):
            expand_files(card, ["x.csv"])

    def test_nothing_named(self) -> None:
        with pytest.raises(ConfigError, match="no data files: the card raw names none") as caught:
            expand_files(make_card(), [])
        assert caught.value.fix == "name them: tgeokd check --card CARD FILE..., or --data FILE... in a job"

    def test_every_name_that_leads_nowhere_is_told(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        os.mkfifo(folder / "pipe")
        bad = {
            "bb.csv": "no such file; did you mean 'b.csv'?",
            "zzzzzz": "no such file",
            "nowhere/a.csv": "no such file",
            "*.arff": "no file matches this pattern",
            "empty": "no data file is in this folder; looked for .csv, .tsv, .txt, .data",
            "pipe": "is no regular file",
            "n" * 300: "cannot be looked up: File name too long",
            "nul\0": "no such file",
        }
        with pytest.raises(DataError) as caught:
            expand_files(make_card(), [folder / "b.csv", *(folder / name for name in bad)])
        found = {str(Path(p.file or "").relative_to(folder)): p.what for p in caught.value.problems}
        assert found == bad
        assert caught.value.exit_code == 3
        assert caught.value.fix == "correct the names of the data files"


class TestPieces:
    """A file is read in pieces; where they are cut must not show."""

    def pieces(self, card: Card, path: Path) -> tuple[int, list[dict[str, Any]]]:
        frames = list(read_frames(card, path))
        return len(frames), pa.concat_tables(frames).to_pylist()

    @pytest.mark.parametrize("kind", ["csv", "tsv", "arff", "parquet"])
    def test_the_same_rows_in_any_pieces(self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        columns = {
            "y": [("no", "yes")[n % 3 == 0] for n in range(300)],
            "x": [None if n % 7 == 0 else n / 8 for n in range(300)],
            "c": [None if n % 5 == 0 else ("two\nlines, 'n'" if kind == "csv" else f"v{n % 9}") for n in range(300)],
        }
        expected = [
            {ROW: n, LABEL: int(columns["y"][n] == "yes"), "x": columns["x"][n], "c": columns["c"][n]}
            for n in range(300)
        ]
        if kind == "parquet":
            path = write_parquet(tmp_path / "f", columns)
        else:
            mark, quote, null = {"csv": (",", '"', ""), "tsv": ("\t", "", ""), "arff": (", ", "'", "?")}[kind]
            cells = zip(*columns.values(), strict=True)
            lines = [mark.join(null if v is None else f"{quote}{v}{quote}" for v in row) + "\n" for row in cells]
            head = (
                mark.join(columns) + "\n"
                if kind != "arff"
                else "@attribute y s\n@attribute x s\n@attribute c s\n@data\n"
            )
            path = write(tmp_path / "f.gz", head + "".join(lines))
        assert self.pieces(make_card(kind), path) == (1, expected)
        monkeypatch.setattr(delimited, "BLOCK", 256)
        monkeypatch.setattr(readers, "PIECE_BLOCKS", 2)
        monkeypatch.setattr(columnar, "PIECE_ROWS", 32)
        number, found = self.pieces(make_card(kind), path)
        assert found == expected
        assert number > 5

    def test_rows_are_numbered_through_all_pieces(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also after rows that could not be cut, quoted newlines and empty lines, in whichever piece they were."""
        monkeypatch.setattr(delimited, "BLOCK", 128)
        lines = [f'no,{n},"a\nb"\n\n' if n % 4 else f"no,{n}\n" for n in range(1, 101)]
        lines[49] = 'no,ten,"a\nb"\n'
        lines[98] = "maybe,99,a\n"
        error = refused(make_card(), write(tmp_path / "f.csv", "y,x,c\n" + "".join(lines)))
        assert [p.row for p in error.problems] == sorted([*range(4, 72, 4), 50, 72, 76])[:20]
        assert next(p.column for p in error.problems if p.row == 50) == "x"
        assert error.total == 25 + 2


class TestWithoutLabels:
    CARD: ClassVar[dict[str, Any]] = {
        "weight": "w",
        "row_id": {"kind": "column", "column": "id"},
        "columns": {"numeric": ["x"], "categorical": ["c"], "ignore": ["note"]},
        "splits": {"kind": "time", "column": "t", "periods": [{"to": "train"}]},
    }

    def test_label_weight_and_time_may_lack_or_hold_anything(self, tmp_path: Path) -> None:
        card, row = make_card(**self.CARD), {"@row": 0, "@row_id": 7, "x": 1.0, "c": "a"}
        assert read(card, write(tmp_path / "a.csv", "id,x,c\n7,1,a\n"), labels=False).to_pylist() == [row]
        full = write(tmp_path / "b.csv", "id,x,c,y,w,t,note\n7,1,a,?,?,?,?\n")
        assert read(card, full, labels=False).to_pylist() == [row]
        parquet = write_parquet(tmp_path / "c.parquet", {"id": [7], "x": [1], "c": ["a"], "y": [[1]]})
        assert read(make_card("parquet", **self.CARD), parquet, labels=False).to_pylist() == [row]

    def test_a_file_without_header_has_all_columns_or_none_of_those(self, tmp_path: Path) -> None:
        names = ["id", "y", "x", "w", "c", "t", "note"]
        card = make_card(format={"kind": "csv", "header": False, "names": names}, **self.CARD)
        for text in ("7,1,a\n", "7,no,1,1,a,5,n\n"):
            found = read(card, write(tmp_path / "f.csv", text), labels=False)
            assert found.select(["x", "c"]).to_pylist() == [{"x": 1.0, "c": "a"}]
        with pytest.raises(DataError, match="another number of columns than the card; expected 7 columns; got 4"):
            read(card, write(tmp_path / "f.csv", "7,no,1,a\n"), labels=False)

    def test_features_and_row_ids_may_not_lack(self, tmp_path: Path) -> None:
        error = refused(make_card(**self.CARD), write(tmp_path / "f.csv", "c,y\na,no\n"), labels=False)
        assert [(p.column, p.what) for p in error.problems] == [
            ("x", "the file lacks this column"),
            ("id", "the file lacks this column"),
        ]


def unpacked(path: Path, delimiter: str, number: int | None = None) -> list[list[str]]:
    """The cells of the first rows of a packed text file without quotes, by the csv module."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        return list(islice(csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE), number))


def classes(card: Card, table: pa.Table) -> dict[str, int]:
    return {card.label.classes[code]: count for code, count in Counter(table[LABEL].to_pylist()).items()}


class TestRealTables:
    def test_criteo(self, real_data: Path) -> None:
        card, path = load_card(DATASETS / "criteo.yaml"), real_data / "criteo" / "criteo_first80k.tsv.gz"
        table, cells = read(card, path), unpacked(path, "\t", 5000)
        assert classes(card, table) == {"0": 62042, "1": 17958}
        table = table[:5000]
        for name in ("label", "I1", "I5", "C1", "C26"):
            column = [row[card.format.names.index(name)] for row in cells]
            if name == "label":
                assert table[LABEL].to_pylist() == [int(text) for text in column]
            elif name in card.numeric:
                assert table[name].to_pylist() == [float(text) if text else None for text in column]
            else:
                assert table[name].to_pylist() == [text or None for text in column]

    def test_nsl_kdd(self, real_data: Path) -> None:
        card, path = load_card(DATASETS / "nsl_kdd.yaml"), real_data / "nsl_kdd" / "KDDTest+.txt.gz"
        table, cells = read(card, path), unpacked(path, ",")
        group = {text: name for name, texts in card.label.mapping.items() for text in texts}
        assert classes(card, table) == Counter(group[row[41]] for row in cells)
        assert table["service"].to_pylist() == [row[2] for row in cells]
        assert math.fsum(table["src_bytes"].to_pylist()) == sum(int(row[4]) for row in cells)

    def test_nsl_kdd_train(self, real_data: Path) -> None:
        card = load_card(DATASETS / "nsl_kdd.yaml")
        counts = {"normal": 67343, "dos": 45927, "probe": 11656, "r2l": 995, "u2r": 52}
        assert classes(card, read(card, real_data / "nsl_kdd" / "KDDTrain+.txt.gz")) == counts

    def test_gas(self, real_data: Path) -> None:
        card, path = load_card(DATASETS / "gas.yaml"), real_data / "msu_gas" / "gas_pipeline_10pct.arff.gz"
        table = read(card, path)
        cells = [row for row in unpacked(path, ",") if len(row) == 27 and not row[0].startswith("@")]
        counts = (6672, 335, 1664, 93, 842, 41, 189, 783)
        assert classes(card, table) == dict(zip(card.label.classes, counts, strict=True))
        assert table[LABEL].to_pylist() == [int(row[26]) for row in cells]
        assert table["measurement"].to_pylist() == [float(row[24]) for row in cells]
        assert table.num_rows == 10619

    def test_a_file_of_real_rows_with_another_card_is_refused_with_the_way_out(self, real_data: Path) -> None:
        card, path = load_card(DATASETS / "nsl_kdd.yaml"), real_data / "criteo" / "criteo_first80k.tsv.gz"
        assert "; expected 43 columns; got 1, but 40 when cut at every tab: set format.kind: tsv?" in str(
            refused(card, path)
        )
        form = card.format.model_copy(update={"header": True, "names": ()})
        told = refused(card.model_copy(update={"format": form}), real_data / "nsl_kdd" / "KDDTest+.txt.gz")
        assert len(told.problems) == 1
        assert "set format.header: false and format.names" in told.problems[0].what
