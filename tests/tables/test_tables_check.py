"""`tgeokd check`: what it says of a table, and that it complains as encoding does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tgeokd_ray.errors import DataError
from tgeokd_ray.tables.cards import Card, load_card
from tgeokd_ray.tables.check import in_brief, summarise

CARD = {
    "name": "small",
    "format": {"kind": "csv"},
    "label": {"column": "label", "classes": ["0", "1"], "display": {"1": "click"}},
    "columns": {"numeric": ["x"], "categorical": [{"name": "site"}, {"name": "user", "buckets": 8}]},
    "splits": {"kind": "hash", "salt": "s", "parts": {"train": 0.5, "test": 0.5}},
}
HEADER = "label,x,site,user\n"


def card(**changes: object) -> Card:
    return Card.model_validate({**CARD, **changes})


def write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def test_summary_counts_what_is_there(tmp_path: Path) -> None:
    rows = [f"{k % 2},{k if k % 4 else ''},{'a' if k % 10 else 'b'},u{k}" for k in range(200)]
    summary = summarise(card(), [write(tmp_path / "a.csv", rows)])
    assert summary["rows"] == 200
    assert sum(split["rows"] for split in summary["splits"]) == 200
    assert sum(split["click"] for split in summary["splits"]) == 100
    known = [k for k in range(200) if k % 4]
    (numeric,) = summary["numeric"]
    assert (numeric["missing"], numeric["least"], numeric["greatest"]) == (0.25, 1.0, 199.0)
    assert numeric["mean"] == pytest.approx(sum(known) / len(known))
    site, user = summary["categorical"]
    assert site == {"column": "site", "missing": 0.0, "values": 2, "first": "a", "share": 0.9}
    assert user["values"] is None, "a hashed column is not counted"
    assert summary["warnings"] == []


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.csv", ["0,1,a,u", "7,1,a,u"]), write(tmp_path / "b.csv", ["0,x,a,u", "1,y,a,u"])]
    with pytest.raises(DataError) as caught:
        summarise(card(), files)
    assert caught.value.total == 3
    places = [(Path(p.file or "").name, p.column, p.row) for p in caught.value.problems]
    assert places == [("a.csv", "label", 2), ("b.csv", "x", 1), ("b.csv", "x", 2)]


def test_d9_n4_repeated_row_ids_and_missing_classes_are_told(tmp_path: Path) -> None:
    ids = {"row_id": {"kind": "column", "column": "id", "type": "text"}}
    rows = [f"{k % 2},1,a,u,id-{k % 99}" for k in range(100)]
    path = write(tmp_path / "a.csv", rows, "label,x,site,user,id\n")
    with pytest.raises(DataError, match="another row has this row id") as caught:
        summarise(card(**ids), [path])
    assert caught.value.problems[0].row == 100
    with pytest.raises(DataError, match="no train row is of class '1'"):
        summarise(card(), [write(tmp_path / "b.csv", ["0,1,a,u"] * 50)])


def test_a_copy_is_compared_with_the_published_one(tmp_path: Path) -> None:
    path = write(tmp_path / "clicks.csv", [f"{k % 2},1,a,u" for k in range(50)])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    good = card(checks={"rows": {"clicks*": 50}, "sha256": {"clicks*": digest}})
    assert not [text for text in summarise(good, [path])["warnings"] if "published" in text]
    bad = card(checks={"rows": {"clicks*": 51}, "sha256": {"clicks*": "0" * 64}})
    told = [text for text in summarise(bad, [path])["warnings"] if "published" in text]
    assert told[0] == "clicks.csv has 50 rows, the published copy 51"
    assert len(told) == 2


def test_files_that_belong_together_are_compared_as_a_whole(tmp_path: Path) -> None:
    files = [write(tmp_path / f"clicks-{k}.csv", [f"{k % 2},1,a,u" for k in range(50)]) for k in (1, 2)]
    both = card(checks={"total": {"clicks-*": 100, "views-*": 7}})
    assert summarise(both, files)["warnings"] == []
    assert summarise(both, files[1:])["warnings"] == ["1 files clicks-* have 50 rows, the published ones 100"]


def test_of_many_classes_a_terminal_is_told_how_many_and_how_large(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(13)]
    many = card(label={"column": "label", "classes": names, "display": {"c1": "click"}})
    path = write(tmp_path / "a.csv", [f"c{k % 13 if k % 5 else 0},1,a,u" for k in range(650)])
    whole = summarise(many, [path])
    assert len(whole["splits"][0]) == 2 + 13, "every class for who reads --json"
    brief = in_brief(many, whole)
    assert {key: value for key, value in brief.items() if key != "splits"}.items() <= whole.items()
    for short, row in zip(brief["splits"], whole["splits"], strict=True):
        counts = [row["click" if name == "c1" else name] for name in names]
        assert short == {
            **{"split": row["split"], "rows": row["rows"], "classes with rows": 13 if row["rows"] else 0},
            **{"fewest": min(counts), "most": max(counts)},
        }
    few = summarise(card(), [write(tmp_path / "b.csv", [f"{k % 2},1,a,u" for k in range(50)])])
    assert in_brief(card(), few) == few


def test_the_packaged_table_is_summarised_without_files() -> None:
    synthetic = load_card("synthetic_ctr")
    small = synthetic.model_copy(update={"format": synthetic.format.model_copy(update={"rows": 3000})})
    assert summarise(small, [])["rows"] == 3000


def test_the_published_nsl_kdd_files_are_recognised(real_data: Path) -> None:
    files = [real_data / "nsl_kdd" / f"{name}.txt.gz" for name in ("KDDTrain+", "KDDTest+")]
    datasets = Path(__file__).parents[2] / "datasets"
    assert summarise(load_card(datasets / "nsl_kdd.yaml"), files)["warnings"] == []


def test_splits_without_rows_and_rows_without_a_split_are_told(tmp_path: Path) -> None:
    """Where a column names the splits, a name that is misspelt is no error: such rows are unused."""
    rows = [f"{k % 2},{k},a,u{k},{['train', 'test', 'validation', 'outer', ''][k % 5]}" for k in range(100)]
    file = write(tmp_path / "a.csv", rows, "label,x,site,user,part\n")
    named = card(splits={"kind": "column", "column": "part", "salt": "s"})
    expected = ["no row goes to the split valid", "40 rows go to no split, for their part names none"]
    assert summarise(named, [file])["warnings"] == expected
    parts = {"train": 0.5, "test": 0.4999, "valid": 0.0001}
    columns = {"numeric": ["x"], "categorical": ["site", "user"], "ignore": ["part"]}
    by_hash = card(splits={"kind": "hash", "salt": "s", "parts": parts}, columns=columns)
    assert summarise(by_hash, [file])["warnings"] == ["no row goes to the split valid"]
    shares = {"kind": "hash", "salt": "s", "parts": {"train": 0.5, "test": 0.2}}  # the rest is unused on purpose
    assert summarise(card(splits=shares, columns=columns), [file])["warnings"] == []


def test_rows_left_out_for_want_of_a_label_are_not_rows_without_a_split(tmp_path: Path) -> None:
    rows = [
        f"{'' if k % 10 == 1 else k // 4 % 2},{k},a,u{k},{['train', 'test', 'valid', 'outer'][k % 4]}"
        for k in range(100)
    ]
    file = write(tmp_path / "a.csv", rows, "label,x,site,user,part\n")
    label = {"column": "label", "classes": ["0", "1"], "missing": "distill"}
    by_column = card(splits={"kind": "column", "column": "part", "salt": "s"}, label=label)
    warnings = summarise(by_column, [file])["warnings"]
    assert sum("without a label are left out" in text for text in warnings) == 1
    assert not any("no split" in text for text in warnings)
