"""Trusted rows: how a card names them, where they go, what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded_tables import Engine, csv_card, encode_csv, shards, write_csv
from raw_files import card_data

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.tables.cards import SPLITS, Card
from tgeokd_ray.tables.check import summarise
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.validation import validated

ROWS = range(3000)
PARTS = {"teacher": 0.4, "train": 0.35, "test": 0.2}  # a twentieth is unused
MADE = {
    "audited": lambda n: ("yes", "no", "", "checked")[n % 4],
    "day": lambda n: "" if n % 50 == 0 else f"2024-03-{1 + n % 25:02d}T08:00:00",
    "part": lambda n: SPLITS[n % 5],
}
OTHERS = {"kind": "hash", "salt": "a", "parts": PARTS}


def hashed(**trusted: Any) -> Card:
    return csv_card(row_id={"kind": "column", "column": "id"}, splits={**OTHERS, "trusted": trusted})


def ids(table: Artifact, *splits: str) -> set[int]:
    return {
        n
        for split in splits
        for n in shards(table, split)["row_id"].to_pylist()
        if table.manifest.schema["rows"][split]
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("raw") / "audit-1.csv", ROWS, **MADE)


@pytest.fixture(scope="module")
def plain(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The same rows without a word about trust."""
    card = csv_card(row_id={"kind": "column", "column": "id"}, splits=OTHERS)
    return encode_csv(card, [raw], tmp_path_factory.mktemp("plain"))


DAYS = {n for n in ROWS if n % 50 and 20 <= 1 + n % 25 < 23}
WAYS = {
    "column": ({"column": "audited"}, {n for n in ROWS if n % 4 == 0}),
    "values": ({"column": "audited", "values": ["yes", "checked"]}, {n for n in ROWS if n % 4 in {0, 3}}),
    "times": ({"column": "day", "time": "timestamp", "since": "2024-03-20", "until": "2024-03-23"}, DAYS),
    "files": ({"files": ["audit-*"]}, set(ROWS)),
}


@pytest.mark.parametrize(("trusted", "expected"), WAYS.values(), ids=WAYS)
def test_trusted_rows_alone_are_in_outer_and_valid(
    raw: Path, plain: Artifact, tmp_path: Path, trusted: dict[str, Any], expected: set[int]
) -> None:
    """Those that the splits send to test stay there, all others leave where they were, and no other row moves."""
    if "files" in trusted:  # the train rows come from another file
        other = write_csv(tmp_path / "other.csv", range(3000, 3400), **MADE)
        table = encode_csv(hashed(**trusted), [raw, other], tmp_path)
    else:
        table = encode_csv(hashed(**trusted), [raw], tmp_path)
    tested = ids(plain, "test")
    assert ids(table, "outer", "valid") == expected - tested
    assert tested <= ids(table, "test")
    assert ids(table, "teacher") & set(ROWS) == ids(plain, "teacher") - expected
    assert ids(table, "train") & set(ROWS) == ids(plain, "train") - expected
    share = len(ids(table, "outer")) / len(expected - tested)
    assert abs(share - 0.5) < 4 * (0.25 / len(expected - tested)) ** 0.5
    schema = table.manifest.schema
    rows = {split: len(ids(table, split) & expected) for split in ("outer", "valid", "test")}
    assert schema["trusted"].pop("rows") == rows
    assert set(schema["trusted"]) == set(trusted)


def test_shares_may_name_test_and_leave_rows_unused(raw: Path, tmp_path: Path) -> None:
    card = hashed(column="audited", parts={"outer": 0.3, "valid": 0.2, "test": 0.25})
    table = encode_csv(card, [raw], tmp_path)
    rows = table.manifest.schema["trusted"]["rows"]
    moved = 750 * 0.8  # a fifth was in test before
    for split, share in (("outer", 0.3), ("valid", 0.2)):
        assert abs(rows[split] - share * moved) < 4 * (share * (1 - share) * moved) ** 0.5
    assert abs(rows["test"] - (150 + 0.25 * moved)) < 4 * (0.2 * 0.8 * 750 + 0.25 * 0.75 * moved) ** 0.5


def test_rows_of_splits_are_trusted_where_they_are(raw: Path, tmp_path: Path) -> None:
    splits = {"kind": "column", "column": "part", "trusted": {"splits": ["outer", "test"]}}
    table = encode_csv(csv_card(splits=splits), [raw], tmp_path)
    assert table.manifest.schema["trusted"] == {"splits": ["outer", "test"], "rows": {"outer": 600, "test": 600}}
    assert table.manifest.schema["rows"] == dict.fromkeys(SPLITS, 600)


@pytest.mark.parametrize("trusted", [*(way for way, _ in WAYS.values()), {"splits": ["outer"]}], ids=str)
def test_a_card_is_read_as_it_was_written(trusted: dict[str, Any]) -> None:
    card = csv_card(splits={"kind": "hash", "parts": PARTS, "trusted": trusted})
    assert Card.model_validate(card.model_dump(mode="json")) == card


def test_without_a_declaration_nothing_is_said(plain: Artifact) -> None:
    assert "trusted" not in plain.manifest.schema
    card = csv_card(splits=OTHERS)
    assert "trusted" not in str(card.digest_arguments())
    assert hashed(column="audited").digest_arguments() != hashed(column="audited", values=["yes"]).digest_arguments()


@pytest.mark.parametrize(("rows", "few"), [(2000, ""), (1100, "yes"), (700, "no yes")])
def test_few_trusted_rows_are_told_by_encode_and_check(tmp_path: Path, rows: int, few: str) -> None:
    """Every fourth row is audited, four fifths of those are not in test, a third of those of class yes."""
    raw = write_csv(tmp_path / "a.csv", range(rows), **MADE)
    card, heard = hashed(column="audited"), Silent()
    table, _ = encode(card, [raw], tmp_path, Engine(), heard)
    found = ids(table, "outer", "valid")
    counts = {"no": sum(n % 3 > 0 for n in found), "yes": sum(n % 3 == 0 for n in found)}
    parts = [f"{len(found)} in outer and valid", *(f"{counts[name]} of class {name}" for name in few.split())]
    told = f"few trusted rows: {', '.join(parts)}; 200 in all and 100 of each class are wanted"
    assert [text for text in heard.warnings if "trusted" in text] == ([told] if few else [])
    summary = summarise(card, [raw])
    assert summary["warnings"] == heard.warnings
    counted = {row["split"]: row["trusted"] for row in summary["splits"] if row["trusted"]}
    assert counted == table.manifest.schema["trusted"]["rows"]


def test_nothing_trusted_is_refused(raw: Path, tmp_path: Path) -> None:
    card = hashed(column="audited", values=["sure"])
    for act in (lambda: encode_csv(card, [raw], tmp_path), lambda: summarise(card, [raw])):
        with pytest.raises(DataError, match="no row of the splits outer and valid is trusted: column audited"):
            act()


def test_a_table_that_grows_adds_them_up(raw: Path, tmp_path: Path) -> None:
    card = hashed(column="audited")
    base = encode_csv(card, [raw], tmp_path)
    more = write_csv(tmp_path / "audit-2.csv", range(3000, 3100), **MADE)
    grown, _ = encode(card, [more], tmp_path, Engine(), Silent(), onto=base)
    whole = encode_csv(card, [raw, more], tmp_path / "whole")
    assert grown.manifest.schema["trusted"] == whole.manifest.schema["trusted"]
    assert grown.manifest.schema["trusted"] != base.manifest.schema["trusted"]


BY = {"column": "audited"}
PROBLEMS = {
    "no way": ({}, "needs one of column, files and splits, got none"),
    "two ways": ({**BY, "files": ["a*"]}, "needs one of column, files and splits, got column and files"),
    "values alone": ({"files": ["a*"], "values": ["1"]}, "values needs a column"),
    "values of times": ({**BY, "values": ["1"], "since": 5}, "values and a range of times exclude each other"),
    "time of values": ({**BY, "time": "timestamp"}, "time needs since or until"),
    "no range": ({**BY, "since": 5, "until": 5}, "since must be before until"),
    "to train": ({**BY, "parts": {"outer": 0.5, "valid": 0.4, "train": 0.1}}, "trusted rows do not go to train"),
    "no valid": ({**BY, "parts": {"outer": 1.0}}, "parts: valid needs a share"),
    "parts of splits": ({"splits": ["outer"], "parts": {"outer": 0.3, "valid": 0.3}}, "splits take no parts"),
    "times alone": ({"files": ["a*"], "until": 5}, "a range of times needs a column"),
    "strange split": ({"splits": ["train"]}, "splits.trusted.splits.0 must be 'outer', 'valid' or 'test'"),
}


def problems(splits: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validated(Card, card_data(splits=splits, **changes), "card.yaml")
    return str(caught.value)


@pytest.mark.parametrize(("trusted", "told"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_declaration_that_says_nothing_clear_is_refused(trusted: dict[str, Any], told: str) -> None:
    assert told in problems({**OTHERS, "trusted": trusted})


def test_the_rest_of_the_card_must_fit() -> None:
    shares = {**OTHERS, "parts": {"train": 0.6, "outer": 0.2, "valid": 0.2}}
    assert "trusted rows alone go to outer" in problems({**shares, "trusted": BY})
    named = {"kind": "column", "column": "part", "trusted": BY}
    assert "say which of them are trusted (trusted.splits)" in problems(named)
    assert "'audited' names splits or trust" in problems({**OTHERS, "trusted": BY}, columns={"numeric": ["audited"]})
    periods = {"kind": "time", "column": "t", "time": "timestamp", "periods": [{"to": "train"}]}
    found = problems({**periods, "trusted": {"column": "t", "since": 5}})
    assert "time must be timestamp, as the splits read 't'" in found


def test_where_a_trusted_row_goes_does_not_depend_on_where_it_was(raw: Path, plain: Artifact, tmp_path: Path) -> None:
    table = encode_csv(hashed(column="audited"), [raw], tmp_path)
    outer, teacher, train = ids(table, "outer"), ids(plain, "teacher"), ids(plain, "train")
    shares = [np.mean([n in outer for n in sorted(before & WAYS["column"][1])]) for before in (teacher, train)]
    assert all(abs(share - 0.5) < 0.13 for share in shares)
