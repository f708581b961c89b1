"""Hashes of whole arrays, the same on every machine and in every version: of numbers, of texts, to shares in [0, 1)."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_POSITION = np.uint64(256)


def mix(values: Words) -> Words:
    """The splitmix64 of each word (Steele, Lea and Flood, 2014): the n-th output of the generator is `mix(n * step)`.

    A bijection of 64 bits whose outputs look independent for consecutive inputs.
    """
    z = values + _STEP
    z ^= z >> _SHIFTS[0]
    z *= _MIX[0]
    z ^= z >> _SHIFTS[1]
    z *= _MIX[1]
    z ^= z >> _SHIFTS[2]
    return z


def key(*parts: int | str) -> np.uint64:
    """One word for a tuple of numbers and texts: the first 8 bytes of its blake2b."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def keyed(values: Words, word: np.uint64) -> Words:
    """A hash of each value, of which every key gives an independent one."""
    return mix(mix(values) ^ word)


def shares(values: Words, word: np.uint64) -> NDArray[np.float64]:
    """A number in [0, 1) for each value, uniform, with 53 bits, and independent for every key."""
    return np.asarray((keyed(values, word) >> np.uint64(11)) * 2.0**-53)


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
