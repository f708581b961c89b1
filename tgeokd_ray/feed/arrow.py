"""Arrow arrays to and from numpy as views of the same memory.

pyarrow's own `to_numpy`, `pa.array` and `flatten` load pandas and its compute functions at their first call: .75 s of
CPU time before a process has read its first row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# Of a field: what its bytes are.
NUMBERS = b"numbers"
PACKED = {b"float": pa.float32(), b"int32": pa.int32()}


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


def packed(table: pa.Table) -> pa.Table:
    """A table as it is written: lists of a fixed size as their bytes, one value a row, and the type of the numbers in
    the metadata of the field. Of lists Parquet stores and reads lengths, too, which takes longer than the numbers do.
    ArrowInvalid for numbers of a type that nobody would read.
    """
    for place, field in enumerate(table.schema):
        if pa.types.is_fixed_size_list(field.type):
            if field.type.value_type not in PACKED.values():
                raise pa.ArrowInvalid(f"column {field.name}: {field.type} can not be packed")
            chunks = [_bytes_in_place_of(chunk) for chunk in table.column(place).chunks]
            kind = pa.binary(field.type.list_size * field.type.value_type.bit_width // 8)
            said = pa.field(field.name, kind, metadata={NUMBERS: str(field.type.value_type)})
            table = table.set_column(place, said, pa.chunked_array(chunks, kind))
    return table


def unpacked(table: pa.Table) -> pa.Table:
    """The inverse of `packed`, as views; columns that are not packed stay as they are. ArrowInvalid for numbers of
    another type, and for bytes that are no whole number of them."""
    for place, field in enumerate(table.schema):
        said = (field.metadata or {}).get(NUMBERS)
        if said is not None:
            number = PACKED.get(said)
            bits = field.type.byte_width * 8 if pa.types.is_fixed_size_binary(field.type) else 0
            if number is None or not bits or bits % number.bit_width:
                raise pa.ArrowInvalid(f"column {field.name}: {field.type} holds no {said.decode()} numbers")
            kind = pa.list_(number, bits // number.bit_width)
            chunks = [_lists_in_place_of(chunk, kind) for chunk in table.column(place).chunks]
            table = table.set_column(place, field.name, pa.chunked_array(chunks, kind))
    return table


def _bytes_in_place_of(array: pa.FixedSizeListArray) -> pa.FixedSizeBinaryArray:
    values = listed(array)
    width = array.type.list_size * values.type.bit_width // 8
    data = values.buffers()[1].slice(values.offset * values.type.bit_width // 8, len(array) * width)
    return pa.Array.from_buffers(pa.binary(width), len(array), [None, data])


def _lists_in_place_of(array: pa.FixedSizeBinaryArray, kind: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    there, data = array.buffers()
    length = (array.offset + len(array)) * kind.list_size
    values = pa.Array.from_buffers(kind.value_type, length, [None, data])
    return pa.Array.from_buffers(kind, len(array), [there], offset=array.offset, children=[values])


def bytes_of(values: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """Bytes [N, K] as one value of the fixed size K a row: Parquet knows no single byte, and would take four for it."""
    rows, width = values.shape
    data = pa.py_buffer(np.ascontiguousarray(values).reshape(-1))
    return pa.Array.from_buffers(pa.binary(width), rows, [None, data])


def lists(values: NDArray[Any]) -> pa.FixedSizeListArray:
    """Numbers [N, K] as lists of the fixed size K."""
    return pa.FixedSizeListArray.from_arrays(flat(values), values.shape[1])
