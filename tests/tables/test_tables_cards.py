"""Dataset cards: every rule of every part, all problems at once."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from raw_files import card_data

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import Card, Format
from tgeokd_ray.tables.validation import validated

NUMBER = {"numeric": ["x"]}
LABEL = {"column": "y", "classes": ["no", "yes"]}
HASHED = {"kind": "hash", "parts": {"train": 0.6}}


def card(**changes: Any) -> Card:
    return Card.model_validate(card_data(**changes))


def told(data: dict[str, Any]) -> list[str]:
    """Every problem of a card, as text."""
    with pytest.raises(ConfigError) as caught:
        validated(Card, data, "card.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.fix == "correct card.yaml"
    assert all(problem.file == "card.yaml" for problem in caught.value.problems)
    return [problem.what for problem in caught.value.problems]


def named(*names: str) -> dict[str, Any]:
    return {"kind": "csv", "header": False, "names": list(names)}


def times(*periods: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "time", "column": "t", "periods": list(periods), **more}


RULES = {
    "splits_": ({"splits_": {}}, "unknown key 'splits_'; did you mean 'splits'?"),
    "formt": ({"format": {"kind": "csv", "heder": False}}, "unknown key 'heder' in format; did you mean 'header'?"),
    "far key": ({"format": {"kind": "csv", "zzz": 1}}, "unknown key 'zzz' in format"),
    "column key": (
        {"columns": {"numeric": [{"name": "x", "knd": 1}]}},
        "unknown key 'knd' in columns.numeric.0; did you mean 'kind'?",
    ),
    "encoding": ({"encoding": {"numeric": {"nan": "drop"}}}, "encoding.numeric.nan must be 'missing' or 'error', got"),
    "name": ({"name": "../x"}, "name "),
    "no label": ({"label": None}, "label is missing"),
    "feature and label": ({"columns": {"numeric": ["y"]}}, "label.column: 'y' cannot be a feature too"),
    "feature and weight": ({"weight": "x"}, "weight: 'x' cannot be a feature too"),
    "feature and id": ({"row_id": {"kind": "column", "column": "x"}}, "row_id.column: 'x' cannot be a feature too"),
    "ignored label": ({"columns": {**NUMBER, "ignore": ["y"]}}, "label.column: 'y' cannot be ignored"),
    "two roles": ({"weight": "y"}, "'y' has two roles of label, row id and weight"),
    "reserved": ({"columns": {"numeric": ["@label"]}}, "columns: the name '@label' is reserved"),
    "lossy name": (
        {"format": named("y", "xx", "c")},
        "column 'x' is not in format.names; did you mean 'xx'?",
    ),
    "roleless": ({"format": named("y", "x", "c", "z")}, "format.names: 'z' has no role; ignore it or name it under"),
    "arff separator": ({"format": {"kind": "arff", "separator": ","}}, "format: kind arff takes no separator"),
    "parquet quote": ({"format": {"kind": "parquet", "quote": "'"}}, "format: kind parquet takes no quote"),
    "arff header": ({"format": {"kind": "arff", "header": False}}, "format: kind arff takes no header"),
    "long mark": ({"format": {"kind": "csv", "separator": "::"}}, "format: separator must be one ASCII character"),
    "newline mark": ({"format": {"kind": "csv", "quote": "\n"}}, "format: quote must be one ASCII character"),
    "no separator": ({"format": {"kind": "csv", "separator": None}}, "format: kind csv needs a separator"),
    "one mark": ({"format": {"kind": "csv", "quote": ","}}, "format: quote and separator are the same"),
    "nameless": ({"format": {"kind": "csv", "header": False}}, "format: header: false needs names"),
    "names": ({"format": {"kind": "csv", "names": ["a"]}}, "format: names are for files without a header row"),
    "names twice": ({"format": named("a", "a")}, "format: names: 'a' is there twice"),
    "rowless": ({"format": {"kind": "synthetic"}}, "format: kind synthetic needs rows"),
    "rows": ({"format": {"kind": "csv", "rows": 9}}, "format: rows are for kind synthetic"),
    "kind": (
        {"format": {"kind": "xlsx"}},
        "format.kind must be 'csv', 'tsv', 'arff', 'parquet', 'synthetic', 'cifar10'",
    ),
    "id column": ({"row_id": {"kind": "column"}}, "row_id: kind column needs a column"),
    "id place": ({"row_id": {"column": "id"}}, "row_id: kind file_row takes no column"),
    "one class": ({"label": {"column": "y", "classes": ["no"]}}, "label.classes "),
    "class twice": ({"label": {"column": "y", "classes": ["a", "b", "a"]}}, "label: class 'a' is listed twice"),
    "mapping": (
        {"label": {**LABEL, "mapping": {"yess": ["1"]}}},
        "label: mapping: 'yess' is not a class; did you mean",
    ),
    "display": ({"label": {**LABEL, "display": {"maybe": "?"}}}, "label: display: 'maybe' is not a class"),
    "negative": ({"label": {**LABEL, "negative": "none"}}, "label: negative: 'none' is not a class"),
    "text twice": ({"label": {**LABEL, "mapping": {"no": ["yes"]}}}, "label: text 'yes' means more than one class"),
    "boolean": ({"label": {**LABEL, "classes": [False, "yes"]}}, "label.classes.0: YAML reads this as False; put the"),
    "column twice": ({"columns": {**NUMBER, "categorical": ["x"]}}, "columns: column 'x' is named twice"),
    "ignored twice": ({"columns": {**NUMBER, "ignore": ["x"]}}, "columns: column 'x' is named twice"),
    "no feature": ({"columns": {"ignore": ["x"]}}, "columns: there is neither a numeric nor a categorical column"),
    "shared": (
        {"columns": {"categorical": [{"name": "a", "shared": "s"}, {"name": "b", "shared": "s", "min_count": 2}]}},
        "columns: columns that share 's' need the same min_count and buckets",
    ),
    "buckets": ({"columns": {"categorical": [{"name": "a", "buckets": 0}]}}, "columns.categorical.0.buckets must be "),
    "split name": ({"splits": {"parts": {"trane": 0.5}}}, "splits.parts: 'trane' is not one of the splits "),
    "shares": ({"splits": {"parts": {"train": 0.6, "test": 0.6}}}, "splits.parts: shares must add up to 1 or less"),
    "share 0": (
        {"splits": {"parts": {"train": 0}}},
        "splits.parts: the share of 'train' must be above 0 and at most 1",
    ),
    "share nan": ({"splits": {"parts": {"train": math.nan}}}, "splits.parts: the share of 'train' must be above 0 and"),
    "share yes": ({"splits": {"parts": {"train": True}}}, "splits.parts: the share of 'train' must be above 0 and at"),
    "no shares": ({"splits": {"parts": [0.5]}}, "splits.parts: must be a mapping from split to share, got [0.5]"),
    "no train": ({"splits": {"parts": {"test": 0.5}}}, "splits: no rows go to train"),
    "needs parts": ({"splits": {"kind": "hash"}}, "splits: kind hash needs parts"),
    "needs files": ({"splits": {"kind": "file"}}, "splits: kind file needs files"),
    "target": ({"splits": {"kind": "file", "files": {"*": "tran"}}}, "splits.files.*: 'tran' is not one of the splits"),
    "takes no": ({"splits": {**HASHED, "column": "t"}}, "splits: kind hash takes no column"),
    "needs column": ({"splits": times({"to": "train"}, column=None)}, "splits: kind time needs column"),
    "order": (
        {"splits": times({"until": 9, "to": "train"}, {"until": 9, "to": "test"})},
        "splits: periods must be in order of `until`, and only the last may lack it",
    ),
    "open period": ({"splits": times({"to": "train"}, {"until": 9, "to": "test"})}, "splits: periods must be in order"),
    "endless": (
        {"splits": times({"until": math.inf, "to": "train"})},
        "splits.periods.0.until must be a finite number",
    ),
    "no time": ({"splits": times({"until": "soon", "to": "train"})}, "splits.periods.0.until: Invalid isoformat"),
}


def test_the_closest_split_is_suggested() -> None:
    hint = "is not one of the splits teacher, train, outer, valid, test; did you mean 'train'?"
    assert told(card_data(splits={"parts": {"trane": 0.5}}))[0] == f"splits.parts: 'trane' {hint}"
    assert told(card_data(splits=times({"to": "tran"})))[0] == f"splits.periods.0.to: 'tran' {hint}"


@pytest.mark.parametrize(("changes", "expected"), RULES.values(), ids=RULES)
def test_a_rule_is_told_once(changes: dict[str, Any], expected: str) -> None:
    found = told(card_data(**changes))
    assert sum(what.startswith(expected) for what in found) == 1, found


def test_all_problems_come_at_once() -> None:
    """One of each part, none hidden behind another part's."""
    data = card_data(
        wieght="w",
        format={"kind": "csv", "quote": ","},
        label={**LABEL, "negative": "none"},
        row_id={"kind": "column"},
        splits={"parts": {"test": 2}},
    )
    assert sorted(text.partition(":")[0] for text in told(data)) == [
        "format",
        "label",
        "row_id",
        "splits.parts",
        "unknown key 'wieght'; did you mean 'weight'?",
    ]


def test_a_wrong_encoding_is_told_once_and_not_for_every_column() -> None:
    data = card_data(columns={"numeric": ["a", "b", "c"]}, encoding={"numeric": {"kind": "log2"}})
    assert told(data) == ["encoding.numeric.kind must be 'log1p', 'quantile', 'standard' or 'as_is', got 'log2'"]


class TestLabel:
    def test_a_mapping_reads_in_both_directions(self) -> None:
        by_text = card(label={**LABEL, "mapping": {"0": "no", "none": "no", 1: "yes"}})
        assert by_text == card(label={**LABEL, "mapping": {"no": ["0", "none"], "yes": ["1"]}})
        assert by_text.label.texts == {"0": 0, "none": 0, "1": 1}

    def test_a_class_without_texts_is_its_own_text(self) -> None:
        assert card(label={**LABEL, "mapping": {"1": "yes"}}).label.texts == {"no": 0, "1": 1}
        assert card(label={"column": "y", "classes": [0, 1.5]}).label.texts == {"0": 0, "1.5": 1}

    def test_the_first_class_is_negative_unless_the_card_says_otherwise(self) -> None:
        assert card().label.negative_index == 0
        assert card(label={**LABEL, "negative": "yes"}).label.negative_index == 1


class TestDefaults:
    @pytest.mark.parametrize(
        ("kind", "separator", "quote"), [("csv", ",", '"'), ("tsv", "\t", None), ("arff", None, None)]
    )
    def test_marks_follow_the_kind(self, kind: str, separator: str | None, quote: str | None) -> None:
        form = Format.model_validate({"kind": kind})
        assert (form.separator, form.quote, form.null_values) == (separator, quote, ("",))
        assert Format.model_validate({"kind": "csv", "quote": None}).quote is None

    def test_encoding_lies_under_the_columns(self) -> None:
        encoding = {"numeric": {"kind": "quantile"}, "categorical": {"min_count": 4}}
        made = card(columns={"numeric": ["a", {"name": "b", "kind": "log1p"}], "categorical": ["c"]}, encoding=encoding)
        assert [column.kind for column in made.columns.numeric] == ["quantile", "log1p"]
        assert made.columns.categorical[0].min_count == 4

    def test_known_columns_are_named_once(self) -> None:
        made = card(weight="w", splits=times({"to": "train"}), row_id={"kind": "column", "column": "t"})
        assert made.known_columns == ("x", "c", "t", "y", "w")

    def test_a_card_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            card().name = "other"  # type: ignore[misc]


class TestSplitRules:
    def test_hash(self) -> None:
        assert card().split_rules == {"kind": "hash", "salt": "a", "parts": {"train": 0.6, "test": 0.4}}

    def test_file_patterns_keep_their_order(self) -> None:
        files = {"b*": {"train": 0.9}, "a*": "test"}
        rules = card(splits={"kind": "file", "files": files}).split_rules
        assert rules == {"kind": "file", "salt": "", "files": [["b*", {"train": 0.9}], ["a*", "test"]]}

    def test_bounds_are_numbers_or_times_in_utc(self) -> None:
        bounds = ["2024-01-31", "2024-01-31T02:00:00+01:00", datetime(2024, 2, 1, tzinfo=UTC), 2e9]
        rules = card(splits=times(*({"until": b, "to": "train"} for b in bounds), {"to": "test"})).split_rules
        midnight = (datetime(2024, 1, 31) - datetime(1970, 1, 1)).total_seconds()
        assert [until for until, _ in rules["periods"]] == [midnight, midnight + 3600, midnight + 86400, 2e9, None]


class TestDigest:
    SAME = (
        {"students": {"small": {"kind": "mlp", "hidden": [8]}}},
        {"title": "t", "terms": "x", "publisher": "p", "citation": "c", "files": ["a"], "name": "other"},
        {"defaults": {"metric": "auc"}, "checks": {"rows": {"a": 1}}},
        {"label": {**LABEL, "display": {"no": "No"}}},
        {"encoding": {"numeric": {"kind": "log1p"}}},
        {"label": {**LABEL, "mapping": {}}},
    )
    OTHER = (
        {"encoding": {"numeric": {"kind": "standard"}}},
        {"encoding": {"categorical": {"min_count": 2}}},
        {"columns": {"numeric": [{"name": "x", "inf": "clip"}], "categorical": ["c"]}},
        {"columns": {"numeric": ["x"], "categorical": ["c"], "others": "ignore"}},
        {"format": {"kind": "csv", "separator": ";"}},
        {"format": {"kind": "csv", "null_values": ["NA"]}},
        {"label": {"column": "y", "classes": ["yes", "no"]}},
        {"label": {**LABEL, "mapping": {"1": "yes"}}},
        {"label": {**LABEL, "negative": "yes"}},
        {"row_id": {"kind": "column", "column": "id"}},
        {"weight": "w"},
        {"splits": {"kind": "hash", "salt": "b", "parts": {"train": 0.6, "test": 0.4}}},
        {"splits": {"kind": "hash", "salt": "a", "parts": {"train": 0.5, "test": 0.4}}},
    )

    @pytest.mark.parametrize("changes", SAME, ids=str)
    def test_what_only_describes_is_left_out(self, changes: dict[str, Any]) -> None:
        assert card(**changes).digest_arguments() == card().digest_arguments()

    @pytest.mark.parametrize("changes", OTHER, ids=str)
    def test_what_shapes_the_table_counts(self, changes: dict[str, Any]) -> None:
        assert card(**changes).digest_arguments() != card().digest_arguments()
