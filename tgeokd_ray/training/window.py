"""The rows of an embedding table that a step needs, as a small table of their own.

V rows in the table, U of them named by a step's batches on any worker; R students in the pack. A step on the window is
the step on the table: gradients, hypergradients and what workers exchange are [R, U, ...], never [R, V, ...]. Where
all rows move, as those of dense Adam do without a gradient, the update alone is of the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.rows import selected, write
from tgeokd_ray.training.state import Patch, State, Tensors
from tgeokd_ray.training.worker import Worker

# Counting marks all V rows, sorting takes the ids alone: on one core they cost the same at about 30 rows an id.
SORTED_FROM = 32


@dataclass(frozen=True)
class Window:
    """`rows` [U], ascending, of the tables of a state, and the parts of the state that lie in them, (part, name).

    A window of a size that does not depend on the ids ends in repeats of its last row, which no id names: they are
    zeros, what becomes of them is nothing, and `own` [U] are the places of what is written in theirs.
    """

    rows: Tensor
    tables: tuple[tuple[str, str], ...]
    own: Tensor | None = None

    def entered(self, state: State) -> State:
        """The state with the rows [R, U, ...] in place of the tables."""
        return _with(state, {key: selected(_of(state, key), self.rows, self.own) for key in self.tables})

    def moved(self, state: State, gradients: Tensors, optimizer: Optimizer, rate: Tensor) -> State:
        """The state after a step of the whole tables along gradients [R, U, ...] that are zero outside the window."""
        whole = dict(gradients)
        for name in {name for part, name in self.tables if part == "theta"}:
            whole[name] = torch.zeros_like(state.theta[name])
            write(whole[name], self.rows, gradients[name], self.own)
        theta, moments = optimizer.update(state.theta, whole, state.moments, rate)
        return replace(state, theta=theta, moments=moments, step=state.step + 1)

    def left(self, state: State, stepped: State) -> State:
        """The state that `stepped`, which was in the window, leads to: its rows are still to be written (`settled`)."""
        patch = Patch(self.rows, {key: _of(stepped, key) for key in self.tables}, self.own)
        return replace(_with(stepped, {key: _of(state, key) for key in self.tables}), patch=patch)


def window(
    optimizer: Optimizer, num_rows: int, batches: Sequence[Rows], worker: Worker, *, fixed: bool = False
) -> tuple[Window, list[Rows]]:
    """The window of these batches, the same on every worker, and the batches with ids that are places in it. One of a
    `fixed` size, for one worker, has as many places as ids can differ, so that nobody waits to hear how many do.
    """
    ids = [rows.categorical for rows in batches]
    keys = [("theta", name) for name in optimizer.named]
    keys += [("moments", moment) for name in optimizer.named for moment in optimizer.moments_of(name)]
    if fixed:
        rows, own, places = sorted_window(ids, num_rows)
        return Window(rows, tuple(keys), own), _at(batches, places)
    rows = _distinct(torch.cat([part.flatten() for part in ids]), num_rows)
    if worker.size > 1:
        short = torch.int32 if num_rows < 1 << 31 else torch.int64
        rows = _distinct(torch.cat(worker.gather(rows.to(short))), num_rows)
    return Window(rows, tuple(keys)), _at(batches, _places(rows, ids, num_rows))


def sorted_window(ids: Sequence[Tensor], num_rows: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """`rows` and `own` of a window of a fixed size, and where the ids are in it, in the order in which they come.

    It has a place for each of n ids, or for each row of the table if they are fewer. Nothing has a size that the ids
    decide, so that no device is waited for, and a CUDA graph can record it.
    """
    flat = torch.cat([part.flatten() for part in ids])
    ordered, order = flat.sort()
    last = torch.cat([ordered[:1] != ordered[:1], ordered[1:] != ordered[:-1]]).cumsum(0)
    places = torch.empty_like(order).scatter_(0, order, last)
    size = min(len(flat), num_rows)
    rows = ordered[-1:].long().repeat(size).scatter_(0, last, ordered.long())
    own = torch.arange(size, device=flat.device).minimum(last[-1:])
    parts = torch.split(places, [part.numel() for part in ids])
    return rows, own, [place.reshape(part.shape) for place, part in zip(parts, ids, strict=True)]


def _at(batches: Sequence[Rows], places: Sequence[Tensor]) -> list[Rows]:
    return [replace(batch, categorical=place) for batch, place in zip(batches, places, strict=True)]


def _distinct(ids: Tensor, num_rows: int) -> Tensor:
    """The distinct ids [U] int64, ascending."""
    if num_rows > SORTED_FROM * len(ids):
        distinct: Tensor = torch.unique(ids)
        return distinct.long()
    named = torch.zeros(num_rows, dtype=torch.bool, device=ids.device)
    named.index_fill_(0, ids.long(), True)
    return named.nonzero().squeeze(1)


def _places(rows: Tensor, ids: Sequence[Tensor], num_rows: int) -> list[Tensor]:
    """Where in `rows` the ids are."""
    if num_rows > SORTED_FROM * sum(part.numel() for part in ids):
        return [torch.searchsorted(rows, part.long()) for part in ids]
    place = torch.empty(num_rows, dtype=torch.int64, device=rows.device)
    place.index_copy_(0, rows, torch.arange(len(rows), device=rows.device))
    return [place.index_select(0, part.flatten()).reshape(part.shape) for part in ids]  # a third of the time of place[]


def _of(state: State, key: tuple[str, str]) -> Tensor:
    part, name = key
    value: Tensor = getattr(state, part)[name]
    return value


def _with(state: State, values: dict[tuple[str, str], Tensor]) -> State:
    parts: dict[str, Any] = {part: {**getattr(state, part)} for part, _ in values}
    for (part, name), value in values.items():
        parts[part][name] = value
    return replace(state, **parts)
