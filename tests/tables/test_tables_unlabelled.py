"""Rows without a label: which texts mean it, where such rows may be, what is counted and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from encoded_tables import Engine, csv_card, encode_csv, entries, shards, write_csv
from raw_files import card_data, make_card, refused, rows, write, write_parquet

from tgeokd_ray.artifacts import Artifact, open_artifact
from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import EncodedTable
from tgeokd_ray.tables.cards import LABEL, SPLITS, Card
from tgeokd_ray.tables.check import summarise
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.validation import validated

ROWS = range(900)
DISTILL = {"column": "y", "classes": ["no", "yes"], "missing": "distill", "unlabelled": ["-1", "?"]}
PARTS = {"teacher": 0.2, "train": 0.5, "outer": 0.1, "valid": 0.1, "test": 0.1}
HASHED = {"kind": "hash", "salt": "a", "parts": PARTS}


def hidden(n: int) -> bool:
    """Two thirds of the rows, of both classes."""
    return n % 9 > 2


def label(n: int, nothing: str = "") -> str:
    return nothing if hidden(n) else ("no", "yes")[n % 3 == 0]


def card(**changes: Any) -> Card:
    ids = {"kind": "column", "column": "id"}
    return csv_card(**{"label": DISTILL, "row_id": ids, "splits": HASHED, **changes})


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("raw") / "a.csv", ROWS, y=label)


@pytest.fixture(scope="module")
def table(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return encode_csv(card(), [raw], tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The same rows, all with their labels."""
    folder = tmp_path_factory.mktemp("whole")
    named = card(label={"column": "y", "classes": ["no", "yes"]})
    return encode_csv(named, [write_csv(folder / "a.csv", ROWS)], folder)


class TestReading:
    def test_an_empty_label_and_the_texts_named_mean_none(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f", "y,x,c\nno,1,a\n,1,a\n-1,1,a\n?,1,a\nyes,1,a\n")
        assert rows(make_card(label=DISTILL), path, LABEL) == [(0,), (-1,), (-1,), (-1,), (1,)]

    def test_parquet_labels_of_numbers(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "f", {"y": [0, None, -1, 1], "x": [1.0] * 4, "c": ["a"] * 4})
        numbers = {**DISTILL, "classes": ["0", "1"]}
        assert rows(make_card("parquet", label=numbers), path, LABEL) == [(0,), (-1,), (-1,), (1,)]

    def test_another_text_is_an_error_as_ever(self, tmp_path: Path) -> None:
        error = refused(make_card(label=DISTILL), write(tmp_path / "f", "y,x,c\nno,1,a\n-2,1,a\n"))
        assert str(error.problems[0]).endswith("not one of the classes; expected one of 'no', 'yes'; got '-2'")

    def test_without_the_key_a_missing_label_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        error = refused(make_card(), write(tmp_path / "f", "y,x,c\nno,1,a\n,1,a\n"))
        assert "`missing: distill` under label in the card" in str(error)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"unlabelled": ["yes"]}, "label: unlabelled: text 'yes' means a class"),
            ({"missing": "error"}, "label: unlabelled needs missing: distill"),
            ({"missing": "drop"}, "label.missing must be 'error' or 'distill', got 'drop'"),
        ],
    )
    def test_rules_of_the_card(self, changes: dict[str, Any], told: str) -> None:
        with pytest.raises(ConfigError) as caught:
            validated(Card, card_data(label={**DISTILL, **changes}), "card.yaml")
        assert told in str(caught.value)

    def test_a_card_without_the_keys_is_written_as_before(self) -> None:
        assert set(make_card().digest_arguments()["label"]) == {"column", "classes", "mapping", "negative"}
        assert make_card(label=DISTILL).digest_arguments() != make_card().digest_arguments()


class TestTable:
    def test_train_keeps_such_rows_and_other_splits_lose_them(self, table: Artifact, whole: Artifact) -> None:
        for split in SPLITS:
            before, after = shards(whole, split), shards(table, split)
            kept = [n for n in before["row_id"].to_pylist() if split == "train" or not hidden(n)]
            assert after["row_id"].to_pylist() == kept
            expected = [-1 if hidden(n) else int(n % 3 == 0) for n in kept]
            assert after["label"].to_pylist() == expected

    def test_they_are_counted_and_in_no_class(self, table: Artifact, whole: Artifact) -> None:
        schema, before = table.manifest.schema, whole.manifest.schema
        ids = shards(table, "train")["row_id"].to_pylist()
        assert schema["unlabelled"] == {"train": sum(map(hidden, ids))}
        assert schema["rows"]["train"] == before["rows"]["train"]
        others = [split for split in SPLITS if split != "train"]
        assert schema["left_out"] == {split: before["rows"][split] - schema["rows"][split] for split in others}
        known = [n for n in ids if not hidden(n)]
        encoded = EncodedTable.open(table.path)
        assert encoded.label_counts("train").tolist() == [sum(n % 3 > 0 for n in known), sum(n % 3 == 0 for n in known)]
        assert encoded.splits == schema["rows"]
        assert not {"unlabelled", "left_out"} & set(before)

    def test_units_know_which_of_their_rows_have_a_label(self, table: Artifact) -> None:
        for entry in entries(table):
            labels = pq.read_table(table.file(entry.path))["label"].to_numpy()
            groups = np.split(labels, np.cumsum(entry.extra["groups"])[:-1])
            none = [int((group < 0).sum()) for group in groups]
            assert entry.extra.get("unlabelled", [0] * len(groups)) == none
            assert entry.extra["labels"] == [[int((group == c).sum()) for c in (0, 1)] for group in groups]

    def test_encoding_says_how_many(self, raw: Path, table: Artifact, tmp_path: Path) -> None:
        heard = Silent()
        encode(card(), [raw], tmp_path, Engine(), heard)
        lost = table.manifest.schema["left_out"]
        left_out = ", ".join(f"{lost[split]} of {split}" for split in SPLITS if split in lost)
        assert f"rows without a label are left out: {left_out}; only train may hold such rows" in heard.warnings
        summary = summarise(card(), [raw])
        assert summary["warnings"] == heard.warnings
        counts = {row["split"]: (row["rows"], row["unlabelled"]) for row in summary["splits"]}
        unlabelled = table.manifest.schema["unlabelled"]["train"]
        assert counts["train"] == (table.manifest.schema["rows"]["train"], unlabelled)
        assert {counts[split][1] for split in SPLITS if split != "train"} == {0}

    def test_what_stands_in_place_of_a_label_changes_nothing_but_the_raw_digest(
        self, table: Artifact, tmp_path: Path
    ) -> None:
        other = write_csv(tmp_path / "a.csv", ROWS, y=lambda n: label(n, ("-1", "?", "")[n % 3]))
        found = encode_csv(card(), [other], tmp_path)
        assert [(e.path, e.sha256, e.extra) for e in entries(found)] == [
            (e.path, e.sha256, e.extra) for e in entries(table)
        ]
        assert found.manifest.schema == table.manifest.schema
        one, two = (dict(open_artifact(a.path).manifest.arguments) for a in (found, table))
        assert one.pop("raw") != two.pop("raw")
        assert one == two

    def test_a_class_whose_train_rows_have_no_label_is_refused(self, tmp_path: Path) -> None:
        raw = write_csv(tmp_path / "a.csv", ROWS, y=lambda n: "" if n % 3 == 0 else "no")
        with pytest.raises(DataError, match="no train row is of class 'yes'"):
            encode_csv(card(), [raw], tmp_path)

    def test_a_row_without_a_label_is_never_trusted(self, raw: Path, tmp_path: Path) -> None:
        trusted = {"column": "c", "values": ["v0", "v1"]}
        parts = {"teacher": 0.3, "train": 0.5, "test": 0.2}
        splits = {**HASHED, "parts": parts, "trusted": trusted}
        found = encode_csv(card(splits=splits, columns={"numeric": ["x"], "others": "ignore"}), [raw], tmp_path)
        ids = [n for split in ("outer", "valid") for n in shards(found, split)["row_id"].to_pylist()]
        assert ids
        assert not any(hidden(n) or n % 5 > 1 for n in ids)
        assert any(hidden(n) and n % 5 < 2 for n in shards(found, "train")["row_id"].to_pylist())

    def test_a_table_that_grows_adds_them_up(self, raw: Path, table: Artifact, tmp_path: Path) -> None:
        more = write_csv(tmp_path / "b.csv", range(900, 1000), y=label)
        base = encode_csv(card(), [raw], tmp_path)
        grown, _ = encode(card(), [more], tmp_path, Engine(), Silent(), onto=base)
        expected = encode_csv(card(), [raw, more], tmp_path / "whole").manifest.schema
        for fact in ("rows", "unlabelled", "left_out"):
            assert grown.manifest.schema[fact] == expected[fact] != table.manifest.schema[fact]
