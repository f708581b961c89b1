"""The encoder of a table: fitted on train rows in mergeable parts, then a pure function of a frame.

Legend: N rows, P numeric columns (flags included), F categorical columns, V ids in the fused table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import DataError, IntegrityError
from tgeokd_ray.hashing import key, keyed
from tgeokd_ray.tables.cards import Card, CategoricalColumn
from tgeokd_ray.tables.categorical import Space, space_name
from tgeokd_ray.tables.coding import coded
from tgeokd_ray.tables.counting import MAX_DISTINCT, MAX_HELD, Counter, Counts, counts_of, merge_counts
from tgeokd_ray.tables.numeric import NumericEncoding, NumericSummary
from tgeokd_ray.tables.pixels import PixelEncoding, PixelSummary

FORMAT = 1
MAX_IDS = 2**31 - 1
_SAMPLE = key("quantile sample")


@dataclass(frozen=True)
class Partial:
    """What some train rows say: a summary per numeric column and of the pixels, and per id space how often each value
    occurs."""

    numeric: Mapping[str, NumericSummary]
    counts: Mapping[str, pa.Table]
    pixels: PixelSummary | None = None


def fit_partial(card: Card, frame: pa.Table, row_ids: NDArray[np.int64]) -> Partial:
    """The partial of the rows of `frame`, which must all be train rows; `row_ids` [N] decide what is sampled."""
    hashes = keyed(row_ids.view(np.uint64), _SAMPLE)
    numeric = {c.name: NumericSummary.of(c, floats(frame, c.name), hashes) for c in card.columns.numeric}
    counts = {
        name: merge_counts([count_values(frame, column.name) for column in columns])
        for name, columns in _spaces(card).items()
        if columns[0].buckets is None
    }
    return Partial(numeric, counts, None if card.image is None else PixelSummary.of(card, frame))


def fit_encoder(
    card: Card,
    partials: Iterable[Partial],
    *,
    max_distinct: int = MAX_DISTINCT,
    max_held: int = MAX_HELD,
    folder: Path | None = None,
) -> Encoder:
    """The encoder from the partials of all train rows, merged in the order given; one is in memory at a time.

    Beyond `max_held` distinct values of all columns together, counts wait beneath `folder`; the encoder is the same.
    DataError for a categorical column of more than `max_distinct` values that are frequent enough, for numbers whose
    squares overflow, and for more than 2**31 - 1 ids.
    """
    spaces = _spaces(card)
    numeric = {column.name: NumericSummary() for column in card.columns.numeric}
    counters = {
        name: Counter(name, max_distinct, columns[0].min_count)
        for name, columns in spaces.items()
        if columns[0].buckets is None
    }
    pixels = None if card.image is None else PixelSummary.none(card)
    fitted: dict[str, Space] = {}
    offset = 0
    with Counts(counters, folder, max_held) as counts:
        for partial in partials:
            numeric = {name: summary.merge(partial.numeric[name]) for name, summary in numeric.items()}
            pixels = pixels.merge(partial.pixels) if pixels is not None and partial.pixels is not None else pixels
            counts.add(partial.counts.items())
        for name, columns in spaces.items():
            fitted[name] = Space.fit(columns[0], counters[name].frequent() if name in counters else None, offset)
            offset += fitted[name].size
    if offset > MAX_IDS:
        raise DataError(f"the categorical columns need {offset} ids, more than {MAX_IDS}", fix="use fewer buckets")
    encodings = tuple(NumericEncoding.fit(column, numeric[column.name]) for column in card.columns.numeric)
    categorical = tuple((column.name, fitted[space_name(column)]) for column in card.columns.categorical)
    image = None if pixels is None else PixelEncoding.fit(card, pixels)
    return Encoder(encodings, categorical, num_ids=offset, image=image)


@dataclass(frozen=True)
class Encoder:
    """Frames of raw columns to what a network takes. It holds nothing but what the train rows said.

    Numeric: the columns in the card's order, then a flag (1 missing, 0 not) for each that has one. Categorical: one
    id per column in one fused table; columns that share a space share its ids. A table of images has neither; its
    `image` says how pixels are scaled when a network sees them.
    """

    numeric: tuple[NumericEncoding, ...]
    categorical: tuple[tuple[str, Space], ...]
    num_ids: int
    image: PixelEncoding | None = None

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """Names of the P numeric columns that `transform` makes."""
        flags = [f"{column.name}:missing" for column in self.numeric if column.missing_flag]
        return (*(column.name for column in self.numeric), *flags)

    @property
    def categorical_spaces(self) -> list[dict[str, Any]]:
        """Name, first id and number of ids of each categorical column."""
        return [{"name": name, "offset": space.offset, "size": space.size} for name, space in self.categorical]

    def transform(self, frame: pa.Table) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """(numeric [N, P] float32, finite, categorical [N, F] int32 in 0..V-1) of the raw columns of `frame`; of images
        their pixels as they are, uint8, in place of numbers."""
        if self.image is not None:
            return self.image.pixels(frame), np.zeros((frame.num_rows, 0), dtype=np.int32)
        # By columns first, then turned as a whole: columns of a wide row-wise array are several times as slow.
        numeric = np.zeros((len(self.numeric_names), frame.num_rows), dtype=np.float32)
        categorical = np.zeros((len(self.categorical), frame.num_rows), dtype=np.int32)
        flag = len(self.numeric)
        for k, column in enumerate(self.numeric):
            numeric[k], missing = column.transform(floats(frame, column.name))
            if column.missing_flag:
                numeric[flag] = missing
                flag += 1
        for k, (name, space) in enumerate(self.categorical):
            categorical[k] = space.transform(*coded(frame, name))
        return np.ascontiguousarray(numeric.T), np.ascontiguousarray(categorical.T)

    def to_json(self) -> dict[str, Any]:
        """The whole state as plain JSON: the same encoder on any machine and day."""
        spaces = {space.name: space.to_json() for _, space in self.categorical}
        return {
            "format": FORMAT,
            "num_ids": self.num_ids,
            "numeric": [column.to_json() for column in self.numeric],
            "categorical": [{"name": name, "space": space.name} for name, space in self.categorical],
            "spaces": list(spaces.values()),
            **({} if self.image is None else {"image": self.image.to_json()}),
        }

    @classmethod
    def from_json(cls, state: Any) -> Encoder:
        """The inverse of `to_json`; IntegrityError for anything else."""
        try:
            if state["format"] != FORMAT:
                raise ValueError(f"format {state['format']}, not {FORMAT}")
            spaces = {item["name"]: Space.from_json(item) for item in state["spaces"]}
            return cls(
                tuple(NumericEncoding.from_json(item) for item in state["numeric"]),
                tuple((item["name"], spaces[item["space"]]) for item in state["categorical"]),
                state["num_ids"],
                PixelEncoding.from_json(state["image"]) if "image" in state else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"this is not the state of an encoder: {error}") from None


def floats(frame: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column as float64 [N], NaN where it is null."""
    return np.asarray(frame[name].cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def count_values(frame: pa.Table, name: str) -> pa.Table:
    """How often each text of a column occurs: value, count. Nulls are not counted."""
    codes, words = coded(frame, name)
    return counts_of(words, np.bincount(codes, minlength=len(words))[: len(words)])


def _spaces(card: Card) -> dict[str, list[CategoricalColumn]]:
    """The columns of each id space, in the order of the card; first the spaces of columns that the student sees."""
    spaces: dict[str, list[CategoricalColumn]] = {}
    for column in sorted(card.columns.categorical, key=lambda column: column.name in card.teacher_only):
        spaces.setdefault(space_name(column), []).append(column)
    return spaces
