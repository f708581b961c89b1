"""Which split each row of a raw file goes to: by the splits of the card, trust in its label, and whether it has one.

N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.tables.card_trusted import Trusted
from tgeokd_ray.tables.cards import LABEL, SPLIT_NAME, SPLITS, TIME, TRUSTED, UNLABELLED, Card
from tgeokd_ray.tables.ids import UNUSED, Codes, Ids, assign_splits, share_codes

Flags = NDArray[np.bool_]
PerSplit = tuple[int, ...]
_TRAIN, _TEST = SPLITS.index("train"), SPLITS.index("test")


@dataclass(frozen=True)
class Places:
    """The index in `SPLITS` of each row [N], -1 for an unused one; per split, how many rows have a trusted label, and
    how many were left out because they have no label."""

    codes: Codes
    trusted: PerSplit
    left_out: PerSplit


def place(card: Card, frame: pa.Table, row_ids: Ids, file_name: str) -> Places:
    """The splits of the rows of a frame with these ids [N], a pure function of each row and of the file's base name.

    Trusted rows leave every split but test for outer and valid, by a hash that does not depend on that of the splits; a
    row without a label is not trusted. Of rows without a label only those in train are used. ConfigError if the file
    fits no pattern of the card's splits.
    """
    labelled = frame[LABEL].to_numpy() != UNLABELLED
    codes = _of_splits(card, frame, row_ids, file_name)
    declared = card.splits.trusted
    trusted = np.zeros(len(codes), dtype=bool)
    if declared is not None:
        trusted = labelled & _trusted(declared, frame, codes, file_name)
        moved = trusted & (codes != _TEST) & (not declared.splits)
        codes[moved] = share_codes(declared.parts, row_ids[moved], f"{card.splits.salt} trusted")
    left_out = _per_split(codes, ~labelled & (codes != _TRAIN))
    codes[~labelled & (codes != _TRAIN)] = UNUSED
    return Places(codes, _per_split(codes, trusted), left_out)


def _of_splits(card: Card, frame: pa.Table, row_ids: Ids, file_name: str) -> Codes:
    if card.splits.kind == "column":
        return np.array(frame[SPLIT_NAME].to_numpy(), dtype=np.int8)
    times = frame[TIME].to_numpy() if card.splits.kind == "time" else None
    return assign_splits(card.split_rules, row_ids, file_name, times)


def _trusted(declared: Trusted, frame: pa.Table, codes: Codes, file_name: str) -> Flags:
    if declared.column is not None:
        return np.asarray(frame[TRUSTED].to_numpy(), dtype=bool)
    if declared.files:
        return np.full(len(codes), any(fnmatchcase(file_name, pattern) for pattern in declared.files))
    return np.isin(codes, [SPLITS.index(split) for split in declared.splits])


def _per_split(codes: Codes, which: Flags) -> PerSplit:
    used = codes[which & (codes != UNUSED)]
    return tuple(int(n) for n in np.bincount(used, minlength=len(SPLITS)))
