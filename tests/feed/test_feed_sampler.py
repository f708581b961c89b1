"""Laws of the sampler: order is a pure function of (seed, epoch), balanced, complete, whatever the sizes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from feed_fixtures import make_columns, make_units
from hypothesis import given
from hypothesis import strategies as st

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed import LANES, Sampler, Unit, oversampling_factors
from tgeokd_ray.feed.sampler import LARGE_UNIT, WINDOW_UNITS, Epoch, _permutation, lanes


def units_of(sizes: list[int]) -> list[Unit]:
    firsts = np.cumsum([0, *sizes]).tolist()
    return [Unit("train", "a", k, firsts[k], rows, (rows, 0)) for k, rows in enumerate(sizes)]


def served(epoch: Epoch) -> list[list[tuple[int, int]]]:
    """Per lane, (unit, row within the unit) in the order served."""
    result = []
    for windows in epoch.lanes:
        rows: list[tuple[int, int]] = []
        for window in windows:
            stored = [(unit.group, row) for unit in window.units for row in range(unit.rows)]
            order = epoch.order(window, np.zeros(len(stored), dtype=np.int64))
            rows += [stored[position] for position in order]
        result.append(rows)
    return result


SIZES = st.lists(st.integers(0, 40), max_size=60)


@given(SIZES, st.integers(1, 50), st.integers(0, 2**40), st.integers(0, 5))
def test_every_row_is_served_once_an_epoch(sizes: list[int], batch: int, seed: int, number: int) -> None:
    epoch = Sampler(units_of(sizes), batch, seed).epoch(number)
    rows = [row for lane in served(epoch) for row in lane]
    assert sorted(rows) == [(unit, row) for unit, size in enumerate(sizes) for row in range(size)]


@given(SIZES, st.integers(1, 50))
def test_steps_cover_each_lane_evenly(sizes: list[int], batch: int) -> None:
    sampler = Sampler(units_of(sizes), batch, 0)
    assert sampler.steps_per_epoch == -(-sum(sizes) // batch)
    epoch = sampler.epoch(0)
    for lane in range(LANES):
        ends, rows = epoch.ends(lane), epoch.rows(lane)
        assert ends[0] == 0
        assert ends[-1] == rows
        assert len(ends) == max(sampler.steps_per_epoch, 1) + 1
        assert set(np.diff(ends)) <= {rows // epoch.steps, -(-rows // epoch.steps)}


@given(SIZES, st.integers(1, 50))
def test_lanes_differ_by_at_most_one_unit(sizes: list[int], batch: int) -> None:
    epoch = Sampler(units_of(sizes), batch, 3).epoch(1)
    rows = [epoch.rows(lane) for lane in range(LANES)]
    assert max(rows) - min(rows) <= max(sizes, default=0)


def test_equal_units_give_equal_lanes_and_batches() -> None:
    sampler = Sampler(units_of([100] * 48), 60, 0)
    epoch = sampler.epoch(0)
    assert {epoch.rows(lane) for lane in range(LANES)} == {400}
    batches = sum(np.diff(epoch.ends(lane)) for lane in range(LANES))
    assert set(batches) == {60}


@pytest.mark.parametrize("rows", [1, 5, 11, 13, 25])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_single_rows_are_spread_over_the_steps(rows: int, batch: int) -> None:
    epoch = Sampler(units_of([1] * rows), batch, 0).epoch(0)
    batches = sum(np.diff(epoch.ends(lane)) for lane in range(LANES))
    assert batches.sum() == rows
    assert batches.max() <= batch + 1


def test_the_same_seed_and_epoch_give_the_same_order_and_others_do_not() -> None:
    units = units_of([10] * 30)
    assert served(Sampler(units, 7, 5).epoch(2)) == served(Sampler(units, 99, 5).epoch(2))
    orders = [served(Sampler(units, 7, seed).epoch(number)) for seed in (0, 1) for number in (0, 1, 2)]
    assert all(a != b for k, a in enumerate(orders) for b in orders[:k])


def test_the_order_does_not_depend_on_the_version_of_numpy() -> None:
    """`PCG64(SeedSequence((1, 8, 2, 0, 0))).random_raw(6)` is 1337959448109847538, 12365617427302411646,
    17124908317331602549, 9034887432697274035, 4703693689348879474, 506741295061506825; numpy keeps it so."""
    epoch = Sampler(units_of([6]), 2, 8).epoch(2)
    assert epoch.order(epoch.lanes[0][0], np.zeros(6, dtype=np.int64)).tolist() == [5, 0, 4, 3, 1, 2]


def test_windows_have_four_units_and_start_at_different_times() -> None:
    epoch = Sampler(units_of([10] * 120), 50, 0).epoch(0)
    sizes = [[len(window.units) for window in windows] for windows in epoch.lanes]
    assert sizes[:4] == [[1, 4, 4, 1], [2, 4, 4], [3, 4, 3], [4, 4, 2]]
    assert all(sum(lane) == 10 for lane in sizes)


@pytest.mark.parametrize(("units", "expected"), [(120, [1, 1, 4, 4]), (48, [1, 3]), (12, [1]), (60, [1, 1, 3])])
def test_an_epoch_of_large_units_begins_with_one_a_lane(units: int, expected: list[int]) -> None:
    epoch = Sampler(units_of([LARGE_UNIT] * units), 50, 0).epoch(0)
    assert [len(window.units) for window in epoch.lanes[0]] == expected
    assert all(len(windows[0].units) == 1 for windows in epoch.lanes)
    assert sorted(unit.group for lane in epoch.lanes for window in lane for unit in window.units) == [*range(units)]


def test_equal_random_numbers_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tied:
        def __init__(self, seed: object) -> None: ...

        def random_raw(self, size: int) -> np.ndarray:
            return (np.arange(size) % 7).astype(np.uint64)

    monkeypatch.setattr(np.random, "PCG64", Tied)
    expected = np.argsort(np.arange(5_000) % 7, kind="stable")
    assert _permutation(5_000, 1).tolist() == expected.tolist()


def test_a_lane_of_few_units_is_one_window() -> None:
    epoch = Sampler(units_of([10] * LANES * WINDOW_UNITS), 50, 0).epoch(0)
    assert all([len(window.units) for window in windows] == [WINDOW_UNITS] for windows in epoch.lanes)


def test_rows_move_within_their_window() -> None:
    """One permutation for all rows of a window, not one per unit: rows of different units follow each other."""
    epoch = Sampler(units_of([20] * 48), 50, 0).epoch(0)
    followers = [(a[0], b[0]) for lane in served(epoch) for a, b in pairwise(lane)]
    assert sum(a != b for a, b in followers) > len(followers) / 2


@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(1, 200), st.integers(1, 40))
def test_repeated_classes_come_exactly_so_often(repeats: list[int], rows: int, group: int) -> None:
    columns = make_columns(rows)
    sampler = Sampler(make_units(columns, group), 16, 0, repeats=repeats)
    epoch = sampler.epoch(1)
    times = np.zeros(rows, dtype=int)
    for windows in epoch.lanes:
        for window in windows:
            stored = np.concatenate([np.arange(unit.first, unit.first + unit.rows) for unit in window.units])
            order = epoch.order(window, columns.label[stored])
            assert len(order) == window.end - window.first
            np.add.at(times, stored[order], 1)
    expected = np.asarray(repeats)[columns.label]
    assert times.tolist() == expected.tolist()
    assert sampler.rows == expected.sum()
    assert sampler.steps_per_epoch == -(-sampler.rows // 16)


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ([100, 50, 7], 100, (1, 2, 14)),
        ([100, 50, 7], 10, (1, 2, 10)),
        ([100, 60, 90], 10, (1, 2, 1)),
        ([100, 0], 10, (1, 1)),
        ([0, 0], 10, (1, 1)),
        ([5, 5], 1, (1, 1)),
    ],
)
def test_oversampling_factors(counts: list[int], limit: int, expected: tuple[int, ...]) -> None:
    assert oversampling_factors(counts, limit) == expected
    assert oversampling_factors(np.asarray(counts), limit) == expected


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_every_lane_is_served_by_one_worker(world: int) -> None:
    served_lanes = [lane for rank in range(world) for lane in lanes(rank, world)]
    assert sorted(served_lanes) == list(range(LANES))
    assert all(lane % world == rank for rank in range(world) for lane in lanes(rank, world))


@pytest.mark.parametrize(("rank", "world"), [(0, 5), (0, 0), (0, 24), (2, 2), (-1, 2)])
def test_a_world_that_does_not_divide_the_lanes_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        lanes(rank, world)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_rows": 0}, "batch_rows must be >= 1, got 0"),
        ({"seed": -1}, "seed of the data must be >= 0, got -1"),
        ({"repeats": [1, 0]}, "fewer than 1"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict, expected: str) -> None:
    arguments = {"batch_rows": 4, "seed": 0} | changes
    with pytest.raises(ConfigError, match=expected):
        Sampler(units_of([3]), **arguments)
