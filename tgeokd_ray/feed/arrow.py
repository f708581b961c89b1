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


def listed(array: pa.FixedSizeListArray) -> pa.Array:
    """The values of lists of a fixed size, one after another; those of a null list are undefined."""
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


def lists(values: NDArray[Any]) -> pa.FixedSizeListArray:
    """Numbers [N, K] as lists of the fixed size K."""
    return pa.FixedSizeListArray.from_arrays(flat(values), values.shape[1])
