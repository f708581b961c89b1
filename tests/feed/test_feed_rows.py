"""Rows, and Arrow columns as tensors."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch
from feed_fixtures import fixed, make_columns, table_columns

from tgeokd_ray.errors import IntegrityError
from tgeokd_ray.feed.rows import collect, concatenate, decode


def arrow(rows: int = 6, **options: int) -> pa.Table:
    return pa.table(table_columns(make_columns(rows, **options), slice(None), weight=False))


def test_decoding_shares_arrows_memory() -> None:
    table = arrow().append_column("logits_0", fixed(np.ones((6, 3), np.float32)))
    rows = decode(table, 3)
    for name, tensor in (("row_id", rows.row_id), ("label", rows.labels)):
        assert tensor.data_ptr() == table.column(name).chunk(0).buffers()[1].address
    for name, tensor in (("numeric", rows.numeric), ("categorical", rows.categorical), ("logits_0", rows.logits)):
        assert tensor.data_ptr() == table.column(name).chunk(0).values.buffers()[1].address


def test_decoding_a_slice_gives_the_rows_of_the_slice() -> None:
    whole, part = decode(arrow(), 3), decode(arrow().slice(2, 3), 3)
    for expected, tensor in zip(whole[2:5].tensors(), part.tensors(), strict=True):
        assert torch.equal(tensor, expected)


def test_decoding_pieces_gives_the_whole() -> None:
    pieces = decode(pa.concat_tables([arrow().slice(0, 2), arrow().slice(2)]), 3)
    for expected, tensor in zip(decode(arrow(), 3).tensors(), pieces.tensors(), strict=True):
        assert torch.equal(tensor, expected)


def test_decoding_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(arrow(), 3)


def test_memory_outlives_the_table() -> None:
    rows = decode(arrow(1000), 3)
    [pa.array(np.full(1000, -1, np.int64)) for _ in range(50)]
    assert torch.equal(rows.row_id, torch.from_numpy(make_columns(1000).row_id))


@pytest.mark.parametrize(("missing", "attribute"), [("num_numeric", "numeric"), ("num_categorical", "categorical")])
def test_absent_columns_are_empty(missing: str, attribute: str) -> None:
    rows = decode(arrow(4, **{missing: 0}), 3)
    assert getattr(rows, attribute).shape == (4, 0)
    assert getattr(rows.as_batch(), attribute).dtype == getattr(decode(arrow(4), 3).as_batch(), attribute).dtype


def test_weights_are_read_or_one() -> None:
    columns = make_columns(5)
    weighted = decode(pa.table(table_columns(columns, slice(None), weight=True)), 3)
    assert torch.equal(weighted.weights, torch.from_numpy(columns.row_id.astype(np.float32) / 2))
    assert torch.equal(decode(arrow(5), 3).weights, torch.ones(5))


@pytest.mark.parametrize("num_teachers", [0, 1, 2, 3])
def test_teachers_lie_side_by_side(num_teachers: int) -> None:
    table = arrow(4)
    for teacher in range(num_teachers):
        table = table.append_column(f"logits_{teacher}", fixed(np.full((4, 3), teacher, np.float32)))
    logits = decode(table, 3).logits
    assert logits.shape == (4, num_teachers, 3)
    assert torch.equal(logits, torch.arange(float(num_teachers))[None, :, None].expand(4, -1, 3))


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(rows: int) -> None:
    batch = decode(arrow(rows), 3).as_batch()
    assert len(batch) == rows
    assert (batch.categorical.dtype, batch.labels.dtype) == (torch.int32, torch.int64)


@pytest.mark.parametrize("name", ["label", "numeric"])
def test_a_null_is_refused(name: str) -> None:
    table = arrow(3)
    null = (
        pa.array([1, None, 2], pa.int32())
        if name == "label"
        else pa.array([[1, 2, None]] * 3, pa.list_(pa.float32(), 3))
    )
    with pytest.raises(IntegrityError, match=f"column '{name}'.*null"):
        decode(table.set_column(table.column_names.index(name), name, null), 3)


def test_bytes_per_row() -> None:
    rows = decode(arrow().append_column("logits_0", fixed(np.ones((6, 3), np.float32))), 3)
    assert rows.bytes_per_row == 8 + 3 * 4 + 2 * 4 + 4 + 4 + 3 * 4
    assert rows[:0].bytes_per_row == rows.bytes_per_row
    assert rows.as_batch().bytes_per_row == rows.bytes_per_row + 4


def test_collecting_is_concatenating() -> None:
    parts = [decode(arrow(rows, first_id=100 * rows), 3) for rows in (3, 0, 5)]
    for a, b in zip(concatenate(parts).tensors(), collect(iter(parts), parts[0], 8).tensors(), strict=True):
        assert torch.equal(a, b)


def test_taking_and_slicing() -> None:
    rows = decode(arrow(), 3)
    taken = rows.take(torch.tensor([4, 0, 4]))
    assert taken.row_id.tolist() == [rows.row_id[4], rows.row_id[0], rows.row_id[4]]
    assert len(rows[1:3]) == 2
    assert torch.equal(rows.to("cpu").numeric, rows.numeric)
    assert rows.to("meta").numeric.device.type == "meta"
