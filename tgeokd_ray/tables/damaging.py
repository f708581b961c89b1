"""The damage of a card, done to raw units once their rows have ids, splits and labels; the truth is written beside.

N rows of a unit, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import FileEntry, write_file
from tgeokd_ray.hashing import mix
from tgeokd_ray.tables.card_damage import Damage
from tgeokd_ray.tables.cards import LABEL, ROW_ID, SPLITS, UNLABELLED, Card, NumericColumn
from tgeokd_ray.tables.encoders import floats
from tgeokd_ray.tables.ingest import SPLIT, RawUnit, class_counts, read_unit, write_unit
from tgeokd_ray.tables.numeric import NumericSummary
from tgeokd_ray.tables.outcome import returning_errors
from tgeokd_ray.tables.placing import Flags, PerSplit
from tgeokd_ray.tables.regimes.damage import REGIONS, Marks, marks
from tgeokd_ray.tables.regimes.regime import Ints
from tgeokd_ray.tables.shards import NumberedUnit


@dataclass(frozen=True)
class DamagedUnit:
    """A unit whose damage is done, the file of its truth, and rows per split that are inside the region of wrong
    labels, that are flipped, and that left because the teacher is not to see their class."""

    unit: RawUnit
    truth: FileEntry
    inside: PerSplit
    flipped: PerSplit
    hidden: PerSplit


@returning_errors
def column_summary(name: str, scratch: Path, unit: RawUnit) -> NumericSummary:
    """What the train rows of one unit say of a numeric column; merged over the units it gives their median."""
    frame = read_unit(scratch, unit, [ROW_ID, SPLIT, name])
    frame = frame.filter(pa.array(frame[SPLIT].to_numpy() == SPLITS.index("train")))
    column = NumericColumn(name=name, kind="quantile")
    return NumericSummary.of(column, floats(frame, name), mix(frame[ROW_ID].to_numpy().view(np.uint64)))


def merged_median(parts: Iterable[NumericSummary]) -> float:
    """The median of the rows behind all summaries, NaN where no value is known.

    Exact up to 32,768 rows; above, of that many rows drawn by the hash of their ids (a rank error of .0028).
    """
    whole = NumericSummary()
    for part in parts:
        whole = whole.merge(part)
    return float(np.median(whole.sample)) if whole.count else float("nan")


@returning_errors
def damage_unit(card: Card, median: float | None, scratch: Path, folder: Path, item: NumberedUnit) -> DamagedUnit:
    """Write the damaged unit to `scratch`, and to `folder` its truth: row_id, split, true_label and given_label (null
    for none), region (one of `REGIONS`), flipped, for each row that is left; the same bytes whenever it runs."""
    damage, frame = card.damage or Damage(), read_unit(scratch, item.unit)
    true, codes = frame[LABEL].to_numpy().astype(np.int64), frame[SPLIT].to_numpy()
    found = marks(damage, frame, frame[ROW_ID].to_numpy(), true, card.label.classes, median=median)
    open_to = np.isin(codes, [SPLITS.index(split) for split in damage.splits])
    flipped = found.flipped & open_to
    given = np.where(flipped, found.given, true)
    left = found.unseen & (codes == SPLITS.index("teacher"))
    labels = pa.array(given.astype(np.int32))
    shown = frame.set_column(frame.column_names.index(LABEL), LABEL, labels).filter(pa.array(~left))
    truth = _truth(card.label.classes, frame, found, given, flipped).filter(pa.array(~left))
    file = f"damaged-{item.index:05d}.arrow"
    write_unit(scratch, file, shown)
    entry = write_file(folder, f"truth-{item.index:05d}.parquet", partial(pq.write_table, truth, compression="zstd"))
    unit = replace(item.unit, file=file, counts=class_counts(shown, len(card.label.classes)))
    inside = _per_split(codes, found.inside & open_to)
    return DamagedUnit(unit, entry, inside, _per_split(codes, flipped), _per_split(codes, left))


def damage_facts(damage: Damage, median: float | None, done: Sequence[DamagedUnit]) -> dict[str, Any]:
    """`damage` for the schema of the table: what was asked for, the `median` of a region that has one, and `rows` per
    split that are `inside` the region where labels may be wrong, `flipped`, and `hidden` from the teacher."""
    rows = {}
    for name in ("inside", "flipped", "hidden"):
        counts = np.sum([getattr(one, name) for one in done], axis=0)
        rows[name] = {split: int(n) for split, n in zip(SPLITS, counts, strict=True) if n}
    known = {} if median is None or np.isnan(median) else {"median": median}
    return {"damage": {**damage.model_dump(mode="json", exclude_defaults=True), **known, "rows": rows}}


def _truth(classes: Sequence[str], frame: pa.Table, found: Marks, given: Ints, flipped: Flags) -> pa.Table:
    names = pa.array(classes, pa.string())
    true = frame[LABEL].to_numpy()
    return pa.table(
        {
            "row_id": frame[ROW_ID],
            "split": pa.array(SPLITS).take(pa.array(frame[SPLIT].to_numpy())),
            "true_label": names.take(pa.array(true, mask=true == UNLABELLED)),
            "given_label": names.take(pa.array(given, mask=given == UNLABELLED)),
            "region": pa.array(REGIONS).take(pa.array(found.region)),
            "flipped": flipped,
        }
    )


def _per_split(codes: Ints, which: Flags) -> PerSplit:
    return tuple(np.bincount(codes[which], minlength=len(SPLITS)).tolist())
