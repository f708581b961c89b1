"""Reading units with their logits: aligned or joined, and what is refused (faults S3, P5, P6, N1)."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from feed_fixtures import Columns, fixed, make_columns, select, shuffled, write_logits, write_table

from tgeokd_ray.errors import IntegrityError, ProvenanceError
from tgeokd_ray.feed import DirectReader, EncodedTable, Feed, LogitsTable, Rows, Sampler, Unit
from tgeokd_ray.feed.parquet import read_group
from tgeokd_ray.feed.reader import AHEAD_UNITS, READERS
from tgeokd_ray.feed.storage import Storage


@pytest.fixture(scope="module")
def splits() -> dict[str, Columns]:
    return {"train": make_columns(250), "valid": make_columns(40, first_id=10_000)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def table(root: Path, splits: dict[str, Columns]) -> EncodedTable:
    return write_table(root, splits)


@pytest.fixture(scope="module")
def logits(root: Path, table: EncodedTable, splits: dict[str, Columns]) -> LogitsTable:
    return write_logits(root, table, splits)


def stored(table: EncodedTable, logits: list[LogitsTable], split: str = "train") -> list[Rows]:
    units = table.units(split)
    return list(Feed(DirectReader(table, logits, split), Sampler(units, 64, 0)).sequential(1000))


def epoch(table: EncodedTable, logits: list[LogitsTable], cache: int) -> list[Rows]:
    units = table.units("train")
    return list(Feed(DirectReader(table, logits, "train"), Sampler(units, 64, 0), cache_bytes=cache).batches(0))


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("units")]


def damage(path: Path, needle: bytes) -> None:
    """Flip one bit of the first occurrence of `needle`, the size unchanged."""
    data = bytearray(path.read_bytes())
    data[data.index(needle)] ^= 1
    path.write_bytes(bytes(data))


def test_rows_come_back_as_written(table: EncodedTable, logits: LogitsTable, splits: dict[str, Columns]) -> None:
    for split, columns in splits.items():
        [rows] = stored(table, [logits], split)
        assert rows.row_id.tolist() == columns.row_id.tolist()
        np.testing.assert_array_equal(rows.numeric.numpy(), columns.numeric)
        np.testing.assert_array_equal(rows.categorical.numpy(), columns.categorical)
        np.testing.assert_array_equal(rows.labels.numpy(), columns.label)
        np.testing.assert_array_equal(rows.logits[:, 0].numpy(), columns.logits)
        assert torch.equal(rows.weights, torch.ones(len(rows)))


def test_units_come_in_the_order_asked_for(table: EncodedTable, splits: dict[str, Columns]) -> None:
    units = table.units("train")[::-1]
    found = [piece.column("row_id").to_pylist() for piece in DirectReader(table, (), "train")(units)]
    offsets = {f"train-{k:05d}.parquet": 100 * k for k in range(3)}
    expected = [offsets[unit.shard] + unit.first for unit in units]
    assert [ids[0] for ids in found] == splits["train"].row_id[expected].tolist()
    assert [len(ids) for ids in found] == [unit.rows for unit in units]


@pytest.mark.parametrize(("num_numeric", "num_categorical", "weight"), [(0, 2, False), (3, 0, True), (2, 1, True)])
def test_tables_of_other_shapes(tmp_path: Path, num_numeric: int, num_categorical: int, weight: bool) -> None:
    columns = make_columns(50, num_numeric=num_numeric, num_categorical=num_categorical)
    [rows] = stored(write_table(tmp_path, {"train": columns}, weight=weight), [])
    np.testing.assert_array_equal(rows.numeric.numpy(), columns.numeric)
    np.testing.assert_array_equal(rows.categorical.numpy(), columns.categorical)
    expected = columns.row_id.astype(np.float32) / 2 if weight else np.ones(50, np.float32)
    np.testing.assert_array_equal(rows.weights.numpy(), expected)
    assert rows.logits.shape == (50, 0, 3)


def test_teachers_keep_their_order(
    root: Path, table: EncodedTable, logits: LogitsTable, splits: dict[str, Columns]
) -> None:
    double = write_logits(root, table, {"train": shuffled(splits["train"])}, name="double", scale=2.0)
    [rows] = stored(table, [logits, double])
    expected = splits["train"].logits
    np.testing.assert_array_equal(rows.logits.numpy(), np.stack([expected, 2 * expected], axis=1))
    [rows] = stored(table, [double, logits])
    np.testing.assert_array_equal(rows.logits.numpy(), np.stack([2 * expected, expected], axis=1))


@pytest.mark.parametrize("cache", [0, 1 << 30])
@pytest.mark.parametrize("layout", [{"shard_rows": 250}, {"group": 7}, {"shard_rows": 33, "group": 5}, {}])
def test_p5_shuffled_logits_give_the_same_batches(
    root: Path, table: EncodedTable, logits: LogitsTable, splits: dict[str, Columns], layout: dict, cache: int
) -> None:
    """P5: other order, other shards, other row groups; ids intact."""
    other = {"train": shuffled(splits["train"]), "valid": splits["valid"]}
    moved = write_logits(root, table, other, name=f"moved{'-'.join(map(str, layout.values()))}", **layout)
    assert not moved.check_aligned(table, "train")
    for expected, found in zip(epoch(table, [logits], cache), epoch(table, [moved], cache), strict=True):
        for a, b in zip(expected.tensors(), found.tensors(), strict=True):
            assert torch.equal(a, b)


def test_more_logits_than_rows_are_accepted(root: Path, table: EncodedTable, splits: dict[str, Columns]) -> None:
    train, more = splits["train"], make_columns(30, first_id=1_000_000)
    both = Columns(*(np.concatenate([getattr(train, n), getattr(more, n)]) for n in Columns.__dataclass_fields__))
    [rows] = stored(table, [write_logits(root, table, {"train": both}, name="more", shard_rows=1000)])
    np.testing.assert_array_equal(rows.logits[:, 0].numpy(), train.logits)


def test_p6_missing_ids_are_refused_with_their_number_and_the_first(
    root: Path, table: EncodedTable, splits: dict[str, Columns]
) -> None:
    """P6: before anything is served."""
    train = splits["train"]
    gone = np.asarray([3, 40, 111, 112, 140, 200, 249])
    kept = select(train, np.setdiff1d(np.arange(250), gone))
    part = write_logits(root, table, {"train": kept}, name="part")
    with pytest.raises(ProvenanceError) as caught:
        DirectReader(table, [part], "train")
    first = ", ".join(str(row_id) for row_id in train.row_id[gone[:5]])
    assert f"logits/part/v000001 has no logits for 7 of 250 rows of split 'train' (row ids {first}, ...)" in str(
        caught.value
    )


def test_p6_a_split_without_logits_is_refused(root: Path, table: EncodedTable, splits: dict[str, Columns]) -> None:
    only = write_logits(root, table, {"train": splits["train"]}, name="only")
    with pytest.raises(ProvenanceError, match="40 of 40 rows of split 'valid'"):
        DirectReader(table, [only], "valid")


def test_d9_an_id_that_comes_twice_is_refused(root: Path, table: EncodedTable, splits: dict[str, Columns]) -> None:
    twice = select(splits["train"], np.asarray([*range(250), 8]))
    with pytest.raises(IntegrityError, match=f"1 row ids come twice.*the first is {splits['train'].row_id[8]}"):
        DirectReader(table, [write_logits(root, table, {"train": twice}, name="twice")], "train")


def test_p2_logits_of_another_table_are_refused(
    tmp_path: Path, table: EncodedTable, splits: dict[str, Columns]
) -> None:
    other = write_table(tmp_path, splits, weight=True)
    with pytest.raises(ProvenanceError, match="run tgeokd precompute"):
        DirectReader(table, [write_logits(tmp_path, other, splits)], "train")


@pytest.mark.parametrize("order", ["aligned", "joined"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_n1_logits_that_are_not_finite_are_refused(
    tmp_path: Path, splits: dict[str, Columns], order: str, value: float
) -> None:
    """N1, at read."""
    train = splits["train"]
    bad = Columns(train.row_id, train.label, train.numeric, train.categorical, train.logits.copy())
    bad.logits[[20, 21], 1] = value
    table = write_table(tmp_path, splits)
    logits = write_logits(tmp_path, table, {"train": bad if order == "aligned" else shuffled(bad)})
    with pytest.raises(IntegrityError, match=r"parquet, column 'logits', row \d+: not finite"):
        list(DirectReader(table, [logits], "train")(table.units("train")))


def test_n1_every_row_that_is_not_finite_is_counted() -> None:
    values = np.zeros((50, 2), np.float32)
    values[10:40, 0] = np.nan
    with pytest.raises(IntegrityError) as caught:
        Storage().decode(pa.table({"logits": fixed(values)}), Path("a.parquet"), 2)
    assert (len(caught.value.problems), caught.value.total) == (20, 30)
    assert caught.value.problems[0].row == 11


@pytest.mark.parametrize(
    "column",
    [fixed(np.zeros((3, 2))), fixed(np.zeros((3, 4), np.float32)), fixed(np.zeros((3, 2), np.int32)), pa.array([1.0])],
)
def test_p8_logits_of_another_type_are_refused(column: pa.Array) -> None:
    """P8."""
    with pytest.raises(IntegrityError, match=r"wrong type; expected .*float.*\[2\]"):
        Storage().decode(pa.table({"logits": column}), Path("a.parquet"), 2)


def test_a_null_among_the_logits_is_refused() -> None:
    for values in ([[1.0, 2.0], None], [[1.0, None]]):
        column = pa.chunked_array([pa.array(values, pa.list_(pa.float32(), 2))])
        with pytest.raises(IntegrityError, match="null"):
            Storage().decode(pa.table({"logits": column}), Path("a.parquet"), 2)


@pytest.mark.parametrize("kind", ["table", "logits"])
def test_s3_one_flipped_bit_is_noticed(tmp_path: Path, kind: str) -> None:
    """S3: stock pyarrow reads it silently."""
    columns = {"train": make_columns(64)}
    table = write_table(tmp_path, columns)
    logits = write_logits(tmp_path, table, columns)
    artifact, values = (
        (table.artifact, columns["train"].numeric) if kind == "table" else (logits.artifact, columns["train"].logits)
    )
    path = artifact.path / "train-00000.parquet"
    plain = pq.read_table(path)
    pq.write_table(plain, path, row_group_size=16, write_page_checksum=True, compression="none", use_dictionary=False)
    list(DirectReader(table, [logits], "train")(table.units("train")))
    damage(path, values[40].tobytes())
    with pytest.raises(IntegrityError, match=r"train-00000\.parquet: can not be read: .*CRC"):
        list(DirectReader(table, [logits], "train")(table.units("train")))
    assert pq.read_table(path).num_rows == 64


def test_s1_s2_a_file_with_other_rows_or_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"row_id": [1, 2, 3]}), path)
    with pytest.raises(IntegrityError, match="number of rows differs; expected 4 rows; got 3 rows"):
        read_group(path, 0, 4, ["row_id"])
    with pytest.raises(IntegrityError, match="column 'label': this column is missing"):
        read_group(path, 0, 3, ["row_id", "label"])
    with pytest.raises(IntegrityError, match="can not be read"):
        read_group(path, 1, 3, ["row_id"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match="can not be read"):
        read_group(path, 0, 3, ["row_id"])
    path.unlink()
    with pytest.raises(IntegrityError, match="can not be read"):
        read_group(path, 0, 3, ["row_id"])


class Slow(DirectReader):
    """Notes which units its thread has read."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.units: list[Unit] = []

    def read(self, unit: Unit) -> pa.Table:
        self.units.append(unit)
        return super().read(unit)


def wait_for(reader: Slow, count: int) -> None:
    until = time.monotonic() + 20
    while len(reader.units) < count and time.monotonic() < until:
        time.sleep(0.001)


def test_the_threads_read_ahead_but_not_far(table: EncodedTable) -> None:
    reader = Slow(table, (), "train")
    tables = reader(table.units("train"))
    next(tables)
    wait_for(reader, 1 + AHEAD_UNITS)
    time.sleep(0.05)
    assert len(reader.units) == 1 + AHEAD_UNITS
    assert all(thread is not threading.main_thread() for thread in own_threads())
    tables.close()


def test_closing_ends_the_threads(table: EncodedTable) -> None:
    before = len(own_threads())
    tables = DirectReader(table, (), "train")(table.units("train"))
    next(tables)
    assert before < len(own_threads()) <= before + READERS
    tables.close()
    assert len(own_threads()) == before


def test_an_abandoned_epoch_ends_the_threads(table: EncodedTable) -> None:
    before = len(own_threads())
    batches = Feed(DirectReader(table, (), "train"), Sampler(table.units("train"), 8, 0), cache_bytes=0).batches(0)
    next(batches)
    del batches
    assert len(own_threads()) == before


def test_an_error_of_the_thread_comes_where_its_unit_would(tmp_path: Path) -> None:
    table = write_table(tmp_path, {"train": make_columns(300)})
    before = len(own_threads())
    tables = DirectReader(table, (), "train")(table.units("train"))
    os.remove(table.artifact.path / "train-00001.parquet")
    for _ in range(7):
        next(tables)
    with pytest.raises(IntegrityError, match=r"train-00001\.parquet: can not be read"):
        next(tables)
    assert len(own_threads()) == before


def test_no_units_need_no_thread(table: EncodedTable) -> None:
    assert list(DirectReader(table, (), "train")(())) == []
