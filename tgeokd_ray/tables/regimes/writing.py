"""A regime as the files that the ordinary pipeline reads: rows, card, teachers, and the truth beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import SPLITS, UNLABELLED
from tgeokd_ray.tables.regimes.regime import Ints, Regime

ROW_ID, LABEL, SPLIT = "row_id", "label", "split"


@dataclass(frozen=True)
class Written:
    """The files of one seed; one teacher file for each teacher that the regime defines."""

    rows: Path
    card: Path
    truth: Path
    teachers: tuple[Path, ...]


def write(regime: Regime, seed: int, folder: str | Path, *, trust: bool = True) -> Written:
    """Write `rows.parquet`, `card.yaml`, `truth.parquet` and, where the regime has teachers, `teacher-0.parquet`, ...

    Only rows that are in a split are written, in the order of their ids, which are the same in every seed. The truth
    has a row for each: row_id, true_label, given_label (what the row shows, null for none), region, flipped (the two
    labels differ) and ratio_label, ratio_teacher_0, ... The same seed gives the same bytes. Without `trust` the card
    does not name outer and valid rows as trusted, where they are. ConfigError for a seed below 0 and for a feature with
    the name of a column that is added.
    """
    clash = sorted({ROW_ID, LABEL, SPLIT} & set(regime.features.column_names))
    if clash:
        raise ConfigError(f"a feature of the regime {regime.name} has the name of a column of its own: {clash[0]}")
    parts = regime.split(seed)
    drawn = np.concatenate([parts.get(split, np.zeros(0, np.int64)) for split in SPLITS])
    codes = np.repeat(np.arange(len(SPLITS)), [len(parts.get(split, ())) for split in SPLITS])
    order = np.argsort(drawn)
    ids, codes = drawn[order], codes[order]
    shown = np.stack([regime.labels(split) for split in SPLITS])[codes, ids]
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    count = 0 if regime.logits is None else regime.logits.shape[1]
    teachers = tuple(place / f"teacher-{m}.parquet" for m in range(count))
    written = Written(place / "rows.parquet", place / "card.yaml", place / "truth.parquet", teachers)
    own = {ROW_ID: pa.array(ids), LABEL: _texts(regime, shown), SPLIT: pa.array(SPLITS).take(pa.array(codes))}
    features = regime.features.take(pa.array(ids))
    pq.write_table(pa.table({**own, **dict(zip(features.column_names, features.columns, strict=True))}), written.rows)
    pq.write_table(_truth(regime, ids, shown), written.truth)
    for m, path in enumerate(teachers):
        pq.write_table(_told(regime, ids, m), path)
    text = yaml.safe_dump(card_data(regime, written.rows.name, trust=trust), sort_keys=False, allow_unicode=True)
    written.card.write_text(text, encoding="utf-8")
    return written


def card_data(regime: Regime, file: str, *, trust: bool = True) -> dict[str, Any]:
    """The card of a written regime as plain data; `defaults` are the settings of its student, and of its teacher.

    Train rows without a label, where a regime has them, learn from the teacher alone.
    """
    columns = {"numeric": list(regime.numeric), "categorical": list(regime.categorical)}
    label: dict[str, Any] = {"column": LABEL, "classes": list(regime.classes)}
    if (regime.given == UNLABELLED).any():
        label["missing"] = "distill"
    splits: dict[str, Any] = {"kind": "column", "column": SPLIT}
    if trust and regime.trusted:
        splits["trusted"] = {"splits": ["outer", "valid"]}
    return {
        "name": regime.name,
        "title": regime.title,
        "format": {"kind": "parquet"},
        "files": [file],
        "row_id": {"kind": "column", "column": ROW_ID},
        "label": label,
        "columns": {role: names for role, names in columns.items() if names},
        "encoding": regime.encoding,
        "splits": splits,
        "defaults": regime.settings,
    }


def _texts(regime: Regime, labels: Ints) -> pa.Array:
    """Classes by name; null for no label."""
    return pa.array(regime.classes).take(pa.array(labels, mask=labels < 0))


def _truth(regime: Regime, ids: Ints, shown: Ints) -> pa.Table:
    true, ratios = regime.true[ids], regime.ratios[ids]
    names = ["ratio_label", *(f"ratio_teacher_{m}" for m in range(ratios.shape[1] - 1))]
    return pa.table(
        {
            ROW_ID: ids,
            "true_label": _texts(regime, true),
            "given_label": _texts(regime, shown),
            "region": pa.array(regime.regions).take(pa.array(regime.region[ids])),
            "flipped": (shown != true) & (shown >= 0),
            **dict(zip(names, ratios.T, strict=True)),
        }
    )


def _told(regime: Regime, ids: Ints, teacher: int) -> pa.Table:
    """What `tgeokd import-logits` reads: one column of logits for each class."""
    logits = np.empty((0, 0)) if regime.logits is None else regime.logits[ids, teacher].astype(np.float32)
    return pa.table({ROW_ID: ids, **{f"logit_{c}": column for c, column in zip(regime.classes, logits.T, strict=True)}})
