"""Hashes of whole arrays, the same on every machine and in every version: of numbers, and to shares in [0, 1)."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


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
