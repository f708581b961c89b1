"""Damage that is known row by row, for any table: classes hidden from the teacher, labels wrong in a region. N rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.errors import ConfigError, DataError, Problem
from tgeokd_ray.hashing import key, shares
from tgeokd_ray.tables.card_damage import Damage, Damageable, Region
from tgeokd_ray.tables.regimes.regime import Ints
from tgeokd_ray.tables.text_hash import text_hash
from tgeokd_ray.tables.validation import did_you_mean

__all__ = [
    "REGIONS",
    "Damage",
    "Damageable",
    "Marks",
    "Region",
    "damaged",
    "flip",
    "inside_region",
    "marks",
]

Flags = NDArray[np.bool_]
TRUE, REGION, FLIPPED = "true_label", "region", "flipped"
REGIONS = ("undamaged", "labels damaged", "class hidden from the teacher", "labels damaged, class hidden")


@dataclass(frozen=True, eq=False)
class Marks:
    """What damage means for each of N rows: whether it is `inside` the region of wrong labels (no row is where none
    are flipped), whether its label is `flipped`, the class it is `given`, and whether its class is `unseen` by the
    teacher."""

    inside: Flags
    flipped: Flags
    given: Ints
    unseen: Flags

    @property
    def region(self) -> Ints:
        """[N]: an index into `REGIONS`."""
        return self.inside + 2 * self.unseen.astype(np.int64)


def marks(
    damage: Damage,
    features: pa.Table,
    ids: Ints,
    labels: Ints,
    classes: Sequence[str],
    *,
    median: float | None = None,
) -> Marks:
    """The marks of rows with row `ids` [N] and class indices `labels` [N], below 0 for a row without a label.

    Such a row may be inside, but it is neither flipped nor unseen. `median` is that of the region's column where the
    features are not all rows that it is of. ConfigError for a hidden class or a column that there is not, and for a
    median of texts.
    """
    strange = [name for name in damage.hidden if name not in classes]
    if strange:
        raise ConfigError(
            [Problem(f"damage.hidden: {name!r} is not a class{did_you_mean(name, classes)}") for name in strange],
            fix=f"the classes are {', '.join(classes)}",
        )
    inside = np.full(len(ids), damage.flip > 0)
    if damage.where is not None:
        inside &= inside_region(damage.where, features, median)
    flipped, given = flip(inside, damage.flip, ids, labels, len(classes), damage.seed)
    return Marks(inside, flipped, given, np.isin(labels, [classes.index(name) for name in damage.hidden]))


def inside_region(region: Region, features: pa.Table, median: float | None = None) -> Flags:
    """[N]: which rows are in the region; the `median` is that of these rows unless given, and no row is above one that
    is NaN. ConfigError for a column that there is not, and for a median of texts."""
    names = features.column_names
    if region.column not in names:
        what = f"damage.where: there is no column {region.column!r}{did_you_mean(region.column, names)}"
        raise ConfigError([Problem(what)], fix=f"the columns are {', '.join(names[:20])}")
    column = features[region.column].combine_chunks()
    if region.kind == "hash_even":
        return np.asarray(text_hash(column.cast(pa.large_string()), key("region", region.salt)) % np.uint64(2) == 0)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise ConfigError(
            [Problem(f"damage.where: {region.column!r} holds no numbers, so it has no median", got=str(column.type))],
            fix="name a numeric column, or kind: hash_even",
        )
    numbers = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    if median is None:
        known = numbers[~np.isnan(numbers)]
        median = float(np.median(known)) if len(known) else np.nan
    return np.asarray(numbers > median)


def flip(inside: Flags, share: float, ids: Ints, labels: Ints, num_classes: int, seed: int) -> tuple[Flags, Ints]:
    """(flipped [N], labels [N] with a share of those inside replaced by another class, all equally likely)."""
    words = ids.astype(np.uint64)
    flipped = inside & (labels >= 0) & (shares(words, key("flip", seed)) < share)
    step = 1 + (shares(words, key("flip to", seed)) * (num_classes - 1)).astype(np.int64)
    return flipped, np.where(flipped, (labels + step) % num_classes, labels)


def damaged(
    frame: pa.Table, damage: Damage, *, label: str, split: str, row_id: str, classes: Sequence[str] | None = None
) -> pa.Table:
    """The rows of `frame` that are left, with damaged labels and three columns more.

    `label` and `split` are columns of texts, `row_id` of whole numbers; the classes are those of the labels, sorted,
    unless named. Rows hidden from the teacher are left out; `true_label` is the label as it was, `region` whether the
    row is in the region, `flipped` whether its label was changed. ConfigError as `marks`, for columns that there are
    not and for damage done already; DataError for a label that is no class, with its row, and for a row without an id.
    """
    wanted, names = (label, split, row_id), frame.column_names
    lacking = [Problem(f"there is no column {n!r}{did_you_mean(n, names)}") for n in wanted if n not in names]
    twice = [Problem("the table is damaged already", column=name) for name in (TRUE, REGION, FLIPPED) if name in names]
    if lacking or twice:
        raise ConfigError([*lacking, *twice], fix="name the columns of the undamaged table")
    ids = frame[row_id].combine_chunks()
    if not pa.types.is_integer(ids.type) or ids.null_count:
        raise DataError([Problem("every row needs a whole number as its id", column=row_id, got=str(ids.type))])
    texts = frame[label].combine_chunks().cast(pa.large_string())
    known = sorted(pc.unique(texts.drop_null()).to_pylist()) if classes is None else list(classes)
    codes = pc.index_in(texts, value_set=pa.array(known, pa.large_string()))
    if codes.null_count:
        row = pc.index(codes.is_null(), True).as_py()
        problem = Problem("is no class", column=label, row=row + 1, got=repr(texts[row].as_py()))
        raise DataError([problem], fix=f"the classes are {', '.join(known)}", total=codes.null_count)
    true = codes.to_numpy().astype(np.int64)
    found = marks(damage, frame, ids.to_numpy(), true, known)
    here = np.isin(frame[split].to_numpy(zero_copy_only=False), damage.splits)
    shown = pa.array(known, texts.type).take(pa.array(np.where(here, found.given, true)))
    kept = ~(found.unseen & (frame[split].to_numpy(zero_copy_only=False) == "teacher"))
    whole = frame.set_column(names.index(label), label, shown).append_column(TRUE, texts)
    whole = whole.append_column(REGION, pa.array(found.inside))
    return whole.append_column(FLIPPED, pa.array(found.flipped & here)).filter(pa.array(kept))
