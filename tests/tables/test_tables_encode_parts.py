"""What a table is found by, how stages give errors back, and what is told of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from encoded_tables import (
    synthetic_card,
)

from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.tables import ingest as ingest_module
from tgeokd_ray.tables.cards import SPLITS, Card
from tgeokd_ray.tables.ingest import RawUnit
from tgeokd_ray.tables.inputs import table_inputs
from tgeokd_ray.tables.outcome import raise_together, returning_errors, values
from tgeokd_ray.tables.quality import check_classes, warn_of_unseen
from tgeokd_ray.tables.shards import group_rows


class TestInputs:
    def test_what_shapes_the_table_counts_and_nothing_else(self, tmp_path: Path) -> None:
        base = table_inputs(synthetic_card(), [], tmp_path)
        described = synthetic_card().model_copy(update={"title": "t", "terms": "x", "files": ("a",), "name": "b"})
        assert table_inputs(described, [], tmp_path) == base
        assert table_inputs(synthetic_card(seed=4), [], tmp_path) != base

    def test_the_order_of_file_patterns_counts(self, tmp_path: Path) -> None:
        def with_patterns(*patterns: str) -> dict[str, Any]:
            data = json.loads(synthetic_card().model_dump_json())
            data["splits"] = {"kind": "file", "files": dict.fromkeys(patterns, "train")}
            return table_inputs(Card.model_validate(data), [], tmp_path)

        assert with_patterns("a*", "*") != with_patterns("*", "a*")


class TestOutcomes:
    def test_a_user_error_comes_back_as_a_value(self) -> None:
        @returning_errors
        def work(error: Exception | None) -> int:
            if error is not None:
                raise error
            return 1

        assert work(None) == 1
        found = DataError("bad")
        assert work(found) is found
        with pytest.raises(ZeroDivisionError):
            work(ZeroDivisionError())
        with pytest.raises(DataError, match="bad"):
            list(values([1, found, 2]))

    def test_problems_of_several_files_are_told_together(self) -> None:
        raise_together([])
        with pytest.raises(DataError) as caught:
            raise_together([DataError("a", fix="mend"), ConfigError("c"), DataError("b", total=5)])
        assert [problem.what for problem in caught.value.problems] == ["a", "b"]
        assert (caught.value.total, caught.value.fix) == (6, "mend")

    def test_stage_functions_travel(self) -> None:
        name = ingest_module.ingest.__qualname__
        assert getattr(ingest_module, name) is ingest_module.ingest


class TestQuality:
    def unit(self, **counts: tuple[int, int]) -> RawUnit:
        return RawUnit("f", "s", 9, tuple(counts.get(split, (0, 0)) for split in SPLITS))

    def test_n4_a_class_without_train_rows_is_refused_by_name(self) -> None:
        with pytest.raises(DataError, match=r"column 'label': no train row is of class '1'"):
            check_classes(synthetic_card(), [self.unit(train=(4, 0), test=(1, 1))], Silent())
        with pytest.raises(DataError, match="class '0'"):
            check_classes(synthetic_card(), [], Silent())

    def test_n4_a_class_that_another_split_lacks_is_told(self) -> None:
        progress = Silent()
        check_classes(synthetic_card(), [self.unit(train=(4, 0)), self.unit(train=(0, 1), test=(3, 0))], progress)
        assert progress.warnings == ["split test has no row of class 1"]

    def test_of_many_classes_that_a_split_lacks_twenty_are_told(self) -> None:
        small = synthetic_card()
        label = small.label.model_copy(update={"classes": tuple(map(str, range(1, 1001)))})
        counts = dict.fromkeys(SPLITS, (1,) * 3 + (0,) * 997) | {"train": (1,) * 1000}
        progress = Silent()
        unit = RawUnit("f", "s", 1000, tuple(counts[split] for split in SPLITS))
        check_classes(small.model_copy(update={"label": label}), [unit], progress)
        assert len(progress.warnings) == len(SPLITS) - 1
        twenty = ", ".join(map(str, range(4, 24)))
        assert progress.warnings[-1] == f"split {SPLITS[-1]} has no row of class {twenty} and 977 more"

    def test_d11_mostly_unseen_columns_are_told(self) -> None:
        progress = Silent()
        warn_of_unseen({"a": 0.5, "b": 0.51, "c": 1.0}, progress)
        assert progress.warnings == ["most test values are not among the train rows: b 51%, c 100%"]

    @pytest.mark.parametrize(("rows", "size"), [(0, 256), (12_288, 256), (12_289, 257), (48_000, 1000), (10**8, 6_144)])
    def test_row_groups(self, rows: int, size: int) -> None:
        assert group_rows(rows) == size
