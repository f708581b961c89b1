"""Rows as tensors, and the one place where Arrow becomes torch.

N rows, P numeric columns, F categorical columns, M teachers, C classes, Q stored ratios.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, takewhile
from operator import attrgetter
from typing import Any

import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from tgeokd_ray.errors import IntegrityError, Problem
from tgeokd_ray.feed.arrow import listed, whole, width_of


@dataclass(frozen=True)
class Rows:
    """`row_id` [N] int64, `numeric` [N, P] float32, or pixels as uint8, `categorical` [N, F] fused ids, `labels` [N]
    class indices, -1 for none, `weights` [N] float32, `logits` [N, M, C] float32; `covered` [N, M] uint8 is 0 where a
    teacher has no logits for a row, and [N, 0] where every teacher has some for all; `ratios` [N, Q, M + 1] float32
    are u of every teacher and the gate of stored ratios. What a channel model says of them: `targets` [N, C], denoised
    labels, and `offset` [N, 1], the logit of how credible the teachers are, both float32 and [N, 0] where nobody asked.

    Fused ids are int32, as stored; labels are so too, and int64 in a batch (`as_batch` widens them). The tensors may be
    views of read-only memory that others share: never write into them.
    """

    row_id: Tensor
    numeric: Tensor
    categorical: Tensor
    labels: Tensor
    weights: Tensor
    logits: Tensor
    covered: Tensor
    ratios: Tensor
    targets: Tensor
    offset: Tensor

    def __len__(self) -> int:
        return self.row_id.shape[0]

    def __getitem__(self, rows: slice) -> Rows:
        return self._map(lambda tensor: tensor[rows])

    def take(self, index: Tensor) -> Rows:
        """The rows at the positions `index` [K] int64, in that order."""
        return self._map(lambda tensor: tensor.index_select(0, index))

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on `device`; of pinned ones a GPU's copies go on while the caller does."""
        ahead = torch.device(device).type == "cuda"
        return self._map(lambda tensor: tensor.to(device, non_blocking=ahead))

    def pinned(self) -> Rows:
        """The same rows in memory that a GPU copies by itself."""
        return self._map(torch.Tensor.pin_memory)

    def as_batch(self) -> Rows:
        """The same rows with labels as int64, as losses take them."""
        return replace(self, labels=self.labels.long())

    @property
    def bytes_per_row(self) -> int:
        """Memory of one row."""
        return sum(tensor.element_size() * tensor.shape[1:].numel() for tensor in self.tensors())

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of the fields."""
        found: tuple[Tensor, ...] = _FIELDS(self)
        return found

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors by name, as views."""
        return {field.name: getattr(self, field.name).numpy() for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Rows:
        """The inverse of `to_arrays`, as views; of arrays that nobody may write into too."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(**{name: torch.from_numpy(value) for name, value in arrays.items()})

    def _map(self, function: Callable[[Tensor], Tensor]) -> Rows:
        return Rows(*map(function, self.tensors()))


_FIELDS = attrgetter(*(field.name for field in fields(Rows)))


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on its way to `device`: a GPU copies it by itself while the caller goes on."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """The rows of one or more parts, in order; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*map(torch.cat, zip(*(part.tensors() for part in parts), strict=True)))


def empty_like(layout: Rows, num_rows: int) -> Rows:
    """Room for `num_rows` rows shaped as `layout`."""
    return Rows(*(tensor.new_empty(num_rows, *tensor.shape[1:]) for tensor in layout.tensors()))


def collect(parts: Iterable[Rows], layout: Rows, num_rows: int) -> Rows:
    """`concatenate` for parts that come one by one, shaped as `layout`, `num_rows` in all; never twice in memory."""
    target, first = empty_like(layout, num_rows), 0
    for part in parts:
        for there, source in zip(target.tensors(), part.tensors(), strict=True):
            there[first : first + len(part)].copy_(source)
        first += len(part)
    return target


def decode(table: pa.Table, num_classes: int) -> Rows:
    """The rows of one unit as stored, as views of Arrow's memory where it is one piece.

    Columns row_id and label; numeric, categorical and weight where the table has them (weight 1 otherwise), and after
    numeric and categorical what teacher_numeric and teacher_categorical hold; logits_0, logits_1, ... for M teachers,
    covered_0, ... for those that lack rows, ratio_0, ... for stored ratios; target and offset of a channel.
    IntegrityError for a null.
    """
    names, rows = set(table.column_names), table.num_rows
    teachers = list(takewhile(lambda m: f"logits_{m}" in names, count()))
    logits = [_tensor(table, f"logits_{m}") for m in teachers]
    ratios = [_tensor(table, name) for name in takewhile(names.__contains__, (f"ratio_{q}" for q in count()))]
    return Rows(
        row_id=_tensor(table, "row_id"),
        numeric=_features(table, "numeric", torch.float32),
        categorical=_features(table, "categorical", torch.int32),
        labels=_tensor(table, "label"),
        weights=_tensor(table, "weight") if "weight" in names else torch.ones(rows),
        logits=_side_by_side(logits) if logits else torch.empty(rows, 0, num_classes),
        covered=_covered(table, teachers),
        ratios=_side_by_side(ratios) if ratios else torch.empty(rows, 0, 1 + len(teachers)),
        targets=_tensor(table, "target") if "target" in names else torch.empty(rows, 0),
        offset=_tensor(table, "offset").unsqueeze(-1) if "offset" in names else torch.empty(rows, 0),
    )


def _features(table: pa.Table, name: str, dtype: torch.dtype) -> Tensor:
    """[N, width]: the student's columns, then the teacher's own if they were read; one alone stays a view."""
    parts = [_tensor(table, column) for column in (name, f"teacher_{name}") if column in table.column_names]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([torch.empty(table.num_rows, 0, dtype=dtype), *parts], dim=1)


def _covered(table: pa.Table, teachers: Sequence[int]) -> Tensor:
    """[N, M], or [N, 0] where no teacher lacks a row."""
    names = [f"covered_{m}" for m in teachers]
    if not set(names) & set(table.column_names):
        return torch.empty(table.num_rows, 0, dtype=torch.uint8)
    all_there = torch.ones(table.num_rows, dtype=torch.uint8)
    return torch.stack([_tensor(table, name) if name in table.column_names else all_there for name in names], dim=1)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """[N, K] of each of M as [N, M, K]; a single one stays a view."""
    return parts[0].unsqueeze(1) if len(parts) == 1 else torch.stack(list(parts), dim=1)


def _tensor(table: pa.Table, name: str) -> Tensor:
    """A column as [N], or [N, width] for lists and bytes of a fixed size; DLPack shares the memory and says nothing
    about it."""
    array = whole(table.column(name))
    width = width_of(array)
    values = array if width is None else listed(array)
    if array.null_count or values.null_count:
        raise IntegrityError([Problem("a value is missing (null)", column=name)])
    tensor = from_dlpack(values)
    return tensor if width is None else tensor.reshape(len(array), width)
