"""What a user should know about a table before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tgeokd_ray.artifacts import FileEntry
from tgeokd_ray.errors import SHOWN, DataError, Problem
from tgeokd_ray.events import Progress
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.tables.cards import LABEL, SPLITS, Card
from tgeokd_ray.tables.ingest import SPLIT, RawUnit, read_unit
from tgeokd_ray.tables.synthetic import DWELL, LOG_ODDS, LOG_ODDS_AFTER
from tgeokd_ray.tables.views import Encoders

UNSEEN_WARNING = 0.5


def check_classes(card: Card, units: Sequence[RawUnit], progress: Progress) -> None:
    """DataError if the train split lacks rows of a class; a warning for each other split that does.

    A class without a row anywhere but in the card counts as lacking, too.
    """
    counts = np.zeros((len(SPLITS), len(card.label.classes)), dtype=np.int64)
    for unit in units:
        counts += np.asarray(unit.counts)
    for split, of_class in zip(SPLITS, counts, strict=True):
        lacking = [name for name, rows in zip(card.label.classes, of_class, strict=True) if not rows]
        if split == "train" and lacking:
            found = int(counts.sum())
            problems = [
                Problem(
                    f"no train row is of class {name!r}", column=card.label.column, got=f"{found} rows in all splits"
                )
                for name in lacking
            ]
            raise DataError(problems, fix="give train a larger share, or take the class out of the card")
        if lacking and of_class.sum():
            more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
            progress.warned(f"split {split} has no row of class {', '.join(lacking[:SHOWN])}{more}")


def unseen_shares(encoders: Encoders, shards: Sequence[FileEntry], split: str) -> dict[str, float]:
    """Per categorical column, the share of the split's rows whose value the train rows lack; empty without rows."""
    chosen = [shard for shard in shards if shard.extra["split"] == split]
    rows = sum(shard.rows or 0 for shard in chosen)
    counts = [shard.extra["unseen"] for shard in chosen]
    names = [name for part in encoders.parts for name, _ in part.categorical]
    return {
        name: round(sum(of_name) / rows, 6) for name, of_name in zip(names, zip(*counts, strict=True), strict=False)
    }


def warn_of_unseen(shares: Mapping[str, float], progress: Progress) -> None:
    """One warning for the columns more than half of whose values are new."""
    high = [f"{name} {share:.0%}" for name, share in shares.items() if share > UNSEEN_WARNING]
    if high:
        progress.warned(f"most test values are not among the train rows: {', '.join(high)}")


def warn_of_columns(encoders: Encoders, progress: Progress) -> None:
    """One warning for the columns that say nothing: one number or no value at all in the train rows."""
    silent = [column.name for part in encoders.parts for column in part.numeric if column.std == 0]
    silent += [name for part in encoders.parts for name, space in part.categorical if space.values == ()]
    if silent:
        progress.warned(f"constant or empty in the train rows: {', '.join(silent)}")


def bayes(card: Card, scratch: Path, units: Sequence[RawUnit]) -> dict[str, Any]:
    """AUC and NLL (nats) of the true log-odds on the test rows: what no model can beat in expectation.

    Of what the student sees, and as `teacher_bayes_auc` and `teacher_bayes_nll` of what the teacher sees if that is
    more.
    """
    after = DWELL in card.numeric
    student = LOG_ODDS_AFTER if after and DWELL not in card.teacher_only else LOG_ODDS
    views = {"": student} | ({"teacher_": LOG_ODDS_AFTER} if DWELL in card.teacher_only else {})
    found = {view: _best_possible(scratch, units, column) for view, column in views.items()}
    return {f"{view}bayes_{name}": value for view, values in found.items() for name, value in values.items()}


def _best_possible(scratch: Path, units: Sequence[RawUnit], column: str) -> dict[str, Any]:
    summary = Evaluation(2)
    for unit in units:
        if unit.rows_of("test"):
            table = read_unit(scratch, unit, [SPLIT, LABEL, column])
            table = table.filter(pa.array(table[SPLIT].to_numpy() == SPLITS.index("test")))
            log_odds = table[column].to_numpy().astype(np.float32)
            summary.add(np.stack([np.zeros_like(log_odds), log_odds], axis=1), table[LABEL].to_numpy())
    results = summary.results()
    return {"auc": results["auc"], "nll": results["nll"]}
