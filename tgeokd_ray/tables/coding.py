"""Columns of texts as dictionaries: what depends on the text alone is done once for each distinct one. N rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.hashing import Words

_WORD = 8  # bytes
_HIGH_BITS = np.uint64(0x8080808080808080)


def coded_texts(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Texts or bytes [N] as indices into the distinct ones, in the order in which they first occur; nulls stay null."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(whole.type):
        return whole
    return (_coded_words(whole) if pa.types.is_binary(whole.type) and len(whole) else None) or whole.dictionary_encode()


def _coded_words(column: pa.Array) -> pa.DictionaryArray | None:
    """Texts that are all of eight bytes, as ids of so many hex digits are, taken as numbers, which are told apart in
    half the time; None for other texts."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    wide = np.diff(bounds) == _WORD
    given = len(column) - column.null_count
    if bounds[-1] - bounds[0] != _WORD * given or int(wide.sum()) != given or not given:
        return None
    words = pa.Array.from_buffers(pa.uint64(), given, [None, data.slice(int(bounds[0]), _WORD * given)])
    coded = words.dictionary_encode()
    indices = coded.indices
    if column.null_count:
        codes = np.zeros(len(column), dtype=np.int32)
        codes[wide] = indices.to_numpy()
        indices = pa.array(codes, mask=~wide)
    return pa.DictionaryArray.from_arrays(indices, text_of(coded.dictionary.to_numpy()))


def coded(frame: pa.Table, name: str) -> tuple[NDArray[np.int32], pa.Array]:
    """(codes [N], words [D]) of a text column; the code of a null is D. A word need not occur in any row."""
    column = coded_texts(frame[name].combine_chunks())
    words = column.dictionary.cast(pa.large_string())
    codes = column.indices
    if codes.null_count:
        codes = codes.fill_null(pa.scalar(len(words), codes.type))
    return codes.to_numpy(), words


def as_words(texts: pa.Array) -> Words | None:
    """Texts without nulls that are all of eight bytes as numbers, which tell them apart; None for other texts."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if not len(texts) or texts.null_count or not (np.diff(bounds) == _WORD).all():
        return None
    return np.frombuffer(data, dtype=np.uint64, count=len(texts), offset=int(bounds[0]))


def text_of(words: Words) -> pa.Array:
    """The texts that `as_words` took as numbers; as bytes where they are more than ASCII."""
    ascii_only = not (words & _HIGH_BITS).any()
    offsets = np.arange(0, _WORD * len(words) + 1, _WORD, dtype=np.int64)
    kind = pa.large_string() if ascii_only else pa.large_binary()
    return pa.Array.from_buffers(kind, len(words), [None, pa.py_buffer(offsets), pa.py_buffer(words)])


def in_process_hash(texts: pa.Array) -> Words:
    """A 64-bit hash of each text, good for this process alone: another version of polars may have other ones."""
    return pl.Series(texts).hash().to_numpy()


class Lookup:
    """Places in a list of distinct texts, built once and asked often; exact, whatever collides.

    Texts of eight bytes are looked up as numbers, lists of others by a hash, and then compared.
    """

    def __init__(self, texts: pa.Array) -> None:
        words = as_words(texts)
        keys = in_process_hash(texts) if words is None else words
        order = np.argsort(keys)
        self._texts, self._order, self._keys, self._exact = texts, order, keys[order], words is not None
        self._collide = bool((self._keys[1:] == self._keys[:-1]).any())

    def find(self, texts: pa.Array) -> NDArray[np.int64]:
        """The place of each text, -1 for one that is not in the list."""
        found = np.full(len(texts), -1, dtype=np.int64)
        keys = as_words(texts) if self._exact else in_process_hash(texts)
        if self._collide or keys is None:  # two hashes of a list of five million collide once in a million lists
            return np.asarray(pc.index_in(texts, value_set=self._texts).fill_null(-1).to_numpy(), dtype=np.int64)
        if not len(self._keys):
            return found
        order = np.argsort(keys)  # sorted ones are found several times as fast
        ordered = keys[order]
        near = np.minimum(np.searchsorted(self._keys, ordered), len(self._keys) - 1)
        hits = self._keys[near] == ordered
        alike, places = order[hits], self._order[near[hits]]
        if not self._exact:
            same = pc.equal(self._texts.take(pa.array(places)), texts.take(pa.array(alike)))
            alike, places = (array[same.to_numpy(zero_copy_only=False)] for array in (alike, places))
        found[alike] = places
        return found
