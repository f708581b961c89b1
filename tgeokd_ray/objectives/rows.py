"""Rows of tables: read, added up and written in the way that is quickest on the device.

N ids or places, V rows of a table, U of a window, D numbers a row, R students in the pack. Reading and adding up are
each other's adjoint, and may be differentiated as often as one likes, in reverse and in forward mode.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

# What adding up in bags pays for, with torch's radix sort of int16: from how many values on, from how wide rows on, and
# up to how many rows (docs/performance.md).
BAGS_FROM, BAG_WIDTH, BAGS = 1 << 16, 8, 1 << 16


def read(table: Tensor, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The rows [..., D] of a table [V, D] at ids [...], int32 or int64, on a CPU as numbers of this type.

    They are converted before or after, whichever is less; gradients are added up in the table's own type. On a CPU the
    backward pass of torch's embedding takes eight times as long as that of index_select, and the latter twice as long
    with int32 ids as with int64 ones, which cost nothing beside it.
    """
    shape, on_cpu = (*ids.shape, table.shape[1]), table.device.type == "cpu"
    dtype = dtype if dtype is not None and on_cpu else table.dtype
    if kernels(table) is not None or (torch.is_grad_enabled() and _in_bags(table, ids.numel(), table.shape[0])):
        found: Tensor = _read(table, ids.flatten(), dtype)
        return found.reshape(shape)
    if not on_cpu:
        return torch.nn.functional.embedding(ids, table)
    if torch.is_grad_enabled():  # converted after: autograd would add up in the narrower type
        return table.index_select(0, ids.flatten().long()).reshape(shape).to(dtype)
    return _taken(table, ids.flatten(), dtype).reshape(shape)


def added(values: Tensor, places: Tensor, num_rows: int) -> Tensor:
    """Rows [N, D] added up by place [N] into [num_rows, D], on a CPU one after the other, on a GPU in an order that the
    places fix."""
    if kernels(values) is not None or _in_bags(values, len(places), num_rows):
        found: Tensor = _added(values, places, num_rows)
        return found
    if values.device.type == "cpu":
        return values.new_zeros(num_rows, values.shape[1]).index_add_(0, places, values)
    total: Tensor = torch.ops.aten.embedding_dense_backward(values, places, num_rows, -1, False)
    return total


def _taken(table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows at ids [N], converted before or after, whichever is less."""
    if dtype is table.dtype:
        return table.index_select(0, ids)
    return table.to(dtype).index_select(0, ids) if table.shape[0] < len(ids) else table.index_select(0, ids).to(dtype)


def _in_bags(like: Tensor, count: int, num_rows: int) -> bool:
    """Whether so many rows are added up by `_bags`: the same bits as `index_add_` gives, in less time."""
    wide = like.dtype is torch.float32 and like.shape[-1] >= BAG_WIDTH
    return like.device.type == "cpu" and wide and count >= BAGS_FROM and num_rows <= BAGS


def _bags(values: Tensor, places: Tensor, num_rows: int) -> Tensor:
    """Rows added up by place, each place a bag that names its rows in their order."""
    sizes = torch.bincount(places, minlength=num_rows)
    if len(sizes) > num_rows:
        raise IndexError(f"place {len(sizes) - 1} is out of bounds, there are {num_rows} rows")
    order = (places - (1 << 15)).short().argsort(stable=True)
    return embedding_bag(order, values, sizes.cumsum(0).sub_(sizes), mode="sum")


def selected(tables: Tensor, rows: Tensor, own: Tensor | None = None) -> Tensor:
    """The rows [R, U, D] that all of R tables [R, V, D] have at `rows` [U].

    Where a row comes more than once, all but the one at its `own` [U] place are zeros; None: no row does.
    """
    found = kernels(tables)
    if found is None:
        values = tables.index_select(1, rows)
        return values if own is None else torch.where(_first(own).reshape(1, -1, 1), values, 0)
    wanted = rows if own is None else torch.where(_first(own), rows, -1)
    parts = [found.gather(table, wanted) for table in tables]
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


def write(tables: Tensor, rows: Tensor, values: Tensor, own: Tensor | None) -> None:
    """Write values [R, U, D] in place into the rows [U] of R tables [R, V, D].

    Where a row comes more than once, `own` [U] is the one place of each whose value is written; None: no row does.
    """
    found = kernels(tables) if tables.is_contiguous() else None
    if found is None:
        tables.index_copy_(1, rows, values if own is None else values.index_select(1, own))
        return
    own = torch.arange(len(rows), device=rows.device) if own is None else own
    for table, value in zip(tables, values, strict=True):
        found.write(table, rows, value, own)


def mean_square(values: Tensor) -> Tensor:
    """The mean of squares along the last axis, [..., D] to [..., 1]."""
    found = kernels(values)
    if found is None:
        return values.square().mean(-1, keepdim=True)
    mean: Tensor = found.mean_square(values.reshape(-1, values.shape[-1]))
    return mean.reshape(*values.shape[:-1], 1)


def _first(own: Tensor) -> Tensor:
    """The places [U] that are their own."""
    return own == torch.arange(len(own), device=own.device)


def kernels(like: Tensor) -> Any:
    """Our kernels for rows as those of a tensor, on its device, or None: torch's own operations then."""
    return _kernels(like.device, like.dtype, like.shape[-1]) if like.device.type == "cuda" else None


@cache
def _kernels(device: torch.device, dtype: torch.dtype, width: int) -> Any:
    """Triton comes with torch for CUDA on Linux. What its compiler makes of the kernels for rows of this type and width
    is tried once: where it fails, or says something else than torch, they are not used."""
    if find_spec("triton") is None:
        return None
    from tgeokd_ray.objectives import row_kernels

    try:
        wrong = disagreement(row_kernels, device, dtype, width)
    except Exception as error:  # a compiler fails in many ways
        wrong = f"{type(error).__name__}: {error}".splitlines()[0]
    if wrong is None:
        return row_kernels
    warnings.warn(f"rows of tables are read by torch, which is slower: our kernels fail here ({wrong})", stacklevel=2)
    return None


def disagreement(kernels: Any, device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    """Where kernels differ from torch's operations on some rows of this type and width, or None. Of 5,000 places most
    are one, whose run is longer than what is added at once."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5000, width, generator=generator, dtype=torch.float64).to(device, dtype)
    places = torch.randint(-60, 8, (5000,), generator=generator).clamp_min_(0).mul_(2).to(device)
    table, rows = values[:16].clone(), torch.tensor([1, 4, 4], device=device)
    expected = table.index_copy(0, rows[:2], values[:2])
    kernels.write(table, rows, values[:3], torch.tensor([0, 1, 1], device=device))
    read = torch.where((places > 2).unsqueeze(-1), expected.index_select(0, places), 0)
    summed = values.new_zeros(16, width).index_add_(0, places, values)
    found = {
        "write": (table, expected),
        "gather": (kernels.gather(table, torch.where(places > 2, places, -1).int()), read),
        "add": (kernels.add(values, places, 16), summed),
        "add of int32": (kernels.add(values, places.int(), 16), summed),
        "mean_square": (kernels.mean_square(values), values.square().mean(-1, keepdim=True)),
    }
    near = 1e3 * torch.finfo(dtype).eps
    return next((name for name, pair in found.items() if not torch.allclose(*pair, rtol=near, atol=near)), None)


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        own = kernels(table)
        found: Tensor = _taken(table, ids, dtype) if own is None else own.gather(table, ids)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.dtype], output: Tensor) -> None:
        table, ctx.ids, ctx.dtype = inputs
        del output
        ctx.num_rows, ctx.own_dtype = table.shape[0], table.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _added(gradient.to(ctx.own_dtype), ctx.ids, ctx.num_rows), None, None

    @staticmethod
    def jvp(ctx: Any, moved: Tensor, *_: None) -> Tensor:
        found: Tensor = _read(moved, ctx.ids, ctx.dtype)
        return found


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, places: Tensor, num_rows: int) -> Tensor:
        own = kernels(values)
        found: Tensor = _bags(values, places, num_rows) if own is None else own.add(values, places, num_rows)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        del output
        ctx.places, ctx.num_rows = inputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _read(gradient, ctx.places, gradient.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, moved: Tensor, *_: None) -> Tensor:
        found: Tensor = _added(moved, ctx.places, ctx.num_rows)
        return found


_read: Any = _Read.apply
_added: Any = _Added.apply
