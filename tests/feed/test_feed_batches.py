"""Laws of the feed (faults E1, E2, N6, N7): the same global batches for every world, offset and cache."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from feed_fixtures import Columns, MemoryReader, make_columns, make_units

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed import LANES, Feed, Rows, Sampler
from tgeokd_ray.feed.sampler import lanes

WORLDS = [1, 2, 3, 4, 6, 12]
STREAM, HELD = 0, 1 << 30
TINY = [(1, 5), (5, 2), (5, 1), (23, 3), (40, 16)]


def feed(columns: Columns, group: int = 5, rank: int = 0, world: int = 1, cache: int = HELD, **options: object) -> Feed:
    batch, seed = options.pop("batch", 32), options.pop("seed", 0)
    sampler = Sampler(make_units(columns, group), batch, seed, repeats=options.pop("repeats", None))
    reader = options.pop("reader", None) or MemoryReader(columns)
    return Feed(reader, sampler, rank, world, cache_bytes=cache, pinned=bool(options.pop("pinned", False)))


def ids(batches: object) -> list[list[int]]:
    return [rows.row_id.tolist() for rows in batches]


def by_lane(columns: Columns, epoch: int, world: int, **options: object) -> list[list[int]]:
    """Each global batch as a sequence: lane 0's rows, lane 1's, ..., put together from the workers' parts."""
    group = options.get("group", 5)
    sampler = Sampler(make_units(columns, group), options.get("batch", 32), 0, repeats=options.get("repeats"))
    order = sampler.epoch(epoch)
    ends = [order.ends(lane) for lane in range(LANES)]
    parts = [list(feed(columns, rank=rank, world=world, **options).batches(epoch)) for rank in range(world)]
    assert {len(part) for part in parts} == {sampler.steps_per_epoch}
    result = []
    for step in range(sampler.steps_per_epoch):
        pieces: dict[int, list[int]] = {}
        for rank in range(world):
            rest = parts[rank][step].row_id.tolist()
            for lane in lanes(rank, world):
                count = int(ends[lane][step + 1] - ends[lane][step])
                pieces[lane], rest = rest[:count], rest[count:]
            assert not rest
        result.append([row for lane in range(LANES) for row in pieces[lane]])
    return result


def assert_true_rows(batch: Rows, columns: Columns, num_teachers: int = 1) -> None:
    """Every row has its own values, logits included."""
    position = {int(row_id): index for index, row_id in enumerate(columns.row_id)}
    index = [position[int(row_id)] for row_id in batch.row_id]
    np.testing.assert_array_equal(batch.numeric.numpy(), columns.numeric[index])
    np.testing.assert_array_equal(batch.categorical.numpy(), columns.categorical[index])
    np.testing.assert_array_equal(batch.labels.numpy(), columns.label[index])
    assert batch.logits.shape == (len(batch), num_teachers, 3)
    for teacher in range(num_teachers):
        np.testing.assert_array_equal(batch.logits[:, teacher].numpy(), columns.logits[index] + np.float32(teacher))
    assert (batch.weights == 1).all()


def assert_contract(batch: Rows) -> None:
    dtypes = [tensor.dtype for tensor in batch.tensors()]
    wide, narrow = torch.int64, torch.float32
    assert dtypes == [wide, narrow, torch.int32, wide, narrow, narrow, torch.uint8, *[narrow] * 3]
    assert {tensor.shape[0] for tensor in batch.tensors()} == {len(batch)}
    assert batch.numeric.shape[1:] == (3,)
    assert batch.categorical.shape[1:] == (2,)


@pytest.fixture(scope="module")
def columns() -> Columns:
    return make_columns(700)


@pytest.mark.parametrize("cache", [STREAM, HELD])
@pytest.mark.parametrize("world", WORLDS)
def test_e1_the_global_batches_are_the_same_for_every_world(columns: Columns, world: int, cache: int) -> None:
    for epoch in (0, 1):
        assert by_lane(columns, epoch, world, cache=cache) == ids(feed(columns).batches(epoch))


@pytest.mark.parametrize("cache", [STREAM, HELD])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("rows", "group"), TINY)
def test_n6_n7_tiny_splits(rows: int, group: int, world: int, cache: int) -> None:
    columns = make_columns(rows)
    batches = by_lane(columns, 0, world, group=group, batch=4, cache=cache)
    assert batches == by_lane(columns, 0, 1, group=group, batch=4)
    assert sorted(row for batch in batches for row in batch) == sorted(columns.row_id.tolist())
    for rank in range(world):
        for batch in feed(columns, group, rank, world, cache, batch=4).batches(0):
            assert_contract(batch)
            assert_true_rows(batch, columns)


@pytest.mark.parametrize("cache", [STREAM, HELD])
def test_every_row_comes_once_an_epoch_with_its_own_values(columns: Columns, cache: int) -> None:
    one = feed(columns, cache=cache, reader=MemoryReader(columns, num_teachers=2))
    for epoch in (0, 3):
        batches = list(one.batches(epoch))
        assert sorted(row for batch in batches for row in batch.row_id.tolist()) == sorted(columns.row_id.tolist())
        for batch in batches:
            assert_contract(batch)
            assert_true_rows(batch, columns, num_teachers=2)


def test_epochs_and_seeds_differ(columns: Columns) -> None:
    orders = [ids(feed(columns, seed=seed).batches(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for k, a in enumerate(orders) for b in orders[:k])
    assert ids(feed(columns).batches(1)) == ids(feed(columns).batches(1))


def test_batches_hold_about_as_many_rows_as_asked_for(columns: Columns) -> None:
    sizes = [len(batch) for batch in feed(columns).batches(0)]
    assert len(sizes) == -(-700 // 32)
    assert all(abs(size - 700 / len(sizes)) <= LANES for size in sizes)


@pytest.mark.parametrize("batch", [3, 5, 13, 32])
@pytest.mark.parametrize("cache", [STREAM, HELD])
@pytest.mark.parametrize("world", [1, 3])
def test_starting_anywhere_gives_the_rest_of_the_epoch(columns: Columns, world: int, cache: int, batch: int) -> None:
    """E2: order, not only content; also where a lane has fewer rows than there are steps, and none in some of them."""
    for rank in range(world):
        one = feed(columns, rank=rank, world=world, cache=cache, batch=batch)
        whole = ids(one.batches(2))
        for start in range(one.steps_per_epoch + 1):
            assert ids(one.batches(2, start_step=start)) == whole[start:]


def test_resuming_twice_in_an_epoch_gives_the_same_order(columns: Columns) -> None:
    one = feed(columns, cache=STREAM)
    whole = ids(one.batches(0))
    joined, start = [], 0
    for stop in (7, 14, one.steps_per_epoch):
        for _, batch in zip(range(start, stop), feed(columns, cache=STREAM).batches(0, start), strict=False):
            joined.append(batch.row_id.tolist())
        start = stop
    assert joined == whole


def test_resuming_reads_only_the_windows_in_flight_and_what_follows(columns: Columns) -> None:
    group, start = 5, 15
    sampler = Sampler(make_units(columns, group), 32, 0)
    order = sampler.epoch(0)
    needed = {
        unit.group
        for lane in range(LANES)
        for window in order.lanes[lane]
        if window.end > order.ends(lane)[start]
        for unit in window.units
    }
    reader = MemoryReader(columns)
    resumed = Feed(reader, sampler, cache_bytes=STREAM).batches(0, start)
    next(resumed)
    first_read = set(reader.read)
    assert len(list(resumed)) == sampler.steps_per_epoch - start - 1
    width_probe, read = reader.read[0], reader.read[1:]
    assert width_probe == sampler.units[0].group
    assert sorted(read) == sorted(needed)
    assert len(needed) < len(sampler.units)
    assert len(first_read) < len(needed)  # what is needed later is not read before the first batch


def test_a_held_split_is_read_once(columns: Columns) -> None:
    reader = MemoryReader(columns)
    one = feed(columns, reader=reader)
    for epoch in range(3):
        list(one.batches(epoch))
    list(one.sequential(50))
    assert sorted(reader.read[1:]) == list(range(140))  # the first unit alone, for the widths


def test_a_split_is_held_only_if_it_fits(columns: Columns) -> None:
    per_row = 8 + 3 * 4 + 2 * 4 + 4 + 4 + 3 * 4
    for cache, times in ((per_row * 700, 1), (per_row * 700 - 1, 2)):
        reader = MemoryReader(columns)
        one = feed(columns, reader=reader, cache=cache)
        assert ids(one.batches(0)) + ids(one.batches(1)) == ids(feed(columns).batches(0)) + ids(
            feed(columns).batches(1)
        )
        assert len(reader.read) == 1 + 140 * times


@pytest.mark.parametrize("cache", [STREAM, HELD])
@pytest.mark.parametrize("world", [1, 4])
def test_repeated_rows_come_exactly_so_often(columns: Columns, world: int, cache: int) -> None:
    repeats = (1, 2, 3)
    batches = by_lane(columns, 0, world, repeats=repeats, cache=cache)
    assert batches == by_lane(columns, 0, 1, repeats=repeats)
    found, times = np.unique([row for batch in batches for row in batch], return_counts=True)
    order = np.argsort(columns.row_id)
    assert found.tolist() == columns.row_id[order].tolist()
    assert times.tolist() == np.asarray(repeats)[columns.label[order]].tolist()


def test_no_rows_give_no_batches() -> None:
    empty = Feed(MemoryReader(make_columns(0)), Sampler((), 8, 0))
    assert empty.steps_per_epoch == 0
    assert list(empty.batches(0)) == []
    assert list(empty.sequential(8)) == []


@pytest.mark.parametrize("cache", [STREAM, HELD])
def test_n7_a_worker_without_rows_gets_empty_batches_of_the_right_widths(cache: int) -> None:
    parts = [list(feed(make_columns(1), rank=rank, world=12, cache=cache).batches(0)) for rank in range(12)]
    assert [len(part[0]) for part in parts] == [1] + [0] * 11
    for part in parts:
        assert_contract(part[0])
        assert part[0].logits.shape[1:] == (1, 3)


@pytest.mark.parametrize("cache", [STREAM, HELD])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("batch_rows", [1, 32, 1000])
def test_a_sequential_pass_has_every_row_once_in_stored_order(world: int, cache: int, batch_rows: int) -> None:
    columns = make_columns(83)
    passes = [list(feed(columns, 5, rank, world, cache).sequential(batch_rows)) for rank in range(world)]
    assert len({len(batches) for batches in passes}) == 1
    units = make_units(columns, 5)
    for rank, batches in enumerate(passes):
        share = [columns.row_id[unit.first : unit.first + unit.rows] for unit in units[rank::world]]
        expected = np.concatenate(share).tolist()
        assert [row for batch in ids(batches) for row in batch] == expected
        full, rest = divmod(len(expected), batch_rows)
        sizes = [batch_rows] * full + [rest] * bool(rest)
        assert [len(batch) for batch in batches] == sizes + [0] * (len(batches) - len(sizes))
        for batch in batches:
            assert_contract(batch)
            assert_true_rows(batch, columns)


def test_a_sequential_pass_may_begin_again(columns: Columns) -> None:
    one = feed(columns)
    assert ids(one.sequential(64)) == ids(one.sequential(64))


def test_a_worker_holds_its_share_and_the_whole_within_one_budget(columns: Columns) -> None:
    reader = MemoryReader(columns)
    one = feed(columns, rank=0, world=2, reader=reader, cache=48 * 700)
    for _ in range(2):
        list(one.sequential(64))
    assert len(reader.read) == 1 + 70  # the share is held
    for _ in range(2):
        list(one.batches(0))
    assert len(reader.read) > 1 + 70 + 140 / 2 + 10  # the whole does not fit beside it


def test_closing_the_batches_closes_the_reader(columns: Columns) -> None:
    closed = []

    class Watched(MemoryReader):
        def __call__(self, units):  # type: ignore[no-untyped-def]
            try:
                yield from super().__call__(units)
            finally:
                closed.append(len(units))

    batches = feed(columns, reader=Watched(columns), cache=STREAM).batches(0)
    next(batches)
    assert closed == [1]
    batches.close()
    assert closed == [1, 140]


def test_an_error_of_the_reader_reaches_the_consumer(columns: Columns) -> None:
    class Broken(MemoryReader):
        def __call__(self, units):  # type: ignore[no-untyped-def]
            for number, table in enumerate(super().__call__(units)):
                if number == 100:
                    raise OSError("torn")
                yield table

    with pytest.raises(OSError, match="torn"):
        list(feed(columns, reader=Broken(columns), cache=STREAM).batches(0))


def test_a_wrong_world_is_refused(columns: Columns) -> None:
    with pytest.raises(ConfigError, match="one of 1, 2, 3, 4, 6, 12, got 5"):
        feed(columns, world=5)


def test_a_batch_of_a_held_split_costs_at_most_half_a_millisecond() -> None:
    """17,000 rows of 13 numeric and 26 categorical columns, batches of 1024; the best of many on a busy machine."""
    columns = make_columns(17_000, num_numeric=13, num_categorical=26)
    one = feed(columns, group=355, batch=1024)
    seconds = []
    for epoch in range(4):
        batches = one.batches(epoch)
        next(batches)  # reads the split and lays out the order
        for _ in range(one.steps_per_epoch - 1):
            before = time.perf_counter()
            next(batches)
            seconds.append(time.perf_counter() - before)
    assert min(seconds) <= 0.5e-3
