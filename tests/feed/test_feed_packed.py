"""Numbers in shards: bytes that say what they are, and the lists that older tables have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from feed_fixtures import make_columns, write_table

from tgeokd_ray.errors import IntegrityError
from tgeokd_ray.feed import DirectReader, EncodedTable, Feed, Rows, Sampler, decode
from tgeokd_ray.feed.arrow import NUMBERS, bytes_of, flat, listed, lists, packed, unpacked, viewed, whole
from tgeokd_ray.feed.parquet import read_group, read_shard


def epoch(table: EncodedTable) -> list[Rows]:
    return list(Feed(DirectReader(table, (), "train"), Sampler(table.units("train"), 64, 0)).batches(0))


def some() -> pa.Table:
    numeric, ids = np.arange(12, dtype=np.float32).reshape(4, 3), np.arange(8, dtype=np.int32).reshape(4, 2)
    return pa.table({"row_id": flat(np.arange(4)), "numeric": lists(numeric), "ids": lists(ids)})


def test_packed_columns_say_what_they_are_and_come_back_in_the_same_memory(tmp_path: Path) -> None:
    table = some()
    there = packed(table)
    assert there.schema.types == [pa.int64(), pa.binary(12), pa.binary(8)]
    assert [field.metadata for field in there.schema] == [None, {NUMBERS: b"float"}, {NUMBERS: b"int32"}]
    for part, expected in ((there, table), (there.slice(1, 2), table.slice(1, 2)), (there.slice(4), table.slice(4))):
        back = unpacked(part)
        assert back.schema.types == table.schema.types
        assert back.to_pydict() == expected.to_pydict()
    own = viewed(listed(whole(table["numeric"])))
    assert np.shares_memory(viewed(listed(whole(unpacked(there)["numeric"]))), own)
    assert unpacked(table).equals(table)
    pq.write_table(there, tmp_path / "a.parquet", row_group_size=3)
    assert read_shard(tmp_path / "a.parquet", 4, ["row_id", "numeric", "ids"]).to_pydict() == table.to_pydict()
    assert read_group(tmp_path / "a.parquet", 1, 1, ["ids"]).to_pydict() == {"ids": [[6, 7]]}


def test_a_slice_is_packed_as_a_slice_and_bytes_of_images_stay() -> None:
    assert unpacked(packed(some().slice(1, 2))).to_pydict() == some().slice(1, 2).to_pydict()
    images = pa.table({"numeric": bytes_of(np.arange(60, dtype=np.uint8).reshape(10, 6))})
    assert packed(images).equals(images)
    assert unpacked(images).equals(images)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16, np.uint8])
def test_numbers_that_nobody_would_read_are_not_packed(dtype: type[np.generic]) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"column x: .* can not be packed$"):
        packed(pa.table({"x": lists(np.zeros((2, 3), dtype))}))


def test_a_packed_value_that_is_missing_is_noticed(tmp_path: Path) -> None:
    field = pa.field("numeric", pa.binary(8), metadata={NUMBERS: "float"})
    table = pa.table([flat(np.arange(2)), flat(np.zeros(2, np.int32))], names=["row_id", "label"])
    table = table.append_column(field, pa.array([b"12345678", None], pa.binary(8)))
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_shard(tmp_path / "a.parquet", 2, ["row_id", "label", "numeric"])
    assert found["numeric"].null_count == 1
    with pytest.raises(IntegrityError, match="missing"):
        decode(found, 2)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [(pa.binary(8), b"12345678", "double"), (pa.binary(6), b"123456", "float"), (pa.int32(), 1, "int32")],
)
def test_numbers_that_nobody_knows_are_an_error_with_the_file(
    tmp_path: Path, kind: pa.DataType, value: object, said: str
) -> None:
    """A type that this package does not write, bytes that are no whole numbers, and no bytes at all."""
    field = pa.field("numeric", kind, metadata={NUMBERS: said})
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array([value], kind)], schema=pa.schema([field])), path)
    with pytest.raises(IntegrityError, match=f"column numeric: .* holds no {said} numbers") as refused:
        read_shard(path, 1, ["numeric"])
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("every", [1, 2])
def test_tables_in_lists_and_such_that_have_grown_give_the_same_rows(tmp_path: Path, every: int) -> None:
    """As all shards once were, and beside new ones."""
    splits = {"train": make_columns(250)}
    table = write_table(tmp_path / "new", splits)
    older = write_table(tmp_path / "old", splits, lists=lambda shard: shard % every == 0)
    kinds = [pq.read_schema(older.artifact.file(f"train-0000{n}.parquet")).field("numeric").type for n in range(3)]
    assert [pa.types.is_fixed_size_list(kind) for kind in kinds] == [n % every == 0 for n in range(3)]
    for expected, found in zip(epoch(table), epoch(older), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found.tensors(), expected.tensors(), strict=True))
