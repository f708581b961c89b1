"""Arrow arrays to and from numpy as views of the same memory.

pyarrow's own `to_numpy`, `pa.array` and `flatten` load pandas and its compute functions at their first call: .75 s of
CPU time before a process has read its first row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one piece, copied only where it is in several."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def width_of(array: pa.Array) -> int | None:
    """How many values a row has, of lists or of bytes of a fixed size; None for single values."""
    if pa.types.is_fixed_size_binary(array.type):
        return int(array.type.byte_width)
    return int(array.type.list_size) if pa.types.is_fixed_size_list(array.type) else None


def listed(array: pa.Array) -> pa.Array:
    """The values of lists, or of bytes, of a fixed size, one after another; those of a null are undefined."""
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        data = array.buffers()[1].slice(array.offset * width, len(array) * width)
        return pa.Array.from_buffers(pa.uint8(), len(array) * width, [None, data])
    width = array.type.list_size
    return array.values.slice(array.offset * width, len(array) * width)


def viewed(array: pa.Array) -> NDArray[Any]:
    """Numbers without nulls as a read-only view."""
    values: NDArray[Any] = np.from_dlpack(array)
    return values


def flat(values: NDArray[Any]) -> pa.Array:
    """Numbers [N], or all of [N, K] one after another, as an array of their type."""
    values = np.ascontiguousarray(values).reshape(-1)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def bytes_of(values: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """Bytes [N, K] as one value of the fixed size K a row: Parquet knows no single byte, and would take four for it."""
    rows, width = values.shape
    data = pa.py_buffer(np.ascontiguousarray(values).reshape(-1))
    return pa.Array.from_buffers(pa.binary(width), rows, [None, data])


def lists(values: NDArray[Any]) -> pa.FixedSizeListArray:
    """Numbers [N, K] as lists of the fixed size K."""
    return pa.FixedSizeListArray.from_arrays(flat(values), values.shape[1])
