"""Damage to any table: which rows, how many, on which splits, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.tables.regimes.damage import Damage, Region, damaged, inside_region
from tgeokd_ray.tables.validation import validated

ROWS, CLASSES = 6000, ("cat", "dog", "fox", "owl")
SPLITS = ("teacher", "train", "outer", "valid", "test")
HASH = Region(kind="hash_even", column="site")
MEDIAN = Region(kind="above_median", column="price")


@pytest.fixture(scope="module")
def frame() -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table(
        {
            "id": np.arange(ROWS) * 7,
            "animal": np.array(CLASSES)[random.integers(4, size=ROWS)].tolist(),
            "part": np.array(SPLITS)[random.integers(5, size=ROWS)].tolist(),
            "price": random.normal(size=ROWS),
            "site": [f"s{k}" for k in random.integers(200, size=ROWS)],
        }
    )


def hurt(frame: pa.Table, damage: Damage, **others: Any) -> pa.Table:
    return damaged(frame, damage, **{"label": "animal", "split": "part", "row_id": "id", **others})


def count(table: pa.Table, split: str) -> dict[str, int]:
    animals = column(table, "animal")[column(table, "part") == split]
    return {name: int((animals == name).sum()) for name in CLASSES}


def column(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(table[name].to_numpy(zero_copy_only=False))


@pytest.mark.parametrize("where", [HASH, MEDIAN, None])
def test_labels_are_flipped_in_the_region_of_the_named_splits_only(frame: pa.Table, where: Region | None) -> None:
    table = hurt(frame, Damage(flip=0.4, where=where, splits=("train", "valid")))
    flipped, inside = column(table, "flipped"), column(table, "region")
    open_to = inside & np.isin(column(table, "part"), ["train", "valid"])
    assert inside.mean() == pytest.approx(1 if where is None else 0.5, abs=0.1)
    assert not flipped[~open_to].any()
    assert flipped[open_to].mean() == pytest.approx(0.4, abs=0.05)
    assert np.array_equal(column(table, "animal") != column(table, "true_label"), flipped)
    assert column(table, "true_label").tolist() == frame["animal"].to_pylist()
    shares = [(column(table, "animal")[flipped] == name).mean() for name in CLASSES]
    assert shares == pytest.approx([0.25] * 4, abs=0.05)


def test_other_columns_and_rows_stay(frame: pa.Table) -> None:
    table = hurt(frame, Damage(flip=0.5))
    assert table.column_names == [*frame.column_names, "true_label", "region", "flipped"]
    for name in ("id", "part", "price", "site"):
        assert table[name].equals(frame[name])


def test_hidden_classes_leave_the_teachers_rows_only(frame: pa.Table) -> None:
    table = hurt(frame, Damage(hidden=("fox", "owl")))
    assert count(table, "teacher") == count(frame, "teacher") | {"fox": 0, "owl": 0}
    for split in SPLITS[1:]:
        assert count(table, split) == count(frame, split)
    assert not column(table, "region").any()
    assert not column(table, "flipped").any()


def test_a_row_has_its_damage_wherever_it_stands(frame: pa.Table) -> None:
    damage = Damage(flip=0.5, where=HASH)
    table, order = hurt(frame, damage), np.random.default_rng(1).permutation(ROWS)
    assert hurt(frame.take(order), damage).equals(table.take(order))
    assert hurt(frame[:100], damage).equals(table[:100])
    other = hurt(frame, damage.model_copy(update={"seed": 1}))
    assert not other["flipped"].equals(table["flipped"])
    assert other["region"].equals(table["region"])


def test_a_region_is_of_values(frame: pa.Table) -> None:
    inside, sites = inside_region(HASH, frame), np.array(frame["site"].to_pylist())
    even = {site for site, flag in zip(sites, inside, strict=True) if flag}
    assert not even & {site for site, flag in zip(sites, inside, strict=True) if not flag}
    salted = inside_region(HASH.model_copy(update={"salt": "b"}), frame)
    assert 0.3 < (salted == inside).mean() < 0.7
    assert np.array_equal(inside_region(MEDIAN, frame), column(frame, "price") > np.median(column(frame, "price")))


def test_a_missing_number_is_not_above_and_a_missing_text_is_the_empty_one() -> None:
    frame = pa.table({"price": [None, 1.0, float("nan"), 3.0, 2.0], "site": pa.array([None, "", "a", "b", "c"])})
    assert inside_region(MEDIAN, frame).tolist() == [False, False, False, True, False]
    first, second, *_ = inside_region(HASH, frame)
    assert first == second
    nothing = pa.table({"price": pa.array([None, None], pa.float64())})
    assert inside_region(MEDIAN, nothing).tolist() == [False, False]


@pytest.mark.parametrize(
    ("damage", "options", "what"),
    [
        ({"hidden": ("dogs",)}, {}, r"damage.hidden: 'dogs' is not a class; did you mean 'dog'\?"),
        (
            {"flip": 0.1, "where": {"kind": "hash_even", "column": "sitte"}},
            {},
            "no column 'sitte'; did you mean 'site'",
        ),
        ({"flip": 0.1, "where": {"kind": "above_median", "column": "site"}}, {}, "'site' holds no numbers"),
        ({}, {"split": "parts"}, "there is no column 'parts'; did you mean 'part'"),
    ],
)
def test_what_the_table_does_not_have(
    frame: pa.Table, damage: dict[str, Any], options: dict[str, str], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        hurt(frame, Damage.model_validate(damage), **options)


def test_a_table_is_damaged_once_and_its_labels_are_classes(frame: pa.Table) -> None:
    with pytest.raises(ConfigError, match="column 'true_label': the table is damaged already"):
        hurt(hurt(frame, Damage()), Damage())
    with pytest.raises(DataError, match="is no class") as caught:
        hurt(frame, Damage(), classes=CLASSES[:3])
    first = frame["animal"].to_pylist().index("owl")
    assert (caught.value.problems[0].row, caught.value.problems[0].got) == (first + 1, "'owl'")
    assert caught.value.total == frame["animal"].to_pylist().count("owl")


@pytest.mark.parametrize("ids", [["a", "b"], [1, None]])
def test_every_row_needs_a_whole_number_as_its_id(ids: list[Any]) -> None:
    frame = pa.table({"id": ids, "animal": ["cat", "dog"], "part": ["train", "train"]})
    with pytest.raises(DataError, match="column 'id': every row needs a whole number"):
        hurt(frame, Damage(flip=1.0))


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ({"flip": 1.5}, "flip must be less than or equal to 1, got 1.5"),
        ({"splits": ["test"]}, "splits"),
        ({"flop": 0.1}, "unknown key 'flop'; did you mean 'flip'?"),
        ({"where": {"kind": "odd", "column": "x"}}, "where.kind"),
    ],
)
def test_an_option_that_is_no_damage(option: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Damage, option, "--damage")
    assert what in str(caught.value)
