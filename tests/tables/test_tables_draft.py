"""`tgeokd check --draft`: the card it writes loads, and encodes the file it came from."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tgeokd_ray.errors import DataError
from tgeokd_ray.tables.cards import Card, load_card
from tgeokd_ray.tables.check import summarise
from tgeokd_ray.tables.draft import draft_card


def drafted(path: Path, folder: Path) -> Card:
    card = folder / "draft.yaml"
    card.write_text(draft_card(path))
    return load_card(card)


def table(rows: int = 400) -> dict[str, list[object]]:
    return {
        "user": [f"user-{k}" for k in range(rows)],
        "age": [float(k % 70) / 2 for k in range(rows)],
        "code": [[404, 500, 200][k % 3] for k in range(rows)],
        "site": [f"s{k % 12}" for k in range(rows)],
        "click": [k % 2 for k in range(rows)],
    }


def as_text(separator: str, header: bool = True, missing: str | None = None) -> str:
    columns = table()
    rows = zip(*columns.values(), strict=True)
    lines = [separator.join(str(v) for v in row) for row in rows]
    if missing is not None:
        lines[3] = separator.join(["user-3", missing, "404", "s3", "1"])
    return "\n".join([*([separator.join(columns)] if header else []), *lines]) + "\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separator_header_roles_and_label_are_found(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "clicks of May.csv"
    path.write_text(as_text(separator))
    card = drafted(path, tmp_path)
    assert card.name == "clicks_of_May"
    assert card.format.separator == separator
    assert (card.numeric, card.categorical, card.columns.ignore) == (("age",), ("code", "site"), ("user",))
    assert (card.label.column, card.label.classes, card.label.negative) == ("click", ("0", "1"), "0")
    assert summarise(card, [path])["rows"] == 400


def test_a_file_without_a_header_gets_names(tmp_path: Path) -> None:
    path = tmp_path / "clicks.tsv.gz"
    with gzip.open(path, "wt") as file:
        file.write(as_text("\t", header=False))
    card = drafted(path, tmp_path)
    assert card.format.names == tuple(f"column_{k}" for k in range(1, 6))
    assert card.label.column == "column_5"
    assert summarise(card, [path])["rows"] == 400


def test_texts_for_missing_numbers_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(as_text(",", missing="NULL"))
    card = drafted(path, tmp_path)
    assert card.format.null_values == ("", "NULL")
    assert "age" in card.numeric
    assert summarise(card, [path])["numeric"][0]["missing"] == 1 / 400


def test_infinite_numbers_are_cut_by_the_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(as_text(",", missing="inf"))
    assert drafted(path, tmp_path).columns.numeric[0].inf == "clip"


def test_parquet_leaves_lists_out_of_the_features(tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    pq.write_table(pa.table({"tags": [["a", "b"]] * 400, **table()}), path)
    card = drafted(path, tmp_path)
    assert (card.format.kind, card.numeric, card.label.column) == ("parquet", ("age",), "click")
    assert card.columns.ignore == ("user", "tags")
    assert summarise(card, [path])["rows"] == 400


def test_normal_comes_first_among_the_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,class\n" + "".join(f"{k}.5,{['attack', 'benign', 'scan'][k % 3]}\n" for k in range(90)))
    assert drafted(path, tmp_path).label.classes == ("benign", "attack", "scan")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("only\n1\n2\n", "a table needs a label, a feature and rows"),
        ("a,b\n" + "".join(f"{k},{k}\n" for k in range(200)), "none can be the label"),
    ],
)
def test_what_cannot_be_drafted_is_said(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=what):
        draft_card(path)
    with pytest.raises(DataError, match="no such file"):
        draft_card(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("file", "label", "rows"),
    [
        ("criteo/criteo_head10k_raw.tsv.gz", "column_1", 10_000),
        ("msu_gas/gas_pipeline_10pct.arff.gz", "result", 10_619),
        ("hil_power_system/power_system_head527.csv", "marker", 527),
    ],
)
def test_real_files(real_data: Path, tmp_path: Path, file: str, label: str, rows: int) -> None:
    card = drafted(real_data / file, tmp_path)
    assert card.label.column == label
    assert summarise(card, [real_data / file])["rows"] == rows
    assert yaml.safe_load((tmp_path / "draft.yaml").read_text())["title"] == Path(file).name


def test_parquet_columns_that_have_no_text_are_ignored(tmp_path: Path) -> None:
    """Lists, durations, and bytes that are not UTF-8."""
    columns = table()
    odd = {
        "spent": pa.array([k * 1000 for k in range(400)], pa.duration("ms")),
        "blob": pa.array([bytes([255, k % 256]) for k in range(400)], pa.binary()),
        "words": pa.array([["a", "b"]] * 400),
    }
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({**odd, **{name: pa.array(values) for name, values in columns.items()}}), path)
    card = drafted(path, tmp_path)
    assert set(card.columns.ignore) == {"user", *odd}
    assert summarise(card, [path])["rows"] == 400


def test_a_column_that_comes_twice_is_told(tmp_path: Path) -> None:
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([0, 1]), pa.array([1, 2]), pa.array([0, 1])], ["x", "x", "y"]), path)
    with pytest.raises(DataError, match="the file has this column twice") as caught:
        draft_card(path)
    assert [(one.file, one.column) for one in caught.value.problems] == [(str(path), "x")]
    text = tmp_path / "twice.csv"
    text.write_text("a,b,c,c,y\n" + "".join(f"{k},{k},u{k % 3},v,{k % 2}\n" for k in range(50)))
    assert "# The first row has 'c' twice, and is taken for data" in draft_card(text)
    text.write_text('a,"c\nd","c\nd",y\n' + "".join(f"{k},v,w,{k % 2}\n" for k in range(50)))
    assert "The first row has 'c\\nd' twice" in draft_card(text), "a line of a comment stays one"
    text.write_text("a,b,c,d,y\n" + "".join(f"{k},{k},u{k % 3},v,{k % 2}\n" for k in range(50)))
    assert "The first row" not in draft_card(text)
