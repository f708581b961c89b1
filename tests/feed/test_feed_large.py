"""A large split is held while its first epoch is served, its batches made ahead: the same rows as of a small one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from feed_fixtures import MemoryReader, make_columns, make_units

from tgeokd_ray.feed import Feed, Rows, Sampler
from tgeokd_ray.feed import batches as feed_batches
from tgeokd_ray.feed.rows import concatenate

COLUMNS = make_columns(700)
UNITS = make_units(COLUMNS, 5)
HELD = 1 << 30


def feed(cache: int = HELD, rank: int = 0, world: int = 1) -> tuple[Feed, MemoryReader]:
    reader = MemoryReader(COLUMNS)
    return Feed(reader, Sampler(UNITS, 32, 0), rank, world, cache_bytes=cache), reader


def assert_same(ours: list[Rows], theirs: list[Rows]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.tensors(), other.tensors(), strict=True))


@pytest.fixture
def small() -> dict[int, list[Rows]]:
    return {epoch: list(feed()[0].batches(epoch)) for epoch in (0, 1, 2)}


@pytest.fixture
def large(small: dict[int, list[Rows]], monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Rows]]:
    """The batches of a small split by epoch; from now on every split counts as large."""
    monkeypatch.setattr(feed_batches, "LARGE_BYTES", 0)
    return small


@pytest.mark.parametrize("cache", [0, HELD])
def test_the_batches_are_the_same(large: dict[int, list[Rows]], cache: int) -> None:
    one, _ = feed(cache)
    for epoch in (0, 1, 2):
        assert_same(list(one.batches(epoch)), large[epoch])


@pytest.mark.parametrize("world", [2, 3])
def test_the_same_for_several_workers(large: dict[int, list[Rows]], world: int) -> None:
    parts = [list(feed(rank=rank, world=world)[0].batches(1)) for rank in range(world)]
    for step, batch in enumerate(large[1]):
        found = torch.cat([part[step].row_id for part in parts])
        assert sorted(found.tolist()) == sorted(batch.row_id.tolist())


def test_every_unit_is_read_once_for_all_epochs(large: dict[int, list[Rows]]) -> None:
    one, reader = feed()
    for epoch in (0, 1):
        list(one.batches(epoch))
    assert sorted(reader.read[1:]) == [unit.group for unit in UNITS]  # the first is read for the widths


def test_the_first_batch_does_not_wait_for_the_whole_split(large: dict[int, list[Rows]]) -> None:
    sampler = Sampler(UNITS, 32, 0)
    reader = MemoryReader(COLUMNS)
    batches = Feed(reader, sampler, cache_bytes=HELD).batches(0)
    next(batches)
    assert len(set(reader.read)) < len(UNITS) / 2
    batches.close()


def test_an_epoch_that_was_left_leaves_nothing_half_filled(large: dict[int, list[Rows]]) -> None:
    one, _ = feed()
    started, before = one.batches(0), threading.active_count()
    next(started)
    started.close()
    assert threading.active_count() == before
    assert_same(list(one.batches(0)), large[0])
    assert_same(list(one.batches(1)), large[1])


def test_starting_late_is_the_same(large: dict[int, list[Rows]]) -> None:
    for cache in (0, HELD):
        assert_same(list(feed(cache)[0].batches(1, start_step=7)), large[1][7:])


def test_what_was_held_in_passing_is_the_split_in_stored_order(large: dict[int, list[Rows]]) -> None:
    one, reader = feed()
    list(one.batches(0))
    count = len(reader.read)
    rows = concatenate(list(one.sequential(100)))
    assert len(reader.read) == count
    np.testing.assert_array_equal(rows.row_id.numpy(), COLUMNS.row_id)
    np.testing.assert_array_equal(rows.categorical.numpy(), COLUMNS.categorical)
