"""Everything that encoding would complain of, and a summary of the table, without writing anything."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Silent
from tgeokd_ray.tables.cards import ROW, ROW_ID, SPLITS, Card, NumericColumn
from tgeokd_ray.tables.counting import Counter, Counts
from tgeokd_ray.tables.encoders import count_values, floats
from tgeokd_ray.tables.ingest import CHECK, IngestItem, RawUnit, check_unique, ingest_plan, typed_pieces
from tgeokd_ray.tables.label_facts import check_trusted, warn_of_left_out
from tgeokd_ray.tables.numeric import NumericSummary
from tgeokd_ray.tables.outcome import raise_together
from tgeokd_ray.tables.quality import check_classes

MOST_COLUMNS = 12  # for classes, in a table on a terminal


def summarise(card: Card, files: Sequence[Path]) -> dict[str, Any]:
    """Rows, splits with their classes, columns with their ranges or numbers of values, and warnings, as plain data.

    Memory grows with the rows where row ids come from a column; counts of very many distinct values wait in the folder
    for temporary files. DataError with all problems of all files, for repeated row ids, for a class that no train row
    has and for trusted rows that are not there, as encoding would give it.
    """
    listed = [column for column in card.columns.categorical if column.buckets is None]
    counters = {column.name: Counter(f"column:{column.name}", min_count=column.min_count) for column in listed}
    with Counts(counters) as counts:
        return _summary(_Survey(card, counts), files)


def _summary(survey: _Survey, files: Sequence[Path]) -> dict[str, Any]:
    card = survey.card
    errors: list[UserError] = []
    for item in ingest_plan(card, files):
        try:
            survey.read(item)
        except UserError as error:
            errors.append(error)
    raise_together(errors)
    check_unique(card, survey.units, lambda unit, columns: survey.ids[unit.file].select(list(columns)))
    heard = Silent()
    check_classes(card, survey.units, heard)
    check_trusted(card, survey.units, heard)
    warn_of_left_out(survey.units, heard)
    told = _rowless(card, survey.units)
    told += [text for path in files for text in _differences(card, path, survey.units)]
    return {
        "card": card.name,
        "rows": sum(unit.rows for unit in survey.units),
        "splits": _splits(card, survey.units),
        "numeric": survey.numeric_columns(),
        "categorical": survey.categorical_columns(),
        "warnings": [*heard.warnings, *told, *_totals(card, files, survey.units)],
    }


def in_brief(card: Card, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary as a terminal has room for it: of more than MOST_COLUMNS classes, per split how many have rows, and
    the fewest and the most rows of one, in place of a column each."""
    names = [card.label.display.get(name, name) for name in card.label.classes]
    if len(names) <= MOST_COLUMNS:
        return summary
    splits = []
    for row in summary["splits"]:
        counts = [row[name] for name in names]
        of_classes = {"classes with rows": sum(n > 0 for n in counts), "fewest": min(counts), "most": max(counts)}
        splits.append({key: value for key, value in row.items() if key not in names} | of_classes)
    return summary | {"splits": splits}


@dataclass
class _Survey:
    """What has been seen of a table so far."""

    card: Card
    counts: Counts
    units: list[RawUnit] = field(default_factory=list)
    ids: dict[str, pa.Table] = field(default_factory=dict)
    _rows: int = 0
    _missing: dict[str, int] = field(default_factory=dict)
    _numbers: dict[str, NumericSummary] = field(default_factory=dict)

    def read(self, item: IngestItem) -> None:
        """Take in the rows of one item."""
        for piece in typed_pieces(self.card, item):
            name, typed = f"{item.index}-{len(self.units)}", piece.typed
            self.units.append(piece.unit(name, item.name, len(self.card.label.classes)))
            if self.card.row_id.kind == "column":
                self.ids[name] = typed.select([c for c in (ROW_ID, ROW, CHECK) if c in typed.column_names])
            self._add(typed)

    def _add(self, typed: pa.Table) -> None:
        self._rows += typed.num_rows
        for name in (*self.card.numeric, *self.card.categorical):
            self._missing[name] = self._missing.get(name, 0) + typed[name].null_count
        nothing = np.zeros(typed.num_rows, dtype=np.uint64)
        for name in self.card.numeric:
            plain = NumericColumn(name=name, kind="standard")  # the range of the values as they are
            summary = NumericSummary.of(plain, floats(typed, name), nothing)
            self._numbers[name] = self._numbers.get(name, NumericSummary()).merge(summary)
        self.counts.add((name, count_values(typed, name)) for name in self.counts.counters)

    def numeric_columns(self) -> list[dict[str, Any]]:
        """Per numeric column: share of missing values, least, mean and greatest finite value."""
        rows = []
        for name, summary in self._numbers.items():
            known = summary.count > 0
            least, mean, greatest = (summary.least, summary.mean, summary.greatest) if known else (None, None, None)
            row = {"column": name, "missing": self._share(name), "least": least, "mean": mean, "greatest": greatest}
            rows.append(row | self._seen_by(name))
        return rows

    def categorical_columns(self) -> list[dict[str, Any]]:
        """Per categorical column: share of missing values, distinct values, the most frequent one and its share."""
        rows: list[dict[str, Any]] = []
        for name in self.card.categorical:
            row: dict[str, Any] = {
                "column": name,
                "missing": self._share(name),
                "values": None,
                "first": None,
                "share": None,
            }
            if name in self.counts.counters:
                values, first, count = self._of_values(self.counts.counters[name])
                if values:
                    row |= {"values": values, "first": first, "share": round(count / self._rows, 6)}
            rows.append(row | self._seen_by(name))
        return rows

    def _of_values(self, counter: Counter) -> tuple[int, str, int]:
        """Distinct values, the most frequent one and its count."""
        values, first, most = 0, "", 0
        for part in counter.parts():
            top = pc.max(part["count"]).as_py() or 0
            if top > most:
                first, most = part["value"][pc.index(part["count"], top).as_py()].as_py(), top
            values += part.num_rows
        return values, first, most

    def _seen_by(self, name: str) -> dict[str, str]:
        """Who sees a column, where that differs between columns."""
        if not self.card.teacher_only:
            return {}
        return {"seen_by": "teacher" if name in self.card.teacher_only else "both"}

    def _share(self, name: str) -> float:
        return round(self._missing[name] / self._rows, 6) if self._rows else 0.0


def _splits(card: Card, units: Sequence[RawUnit]) -> list[dict[str, Any]]:
    """Per split: rows, rows of each class, and where the card speaks of such, without a label or with a trusted one."""
    counts = np.sum([np.asarray(unit.counts) for unit in units], axis=0)
    classes = [card.label.display.get(name, name) for name in card.label.classes]
    rows = []
    trusted = np.sum([unit.trusted for unit in units], axis=0)
    for place, (split, of_class) in enumerate(zip(SPLITS, counts, strict=True)):
        row: dict[str, Any] = {"split": split, "rows": sum(unit.rows_of(split) for unit in units)}
        row |= {name: int(n) for name, n in zip(classes, of_class, strict=True)}
        row |= {"unlabelled": row["rows"] - int(of_class.sum())} if card.label.missing == "distill" else {}
        rows.append(row | ({"trusted": int(trusted[place])} if card.splits.trusted is not None else {}))
    return rows


def _rowless(card: Card, units: Sequence[RawUnit]) -> list[str]:
    """Splits that rows may go to and none does, and how many rows name no split where a column names them."""
    rows = {split: sum(unit.rows_of(split) for unit in units) for split in SPLITS}
    found = [f"no row goes to the split {split}" for split in card.splits.named if not rows[split]]
    unused = sum(unit.rows - sum(unit.left_out) for unit in units) - sum(rows.values())
    if card.splits.kind == "column" and unused:
        found.append(f"{unused} rows go to no split, for their {card.splits.column} names none")
    return found


def _differences(card: Card, path: Path, units: Sequence[RawUnit]) -> list[str]:
    """How a file differs from the published copy that the card describes."""
    found = []
    rows = next((n for pattern, n in card.checks.rows.items() if fnmatchcase(path.name, pattern)), None)
    read = sum(unit.rows for unit in units if unit.source == path.name)
    if rows is not None and rows != read:
        found.append(f"{path.name} has {read} rows, the published copy {rows}")
    sha256 = next((s for pattern, s in card.checks.sha256.items() if fnmatchcase(path.name, pattern)), None)
    if sha256 is not None and sha256 != _unpacked_digest(path):
        found.append(f"{path.name} is not the published copy: its sha256 (unpacked) differs from the card's")
    return found


def _totals(card: Card, files: Sequence[Path], units: Sequence[RawUnit]) -> list[str]:
    """Which files that belong together have not all rows of the published ones."""
    found = []
    for pattern, total in card.checks.total.items():
        names = {path.name for path in files if fnmatchcase(path.name, pattern)}
        read = sum(unit.rows for unit in units if unit.source in names)
        if names and read != total:
            found.append(f"{len(names)} files {pattern} have {read} rows, the published ones {total}")
    return found


def _unpacked_digest(path: Path) -> str:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
