"""Row ids and splits: where a row came from decides both, so any machine finds the same ones in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN, ConfigError
from tgeokd_ray.hashing import key, mix, shares
from tgeokd_ray.tables.cards import SPLITS
from tgeokd_ray.tables.text_hash import text_hash

Ids = NDArray[np.int64]
Codes = NDArray[np.int8]

UNUSED = -1
ROW_BITS = 40
PASS_ROWS = 1 << 23
_POSITIVE = np.uint64(2**63 - 1)
_TEXT_ID, _TEXT_CHECK = key("row id"), key("row id check")


def file_row_ids(file_index: int, rows: Ids) -> Ids:
    """`file_index * 2**40 + row`, rows counted from 0 in their file; unique for 2**23 files of 2**40 rows."""
    return rows | np.int64(file_index << ROW_BITS)


def text_ids(texts: pa.Array) -> tuple[Ids, Ids]:
    """(id, check) of each text: two independent hashes, the id of 63 bits. Rows of one id but two checks collide."""
    id_words, checks = text_hash(texts, _TEXT_ID), text_hash(texts, _TEXT_CHECK)
    return (id_words & _POSITIVE).astype(np.int64), checks.view(np.int64)


def assign_splits(
    rules: Mapping[str, Any], row_ids: Ids, file_name: str, times: NDArray[np.float64] | None = None
) -> Codes:
    """The index in `SPLITS` of each row, -1 for an unused one; `rules` is `Card.split_rules` of any kind but `column`.

    A share is cut from one uniform number per row, a pure function of (row id, salt), in the order of `SPLITS`
    whatever the order in the card. `times` in the unit of the bounds is needed for kind `time`; a row without a time
    is unused. ConfigError if no pattern of kind `file` fits the base name `file_name`.
    """
    if rules["kind"] == "hash":
        return share_codes(rules["parts"], row_ids, rules["salt"])
    if rules["kind"] == "file":
        target = next((to for pattern, to in rules["files"] if fnmatchcase(file_name, pattern)), None)
        if target is None:
            patterns = ", ".join(repr(pattern) for pattern, _ in rules["files"])
            raise ConfigError(
                f"no pattern under splits.files fits the file {file_name!r}; there are {patterns}",
                fix="add a pattern for it, or leave the file out",
            )
        return share_codes(target, row_ids, rules["salt"])
    if times is None:
        raise ValueError("splits by time need the times of the rows")
    return _codes_by_time(rules, row_ids, times)


def _codes_by_time(rules: Mapping[str, Any], row_ids: Ids, times: NDArray[np.float64]) -> Codes:
    codes = np.full(len(row_ids), UNUSED, dtype=np.int8)
    free = ~np.isnan(times)
    for until, target in rules["periods"]:
        inside = free & (times < until) if until is not None else free
        codes[inside] = share_codes(target, row_ids[inside], rules["salt"])
        free = free & ~inside
    return codes


def share_codes(target: str | Mapping[str, float], row_ids: Ids, salt: str) -> Codes:
    """The index in `SPLITS` of each row by its share, -1 for the rest of them; or the same one for all."""
    if isinstance(target, str):
        return np.full(len(row_ids), SPLITS.index(target), dtype=np.int8)
    named = [split for split in SPLITS if split in target]
    bounds = np.cumsum([target[split] for split in named])
    if len(bounds) and bounds[-1] > 1 - 1e-9:  # shares that add up to 1 but for rounding leave no row unused
        bounds[-1] = 1.0
    codes = np.array([*(SPLITS.index(split) for split in named), UNUSED], dtype=np.int8)
    return codes[np.searchsorted(bounds, shares(row_ids.view(np.uint64), key("split", salt)), side="right")]


def repeated_ids(read: Callable[[], Iterable[Ids]], total_rows: int, pass_rows: int = PASS_ROWS) -> tuple[Ids, int]:
    """(the first 20, how many) of the ids that more than one row has; `read` gives the ids of all rows, in pieces.

    Memory is bounded: the ids are read once for every `pass_rows` of them, and each pass looks at those of one hash.
    """
    parts = np.uint64(-(-total_rows // pass_rows) or 1)
    first, count = np.zeros(0, dtype=np.int64), 0
    for part in range(int(parts)):
        ids = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *(_part(piece, part, parts) for piece in read())]))
        repeated = np.unique(ids[1:][ids[1:] == ids[:-1]])
        first, count = np.sort(np.append(first, repeated))[:SHOWN], count + len(repeated)
    return first, count


def _part(ids: Ids, part: int, parts: np.uint64) -> Ids:
    return ids if parts == 1 else ids[mix(ids.view(np.uint64)) % parts == part]
