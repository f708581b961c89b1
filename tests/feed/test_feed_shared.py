"""A split that lies in shared memory is served from there, without a reader and without a copy."""

from __future__ import annotations

import pytest
import torch
from feed_fixtures import MemoryReader, make_columns, make_units

from tgeokd_ray.feed import Feed, Rows, Sampler, decode


@pytest.mark.parametrize("world", [1, 3])
def test_shared_rows_give_the_same_batches_without_reading(world: int) -> None:
    """Read-only arrays, as an object store hands them out."""
    columns = make_columns(203)
    sampler, reader = Sampler(make_units(columns, 16), 32, 0), MemoryReader(columns)
    [whole] = [decode(piece, 3) for piece in MemoryReader(columns)(make_units(columns, 203))]
    arrays = {name: array.copy() for name, array in whole.to_arrays().items()}
    for array in arrays.values():
        array.flags.writeable = False
    for rank in range(world):
        shared = Feed(reader, sampler, rank, world, shared=Rows.from_arrays(arrays))
        expected = Feed(MemoryReader(columns), sampler, rank, world)
        for ours, theirs in (
            (shared.batches(1), expected.batches(1)),
            (shared.batches(1, 3), expected.batches(1, 3)),
            (shared.sequential(50), expected.sequential(50)),
        ):
            for found, wanted in zip(ours, theirs, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(found.tensors(), wanted.tensors(), strict=True))
    assert reader.read == []
