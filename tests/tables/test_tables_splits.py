"""Splits that a column names, and the end of a period by time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded_tables import csv_card, encode_csv, shards, write_csv
from raw_files import card_data, make_card, refused, write_parquet

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import SPLITS, Card
from tgeokd_ray.tables.ids import UNUSED, assign_splits
from tgeokd_ray.tables.validation import validated

NAMED = {"kind": "column", "column": "part"}
SHARES = {"teacher": 0.4, "train": 0.3, "outer": 0.1}
IDS = np.arange(40_000, dtype=np.int64)


def problems(splits: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validated(Card, card_data(splits=splits, **changes), "card.yaml")
    return str(caught.value)


def periods(*items: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "time", "column": "t", "periods": list(items)}


class TestColumn:
    def test_rows_go_where_it_says_and_others_are_unused(self, tmp_path: Path) -> None:
        parts = ("teacher", "train", "train", "outer", "valid", "test", "", "spare")
        raw = write_csv(tmp_path / "a.csv", range(200), part=lambda n: parts[n % 8])
        table = encode_csv(csv_card(splits=NAMED, row_id={"kind": "column", "column": "id"}), [raw], tmp_path)
        for split in SPLITS:
            ids = shards(table, split)["row_id"].to_pylist()
            assert ids == [n for n in range(200) if parts[n % 8] == split]
        assert table.manifest.schema["rows"] == {"teacher": 25, "train": 50, "outer": 25, "valid": 25, "test": 25}

    def test_it_is_no_feature_and_names_everything(self) -> None:
        assert "'part' names splits or trust, it cannot be a feature" in problems(
            NAMED, columns={"categorical": ["part"]}
        )
        assert "kind column takes no parts" in problems({**NAMED, "parts": {"train": 1.0}})
        assert "kind column needs column" in problems({"kind": "column"})

    def test_a_synthetic_table_has_no_such_column(self) -> None:
        found = problems(NAMED, format={"kind": "synthetic", "rows": 9})
        assert "a synthetic table has no column 'part'" in found


class TestLatest:
    def test_the_end_of_a_period_is_the_split_that_is_named(self) -> None:
        given = periods({"since": 100, "until": 200, "to": SHARES, "latest": "outer"}, {"to": "test"})
        rules = make_card(splits=given).split_rules
        times = np.linspace(50, 250, len(IDS), endpoint=False)
        codes = assign_splits(rules, IDS, "f", times)
        outer = SPLITS.index("outer")
        assert (codes[times < 100] == UNUSED).all()
        assert (codes[(times >= 190) & (times < 200)] == outer).all()
        assert not (codes[times < 190] == outer).any()
        assert (codes[times >= 200] == SPLITS.index("test")).all()
        inside = codes[(times >= 100) & (times < 200)]
        for split, share in SHARES.items():  # the rest of them by hash, with the shares that the card names
            assert abs((inside == SPLITS.index(split)).mean() - share) < 0.02

    def test_a_period_begins_where_the_one_before_ends(self) -> None:
        latest = {"until": 20, "to": {"train": 0.75, "valid": 0.25}, "latest": "valid"}
        rules = make_card(splits=periods({"until": 10, "to": "train"}, latest, {"to": "test"})).split_rules
        assert rules["periods"] == [[10.0, "train"], [17.5, {"train": 1.0}], [20.0, "valid"], [None, "test"]]

    @pytest.mark.parametrize(
        ("items", "told"),
        [
            ([{"until": 9, "to": SHARES, "latest": "outer"}], "needs a period with an end (until) and a beginning"),
            ([{"since": 1, "to": SHARES, "latest": "outer"}], "needs a period with an end (until) and a beginning"),
            ([{"since": 1, "until": 9, "to": "train", "latest": "outer"}], "'outer' must be one of several splits in"),
            ([{"since": 1, "until": 9, "to": SHARES, "latest": "valid"}], "'valid' must be one of several splits in"),
            ([{"since": 9, "until": 9, "to": "train"}], "periods.0: since must be before until"),
            ([{"until": 9, "to": "train"}, {"since": 0, "to": "test"}], "periods.1: since is for the first period"),
            ([{"since": 1, "until": 9, "to": SHARES, "latest": "train"}], "latest must be 'outer', 'valid' or 'test'"),
        ],
    )
    def test_what_it_needs_is_told(self, items: list[dict[str, Any]], told: str) -> None:
        assert told in problems(periods(*items))

    def test_a_card_is_read_as_it_was_written(self) -> None:
        card = make_card(splits=periods({"since": 1, "until": 9, "to": SHARES, "latest": "outer"}, {"to": "test"}))
        assert Card.model_validate(card.model_dump(mode="json")) == card

    def test_a_card_without_it_is_written_as_before(self) -> None:
        card = make_card(splits=periods({"until": 9, "to": "train"}, {"to": "test"}))
        assert not {"since", "latest"} & set(str(card.digest_arguments()).replace("'", " ").split())
        other = make_card(splits=periods({"since": 1, "until": 9, "to": "train"}, {"to": "test"}))
        assert other.digest_arguments() != card.digest_arguments()


def test_a_time_in_a_column_of_numbers_names_the_key(tmp_path: Path) -> None:
    trusted = {"column": "t", "since": 5}
    splits = {"parts": {"train": 0.6, "test": 0.4}, "trusted": trusted}
    moments = np.array(["2024-01-31"], dtype="datetime64[us]")
    path = write_parquet(tmp_path / "f", {"y": ["no"], "x": [1.0], "c": ["a"], "t": moments})
    error = refused(make_card("parquet", splits=splits), path)
    assert "set splits.trusted.time: timestamp" in str(error)
