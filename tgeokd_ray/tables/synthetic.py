"""A click-through table made from a seed, whose true log-odds are known: the data of the demo and of many tests.

Eight numeric and ten categorical columns; a value's popularity falls with its rank (Zipf), a few values are missing.
The log-odds hold plain effects, but most of their spread lies in products of two columns: a large model on many rows
learns those, a small one on few rows hardly, and labels are noisy. So there is something to distil.

A card may also name `dwell`, which is known after the fact only: the match of a row's values, seen through noise, and
longer after a click. Labels and all other columns stay the same, and so do the true log-odds without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.hashing import Words, key, shares
from tgeokd_ray.tables.cards import LABEL, ROW, Card
from tgeokd_ray.tables.validation import did_you_mean

Floats = NDArray[np.float64]

LOG_ODDS, LOG_ODDS_AFTER = "@log_odds", "@log_odds_after"
VOCABULARIES = (20, 30, 50, 80, 120, 200, 300, 500, 1000, 2000)
NUMERIC = tuple(f"n{k}" for k in range(8))
CATEGORICAL = tuple(f"c{k}" for k in range(len(VOCABULARIES)))
DWELL = "dwell"

DECIMALS = 6
ZIPF_EXPONENT, ZIPF_SHIFT = 1.4, 3.0
MISSING_NUMERIC = {"n3": 0.05, "n6": 0.05}
MISSING_CATEGORICAL = {"c2": 0.04, "c7": 0.04}

BIAS = -1.6
SLOPES = {"n0": 0.28, "n1": -0.21, "n2": 0.175, "n3": 0.14, "n4": 0.2, "n5": -0.2, "n6": -0.105, "n7": 0.15}
# Effects of a value's two traits; without those of the second, small networks never find the products below.
FIRST_TRAIT, SECOND_TRAIT = 0.15, {"c0": 0.35, "c1": 0.35, "c2": 0.35, "c3": 0.35}
# Products: of the second traits of two values, of a number and a value's second trait, of two numbers.
VALUE_PAIRS = (("c0", "c1", 0.7), ("c1", "c2", 0.5), ("c0", "c3", 0.4))
MIXED_PAIRS = (("n4", "c0", 0.5), ("n5", "c1", 0.5), ("n0", "c2", 0.4), ("n7", "c3", 0.3))
NUMBER_PAIRS = (("n0", "n1", 0.3), ("n4", "n5", 0.4))
DWELL_NOISE = 0.7


def synthetic_rows(seed: int, first: int, count: int) -> pa.Table:
    """Rows `first` to `first + count - 1` of the table of `seed`: row number, label, columns, true log-odds.

    Every cell is a pure function of (seed, row), so any cut into chunks gives the same rows. A missing value has no
    effect of its own: the log-odds are those of the label given the row as it is seen, so that no model has a higher
    expected AUC than they have.
    """
    rows = np.arange(first, first + count, dtype=np.uint64)
    numbers = {name: _numbers(seed, name, rows) for name in NUMERIC}
    values = {name: _values(seed, name, size, rows) for name, size in zip(CATEGORICAL, VOCABULARIES, strict=True)}
    log_odds = _log_odds(seed, numbers, values)
    labels = shares(rows, key(seed, "label")) < 1 / (1 + np.exp(-log_odds))
    columns = {ROW: pa.array(rows.astype(np.int64)), LABEL: pa.array(labels.astype(np.int32))}
    columns |= {name: pa.array(column, from_pandas=True) for name, column in numbers.items()}
    columns |= {name: _texts(name, VOCABULARIES[k], values[name]) for k, name in enumerate(CATEGORICAL)}
    return pa.table({**columns, LOG_ODDS: log_odds})


def with_dwell(seed: int, table: pa.Table) -> pa.Table:
    """Rows of `synthetic_rows` with `dwell`, and with the true log-odds of the label given `dwell` and all the rest.

    dwell = match + s^2 label + s e: the match is the part of the log-odds that lies in products of two columns, e is
    standard normal, s is `DWELL_NOISE`. By the rule of Bayes the log-odds given dwell too are those without it,
    - match + dwell - s^2 / 2. So a model that sees dwell need not learn the match.
    """
    rows = table[ROW].to_numpy().astype(np.uint64)
    known = {name: np.nan_to_num(_numbers(seed, name, rows)) for name in NUMERIC}
    values = {name: _values(seed, name, size, rows) for name, size in zip(CATEGORICAL, VOCABULARIES, strict=True)}
    match = sum(_all_products(known, _all_traits(seed, values, 1)), np.zeros(len(rows)))
    noise = DWELL_NOISE * normals(rows, seed, DWELL)
    dwell = np.round(match + DWELL_NOISE**2 * table[LABEL].to_numpy() + noise, DECIMALS)
    log_odds = np.round(table[LOG_ODDS].to_numpy() - match + dwell - DWELL_NOISE**2 / 2, DECIMALS)
    return table.append_column(DWELL, pa.array(dwell)).append_column(LOG_ODDS_AFTER, pa.array(log_odds))


def check_columns(card: Card) -> None:
    """ConfigError unless `card` names columns that a synthetic table has, and two classes."""
    problems = [
        Problem(f"a synthetic table has no {kind} column {name!r}{did_you_mean(name, known)}")
        for kind, names, known in (
            ("numeric", card.numeric, (*NUMERIC, DWELL)),
            ("categorical", card.categorical, CATEGORICAL),
        )
        for name in names
        if name not in known
    ]
    if len(card.label.classes) != 2:
        problems.append(Problem("a synthetic table has two classes", got=str(len(card.label.classes))))
    if problems:
        raise ConfigError(problems, fix=f"correct the card {card.name}")


def normals(words: Words, *name: int | str) -> Floats:
    """Standard normal numbers, one for each word (Box and Muller, 1958).

    Rounded, because the last bits of a logarithm or cosine differ between processors.
    """
    radius, angle = shares(words, key(*name, "radius")), shares(words, key(*name, "angle"))
    normals: Floats = np.round(np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle), DECIMALS)
    return normals


def _numbers(seed: int, name: str, rows: Words) -> Floats:
    """A numeric column; NaN where it is missing."""
    column = normals(rows, seed, name)
    column[shares(rows, key(seed, name, "missing")) < MISSING_NUMERIC.get(name, 0.0)] = np.nan
    return column


def _values(seed: int, name: str, size: int, rows: Words) -> NDArray[np.int64]:
    """The rank of each row's value, 0 for the most popular; -1 where it is missing."""
    bounds = np.cumsum(_popularity(size))
    ranks = np.searchsorted(bounds[:-1], shares(rows, key(seed, name)), side="right")
    ranks[shares(rows, key(seed, name, "missing")) < MISSING_CATEGORICAL.get(name, 0.0)] = -1
    return np.asarray(ranks, dtype=np.int64)


def _popularity(size: int) -> Floats:
    """The probability of each rank."""
    weights = (np.arange(size) + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    return np.asarray(weights / weights.sum())


def _traits(seed: int, name: str, size: int, ranks: NDArray[np.int64], which: int) -> Floats:
    """One of the two hidden traits of each row's value, of mean 0 and variance 1 over rows; 0 for a missing value."""
    popularity = _popularity(size)
    of_value = normals(np.arange(size, dtype=np.uint64), seed, name, "trait", which)
    of_value -= popularity @ of_value
    of_value /= np.sqrt(popularity @ of_value**2)
    return np.append(of_value, 0.0)[ranks]  # a missing value has rank -1


def _log_odds(seed: int, numbers: dict[str, Floats], values: dict[str, NDArray[np.int64]]) -> Floats:
    known = {name: np.nan_to_num(column) for name, column in numbers.items()}
    first, second = (_all_traits(seed, values, which) for which in (0, 1))
    effects = [slope * known[name] for name, slope in SLOPES.items()]
    effects += [FIRST_TRAIT * first[name] for name in CATEGORICAL]
    effects += [effect * second[name] for name, effect in SECOND_TRAIT.items()]
    effects += _all_products(known, second)
    return np.round(sum(effects, np.full(len(known["n0"]), BIAS)), DECIMALS)


def _all_traits(seed: int, values: dict[str, NDArray[np.int64]], which: int) -> dict[str, Floats]:
    sizes = dict(zip(CATEGORICAL, VOCABULARIES, strict=True))
    return {name: _traits(seed, name, sizes[name], ranks, which) for name, ranks in values.items()}


def _all_products(known: dict[str, Floats], second: dict[str, Floats]) -> list[Floats]:
    parts = ((VALUE_PAIRS, second, second), (MIXED_PAIRS, known, second), (NUMBER_PAIRS, known, known))
    return [product for pairs, left, right in parts for product in _products(pairs, left, right)]


def _products(
    pairs: Sequence[tuple[str, str, float]], left: dict[str, Floats], right: dict[str, Floats]
) -> list[Floats]:
    return [strength * left[a] * right[b] for a, b, strength in pairs]


def _texts(name: str, size: int, ranks: NDArray[np.int64]) -> pa.Array:
    texts = pa.array([f"{name}-{rank:04d}" for rank in range(size)])
    return texts.take(pa.array(ranks, mask=ranks < 0))
