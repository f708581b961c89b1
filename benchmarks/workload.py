"""Click rows for the training benchmarks: a planted model over Zipf ids, any number of rows and ids, by (seed, block).

N rows, 13 numeric and 26 categorical columns. An id is its rank: 0 is its column's most frequent one, as in the
dictionaries of encoders that order by frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

NUM_NUMERIC, NUM_CATEGORICAL = 13, 26
ZIPF = 1.1  # the k-th most frequent id comes about k ** -1.1 as often as the first
LOGIT_SD, NUMERIC_SHARE, CLICK_BIAS = 2.5, 0.2, -1.0
BLOCK = 65_536  # rows drawn from one generator: more rows leave the first ones as they were
MIN_SIZE, SIZE_RANGE = 3, 3_000.0  # the largest column has so many times the ids of the smallest, before rounding
HELD_OUT = 1 << 32  # the first block of the held-out rows, which no training row reaches


@dataclass(frozen=True)
class Clicks:
    """Rows: numeric [N, 13], ids within each column [N, 26], labels [N] that are 0 or 1."""

    numeric: Floats
    categorical: Ids
    labels: Floats


def sizes(num_ids: int) -> Ids:
    """Ids of each column, in all exactly `num_ids`: from a few to most of the table, as in click logs. ValueError below
    3 a column."""
    if num_ids < MIN_SIZE * NUM_CATEGORICAL:
        raise ValueError(f"num_ids must be at least {MIN_SIZE * NUM_CATEGORICAL}, got {num_ids}")
    shares = np.geomspace(1.0, SIZE_RANGE, NUM_CATEGORICAL)
    spare = num_ids - MIN_SIZE * NUM_CATEGORICAL
    found: Ids = MIN_SIZE + np.floor(spare * shares / shares.sum()).astype(np.int64)
    found[-1] += num_ids - found.sum()
    return found


def clicks(num_rows: int, num_ids: int, seed: int = 0, held_out: bool = False) -> Clicks:
    """The first `num_rows` rows of the stream of this seed, or of the stream of its held-out rows."""
    columns, effects, slopes = _planted(num_ids, seed)
    first = HELD_OUT if held_out else 0
    blocks = [_block(columns, effects, slopes, seed, first + start) for start in range(0, num_rows, BLOCK)]
    numeric, categorical, labels = (np.concatenate(parts)[:num_rows] for parts in zip(*blocks, strict=True))
    return Clicks(numeric, categorical, labels)


def write(path: Path, num_rows: int, num_ids: int, num_held_out: int = 65_536, seed: int = 0) -> None:
    """The rows as .npz: `numeric`, `categorical`, `labels`, `sizes`, and the held-out rows under `test_*`."""
    train, test = clicks(num_rows, num_ids, seed), clicks(num_held_out, num_ids, seed, held_out=True)
    held_out = {f"test_{name}": value for name, value in vars(test).items()}
    np.savez(path, sizes=sizes(num_ids), **vars(train), **held_out)


def _planted(num_ids: int, seed: int) -> tuple[Ids, list[Floats], Floats]:
    """Sizes of the columns, the effect of each id on the logit, and the slopes of the numeric columns."""
    columns = sizes(num_ids)
    effect_sd = LOGIT_SD * math.sqrt((1 - NUMERIC_SHARE) / NUM_CATEGORICAL)
    slope_sd = LOGIT_SD * math.sqrt(NUMERIC_SHARE / NUM_NUMERIC)
    effects = [
        np.random.default_rng([seed, 1, column]).normal(0, effect_sd, size).astype(np.float32)
        for column, size in enumerate(columns)
    ]
    return columns, effects, np.random.default_rng([seed, 2]).normal(0, slope_sd, NUM_NUMERIC).astype(np.float32)


def _block(columns: Ids, effects: list[Floats], slopes: Floats, seed: int, start: int) -> tuple[Floats, Ids, Floats]:
    draws = np.random.default_rng([seed, 0, start])
    numeric = draws.standard_normal((BLOCK, NUM_NUMERIC), dtype=np.float32)
    categorical = np.empty((BLOCK, NUM_CATEGORICAL), dtype=np.int64)
    logits = CLICK_BIAS + numeric @ slopes
    for column, size in enumerate(columns):
        categorical[:, column] = ids = _zipf(draws.random(BLOCK), int(size))
        logits += effects[column][ids]
    return numeric, categorical, (draws.random(BLOCK) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def _zipf(uniform: NDArray[np.float64], size: int) -> Ids:
    """Ids in [0, size) by the inverse of the continuous law x ** -ZIPF on [1, size + 1): no table of probabilities."""
    power = 1 - ZIPF
    drawn = (1 + uniform * ((size + 1) ** power - 1)) ** (1 / power)
    ids: Ids = np.minimum(drawn.astype(np.int64) - 1, size - 1)
    return ids
