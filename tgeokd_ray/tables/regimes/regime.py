"""A regime: rows of which it is known where the teacher is wrong, and where the labels are.

N rows, C classes, M teachers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.hashing import key, keyed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """Rows that one seed draws from the pool."""

    train: int
    outer: int
    valid: int


@dataclass(frozen=True, eq=False)
class Regime:
    """N rows; a row's id is its place, and it is the same row, with the same labels, in every seed.

    `features` has a float64 or text column for each input. `true` [N] are the classes; `given` [N] those that rows of
    the `damaged` splits show, -1 for none; rows of other splits show the true one. `region` [N] is an index into
    `regions`. `ratios` [N, 1 + M] is the reference mixture of label and teachers, from the regions: good, but no bound.
    `logits` [N, M, C] is what the teachers say, None where one is still to be trained on the rows `taught`. Each seed
    draws train, outer and valid rows from `pool`; where there are `recent` rows, outer and valid come from those.
    `encoding` and `settings` are the card's `encoding` and `defaults`.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    features: pa.Table
    true: Ints
    given: Ints
    region: Ints
    regions: tuple[str, ...]
    ratios: Floats
    logits: Floats | None
    pool: Ints
    test: Ints
    sizes: Sizes
    damaged: tuple[str, ...] = ("train",)
    taught: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    recent: Ints | None = None
    encoding: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the columns of numbers."""
        return tuple(f.name for f in self.features.schema if pa.types.is_floating(f.type))

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the columns of texts."""
        return tuple(name for name in self.features.column_names if name not in self.numeric)

    @property
    def trusted(self) -> bool:
        """Whether outer and valid rows are known to show the labels that the student is to give."""
        return not {"outer", "valid"} & set(self.damaged)

    def split(self, seed: int) -> dict[str, Ints]:
        """Row ids by split, each in the order of the draw for the student's; test and teacher rows never change.

        ConfigError for a negative seed.
        """
        if seed < 0:
            raise ConfigError(f"the seed of a regime must be >= 0, got {seed}")
        train, outer, valid = self.sizes.train, self.sizes.outer, self.sizes.valid
        drawn = shuffled(self.pool, "draw", seed)
        later = drawn[train:] if self.recent is None else shuffled(self.recent, "draw", seed)
        parts = {"train": drawn[:train], "outer": later[:outer], "valid": later[outer : outer + valid]}
        return {**parts, "test": self.test, **({"teacher": self.taught} if len(self.taught) else {})}

    def labels(self, split: str) -> Ints:
        """Class [N] that a row shows when it is in `split`; -1 for none."""
        return self.given if split in self.damaged else self.true

    def with_teacher(self, logits: Floats) -> Regime:
        """The regime once its teachers were asked: `logits` [N, M, C] of every row, and a reference that knows more.

        Where all teachers' first choices are wrong, the label has all the weight. ValueError for another shape.
        """
        expected = (len(self.true), self.ratios.shape[1] - 1, len(self.classes))
        if logits.shape != expected:
            raise ValueError(f"logits must have the shape {expected}, got {logits.shape}")
        wrong = (logits.argmax(-1) != self.true[:, None]).all(1)
        return replace(self, logits=logits, ratios=np.where(wrong[:, None], label_only(expected[1]), self.ratios))


def label_only(num_teachers: int) -> Floats:
    """The mixture [1 + M] that leaves the teachers out."""
    return np.asarray(np.eye(1 + num_teachers)[0])


def one_teacher(ratio: Floats) -> Floats:
    """Mixtures [N, 2] of label and one teacher, whose weight is `ratio` [N]."""
    return np.stack([1 - ratio, ratio], axis=1)


def shuffled(rows: Ints, *name: int | str) -> Ints:
    """The rows in a random order that `name` fixes; which of two rows comes first does not depend on the others."""
    order = np.argsort(keyed(rows.astype(np.uint64), key(*name)), kind="stable")
    return np.asarray(rows[order])


def student(
    hidden: int, learning_rate: float, batch_rows: int, epochs: int, *, embedding: int | None = None
) -> dict[str, Any]:
    """Settings of a job whose student has one hidden layer and runs through all epochs; the best on valid is kept."""
    model = {"kind": "mlp", "hidden": [hidden], **({} if embedding is None else {"embedding": embedding})}
    return {"metric": "nll", "student": {"model": model, "training": _training(learning_rate, batch_rows, epochs)}}


def teacher(hidden: list[int], batch_rows: int, epochs: int) -> dict[str, Any]:
    """Settings of a job whose teacher is the mean of three networks (Adam, 1e-3), stopped on a tenth of its rows."""
    model = {"kind": "mlp", "hidden": hidden, "embedding": 8, "dropout": 0.0, "members": 3}
    return {"teacher": {"model": model, "hold_out": 10, "training": _training(1e-3, batch_rows, epochs)}}


def _training(learning_rate: float, batch_rows: int, epochs: int) -> dict[str, Any]:
    optimizer = {"kind": "adam", "learning_rate": learning_rate}
    return {"epochs": epochs, "patience": epochs, "batch_rows": batch_rows, "optimizer": optimizer}
