"""A hash of every text of a column, the same on every machine and in every version."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tgeokd_ray.hashing import Words, keyed, mix

_POSITION = np.uint64(256)


def text_hash(texts: pa.Array, word: np.uint64) -> Words:
    """A 64-bit hash of each text's UTF-8 bytes; a null hashes as the empty text does.

    Each byte is hashed with its place in the text, the sum over the text and its length are hashed again: equal texts
    agree in every array, other texts collide with probability 2**-64.
    """
    column = texts.cast(pa.large_binary())
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    first, last = int(offsets[0]), int(offsets[-1])
    data = column.buffers()[2]
    flat = np.frombuffer(data, dtype=np.uint8)[first:last] if last > first else np.zeros(0, dtype=np.uint8)
    places = np.arange(len(flat), dtype=np.uint64) - np.repeat((offsets[:-1] - first).astype(np.uint64), lengths)
    sums = np.zeros(len(flat) + 1, dtype=np.uint64)
    np.cumsum(keyed(places * _POSITION + flat, word), out=sums[1:])
    totals = sums[offsets[1:] - first] - sums[offsets[:-1] - first]
    return keyed(totals ^ mix(lengths.astype(np.uint64)), word)
