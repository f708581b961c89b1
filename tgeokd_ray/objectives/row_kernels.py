"""Rows of tables on a GPU, in Triton: gathered, added up and written in one pass over them.

What torch has for it takes a block of threads for each row, of which a row of 16 numbers occupies four: a tenth of the
memory's speed. N ids or places, V rows of a table, D numbers a row. Sums are in an order that is fixed by the places.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

ROWS = 64  # of a program
TILE = 32  # places whose rows one program adds up
TILES = 64  # tiles whose parts are added at once


def gather(table: Tensor, ids: Tensor) -> Tensor:
    """The rows [N, D] of a table [V, D] at ids [N], int32 or int64; zeros where an id is negative."""
    found = table.new_empty(len(ids), table.shape[1])
    if found.numel():
        _launch(_gather, len(ids), ROWS, table.contiguous(), ids, found, len(ids), table.shape[1])
    return found


def write(table: Tensor, ids: Tensor, values: Tensor, own: Tensor) -> None:
    """Write values [N, D] into the rows of a table at ids [N], where `own` [N] is the place itself; not elsewhere."""
    if values.numel():
        _launch(_write, len(ids), ROWS, table, ids, values.contiguous(), own, len(ids), table.shape[1])


def add(values: Tensor, places: Tensor, num_rows: int) -> Tensor:
    """Rows [N, D] added up by place [N] into [num_rows, D].

    Sorted by place they are runs; a tile of them is added up by one program, and a run that is longer than that from
    the parts that its tiles have of it.
    """
    num_places, width = values.shape
    summed = values.new_zeros(num_rows, width)
    if not values.numel():
        return summed
    ordered, order = places.sort(stable=True)
    tiles = triton.cdiv(num_places, TILE)
    parts = values.new_empty(2 * tiles, width)
    _launch(_tile_sums, num_places, TILE, values.contiguous(), order, ordered, summed, parts, num_places, width)
    grid, columns = (tiles,), triton.next_power_of_2(width)
    _long_runs[grid](ordered, summed, parts, num_places, width, TILE, TILES, columns)
    return summed


def mean_square(values: Tensor) -> Tensor:
    """The mean of the squares of each row [N, D], as [N, 1]."""
    found = values.new_empty(len(values), 1)
    if values.numel():
        _launch(_mean_square, len(values), ROWS, values.contiguous(), found, len(values), values.shape[1])
    return found


def _launch(kernel: Any, size: int, rows: int, *arguments: Any) -> None:
    """One program for so many rows; the width is the last argument."""
    kernel[(triton.cdiv(size, rows),)](*arguments, rows, triton.next_power_of_2(arguments[-1]))


@triton.jit
def _gather(table, ids, found, num_ids, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < num_ids)[:, None] & (column < width)
    source = tl.load(ids + row, mask=row < num_ids, other=0).to(tl.int64)
    value = tl.load(table + source[:, None] * width + column, mask=inside & (source >= 0)[:, None], other=0)
    tl.store(found + row.to(tl.int64)[:, None] * width + column, value, mask=inside)


@triton.jit
def _write(table, ids, values, own, num_ids, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)[None, :]
    known = row < num_ids
    known = known & (tl.load(own + row, mask=known, other=-1) == row)
    inside = known[:, None] & (column < width)
    target = tl.load(ids + row, mask=known, other=0).to(tl.int64)
    value = tl.load(values + row.to(tl.int64)[:, None] * width + column, mask=inside)
    tl.store(table + target[:, None] * width + column, value, mask=inside)


@triton.jit
def _mean_square(values, found, num_rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < num_rows)[:, None] & (column < width)
    value = tl.load(values + row.to(tl.int64)[:, None] * width + column, mask=inside, other=0)
    tl.store(found + row, tl.sum(value * value, 1) / width, mask=row < num_rows)


@triton.jit
def _within(left, left_place, right, right_place):
    """Two neighbours in sorted order: the sum of the last run of both."""
    return tl.where(left_place == right_place, left, 0) + right, right_place


@triton.jit
def _tile_sums(values, order, places, summed, parts, num_places, width, TILE: tl.constexpr, COLUMNS: tl.constexpr):
    """The runs of a tile: whole ones to where they belong, the ends of others to the tile's two parts."""
    tile = tl.program_id(0)
    local = tl.arange(0, TILE)
    position = tile * TILE + local
    column = tl.arange(0, COLUMNS)[None, :]
    known = position < num_places
    inside = known[:, None] & (column < width)
    place = tl.load(places + position, mask=known, other=-1).to(tl.int64)  # times the width it may not fit into int32
    following = tl.load(places + position + 1, mask=position + 1 < num_places, other=-1)
    before = tl.load(places + tile * TILE - 1, mask=tile > 0, other=-2)
    source = tl.load(order + position, mask=known, other=0)
    value = tl.load(values + source[:, None] * width + column, mask=inside, other=0)
    spread = tl.broadcast_to(place[:, None], value.shape)
    run, _ = tl.associative_scan((value, spread), 0, _within)
    ends, begun, last = place != following, place == before, local == TILE - 1
    whole = inside & (ends & ~begun)[:, None]
    tl.store(summed + place[:, None] * width + column, run, mask=whole)
    head = inside & (begun & (ends | last))[:, None]
    first = (position // TILE).to(tl.int64)[:, None] * 2 * width + column  # of the tile's two parts
    tl.store(parts + first, run, mask=head)
    tail = inside & (~begun & ~ends & last)[:, None]
    tl.store(parts + first + width, run, mask=tail)


@triton.jit
def _long_runs(
    places, summed, parts, num_places, width, TILE: tl.constexpr, TILES: tl.constexpr, COLUMNS: tl.constexpr
):
    """A run that begins in this tile and ends in a later one: its part here and in all those tiles."""
    tile = tl.program_id(0)
    end = tile * TILE + TILE
    place = tl.load(places + end - 1, mask=end <= num_places, other=-1).to(tl.int64)
    following = tl.load(places + end, mask=end < num_places, other=-2)
    before = tl.load(places + tile * TILE - 1, mask=tile > 0, other=-3)
    if (place == following) & (place != before):
        column = tl.arange(0, COLUMNS)
        own = tl.load(parts + (2 * tile + 1).to(tl.int64) * width + column, mask=column < width, other=0)
        first, going = tile + 1, True
        while going:
            later = first + tl.arange(0, TILES)
            begin = later * TILE
            same = tl.load(places + begin, mask=begin < num_places, other=-1) == place
            inside = same[:, None] & (column < width)[None, :]
            own += tl.sum(
                tl.load(parts + (2 * later).to(tl.int64)[:, None] * width + column[None, :], mask=inside, other=0), 0
            )
            first += TILES
            going = tl.sum(same.to(tl.int32), 0) == TILES
        tl.store(summed + place * width + column, own, mask=column < width)
