"""What manifests say about tables and logits, and which of them belong together (faults P2, P4, N5)."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feed_fixtures import CLASSES, Columns, make_columns, select, shuffled, write_logits, write_table

from tgeokd_ray.artifacts import FileEntry
from tgeokd_ray.errors import ConfigError, IntegrityError, ProvenanceError
from tgeokd_ray.feed import EncodedTable, LogitsTable
from tgeokd_ray.feed.units import entry_units


@pytest.fixture(scope="module")
def splits() -> dict[str, Columns]:
    return {"train": make_columns(250), "valid": make_columns(40, first_id=10_000)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def table(root: Path, splits: dict[str, Columns]) -> EncodedTable:
    return write_table(root, splits)


def test_a_table_says_what_it_is(table: EncodedTable) -> None:
    assert table.label == "tables/small/v000001"
    assert (table.classes, table.negative) == (CLASSES, 0)
    assert (table.num_numeric, table.num_categorical, table.num_ids) == (3, 2, 10)
    assert table.splits == {"train": 250, "valid": 40}
    assert not table.has_weights


def test_units_are_the_row_groups_in_stored_order(table: EncodedTable, splits: dict[str, Columns]) -> None:
    units = table.units("train")
    assert [unit.rows for unit in units] == 2 * [16, 16, 16, 16, 16, 16, 4] + [16, 16, 16, 2]
    assert [unit.first for unit in units if unit.shard == "train-00002.parquet"] == [0, 16, 32, 48]
    first = 0
    for unit in units:
        counts = np.bincount(splits["train"].label[first : first + unit.rows], minlength=3)
        assert unit.labels == tuple(counts)
        first += unit.rows
    assert table.shard_units("train-00001.parquet") == units[7:14]


def test_label_counts_are_those_of_the_rows(table: EncodedTable, splits: dict[str, Columns]) -> None:
    for split, columns in splits.items():
        assert table.label_counts(split).tolist() == np.bincount(columns.label, minlength=3).tolist()
        assert table.label_counts(split).dtype == np.int64


def test_a_split_without_rows(tmp_path: Path) -> None:
    table = write_table(tmp_path, {"train": make_columns(3), "outer": make_columns(0)})
    assert table.units("outer") == ()
    assert table.splits["outer"] == 0
    assert table.label_counts("outer").tolist() == [0, 0, 0]


def test_an_unknown_split_is_named(table: EncodedTable) -> None:
    with pytest.raises(ConfigError, match="unknown split 'trian' of tables/small/v000001; did you mean 'train'"):
        table.units("trian")
    with pytest.raises(ConfigError, match="it has train, valid"):
        table.label_counts("outer")


def test_an_unknown_shard_is_named(table: EncodedTable) -> None:
    with pytest.raises(IntegrityError, match=r"no shard 'train-00009\.parquet'"):
        table.entry("train-00009.parquet")
    with pytest.raises(IntegrityError, match=r"no shard 'encoder\.json'"):
        table.entry("encoder.json")


@pytest.mark.parametrize(
    "change", [{"groups": [3, 3]}, {"labels": [[3, 0], [1, 1]]}, {"labels": [[3, 0, 0], [1, 1, 0]]}]
)
def test_an_entry_that_contradicts_itself_is_refused(change: dict) -> None:
    extra = {"split": "train", "shard": 0, "groups": [3, 2], "labels": [[3, 0], [1, 1]], "row_ids": ""} | change
    entry = FileEntry("train-00000.parquet", 1, "", rows=5, extra=extra)
    if change == {"labels": [[3, 0], [1, 1]]}:
        assert len(entry_units(entry, 2)) == 2
    else:
        with pytest.raises(IntegrityError, match=r"train-00000\.parquet"):
            entry_units(entry, 2)


def test_another_kind_is_refused(table: EncodedTable) -> None:
    with pytest.raises(ProvenanceError, match="another kind; expected logits; got tables"):
        LogitsTable.open(table.artifact.path)


def test_tables_travel_between_processes(table: EncodedTable) -> None:
    units = table.units("train")
    assert pickle.loads(pickle.dumps(table)).units("train") == units


def test_class_means_and_counts(root: Path, table: EncodedTable, splits: dict[str, Columns]) -> None:
    logits = write_logits(root, table, splits, name="means")
    assert logits.label == "logits/means/v000001"
    assert logits.classes == CLASSES
    assert logits.class_means.dtype == np.float32
    np.testing.assert_allclose(logits.class_means, [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]], rtol=1e-6)
    assert logits.class_counts.tolist() == [5, 3, 2]
    assert logits.missing_classes == ()


def test_n5_a_class_without_rows_has_a_uniform_mean_and_is_flagged(root: Path, table: EncodedTable) -> None:
    means = [[0.8, 0.1, 0.1], None, [0.25, 0.25, 0.5]]
    logits = write_logits(root, table, {"valid": make_columns(3)}, name="gap", means=means, counts=(5, 0, 2))
    assert logits.missing_classes == (1,)
    np.testing.assert_allclose(logits.class_means[1], [1 / 3] * 3, rtol=1e-6)


def test_logits_in_the_tables_order_are_aligned(root: Path, table: EncodedTable, splits: dict[str, Columns]) -> None:
    logits = write_logits(root, table, splits, name="aligned")
    assert logits.check_aligned(table, "train")
    assert logits.check_aligned(table, "valid")
    assert logits.shards("train") == tuple(f"train-{k:05d}.parquet" for k in range(3))
    assert LogitsTable.open(logits.artifact.path, table).entry("valid-00000.parquet").rows == 40


@pytest.mark.parametrize(
    "change", [{"group": 10}, {"shard_rows": 125}, {"rows": "shuffled"}, {"rows": "fewer"}, {"rows": "none"}]
)
def test_any_other_layout_is_not_aligned(
    root: Path, table: EncodedTable, splits: dict[str, Columns], change: dict
) -> None:
    train = splits["train"]
    others = {"shuffled": shuffled(train), "fewer": select(train, np.arange(150)), "none": make_columns(0)}
    rows = others.get(change.get("rows", ""), train)
    layout = {key: value for key, value in change.items() if key != "rows"}
    name = "-".join(map(str, change.values()))
    assert not write_logits(root, table, {"train": rows}, name=name, **layout).check_aligned(table, "train")


def test_p2_logits_of_another_table_are_refused(tmp_path: Path, splits: dict[str, Columns]) -> None:
    """P2: the second version has the same rows and shapes, and other content."""
    first = write_table(tmp_path, splits)
    second = write_table(tmp_path, splits, weight=True)
    logits = write_logits(tmp_path, first, splits)
    expected = (
        f"logits/small v000001 was made from tables/small {first.artifact.digest[:8]}..., "
        f"but tables/small v000002 is {second.artifact.digest[:8]}...\n  next: run tgeokd precompute on this table"
    )
    for check in (
        lambda: logits.check_table(second),
        lambda: logits.check_aligned(second, "train"),
        lambda: LogitsTable.open(logits.artifact.path, second),
    ):
        with pytest.raises(ProvenanceError) as caught:
            check()
        assert expected in str(caught.value)
    LogitsTable.open(logits.artifact.path, first)


def test_p4_another_order_of_classes_is_refused(root: Path, table: EncodedTable, splits: dict[str, Columns]) -> None:
    """P4."""
    logits = write_logits(root, table, splits, name="order", classes=("dos", "normal", "probe"))
    with pytest.raises(ProvenanceError, match="expected normal, dos, probe; got dos, normal, probe"):
        logits.check_table(table)


def test_the_wrong_table_is_told_apart_from_a_copy_elsewhere(root: Path, table: EncodedTable) -> None:
    """Parents are known by content: the same table under another path and name is the same table."""
    logits = write_logits(root, table, {"valid": make_columns(3)}, name="copy")
    moved = EncodedTable(replace(table.artifact, path=Path("/elsewhere")))
    logits.check_table(moved)
