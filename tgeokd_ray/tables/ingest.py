"""The first pass: raw files to typed units of at most 65,536 rows with row ids, splits and labels, in a scratch folder.

A unit holds the used rows of a stretch of one raw file, in the file's order. C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.artifacts import FileEntry, read_json, write_file, write_json
from tgeokd_ray.errors import SHOWN, DataError, Problem
from tgeokd_ray.tables.cards import LABEL, ROW, ROW_ID, SPLITS, UNLABELLED, WEIGHT, Card
from tgeokd_ray.tables.delimited import PIECE_ROWS, in_pieces
from tgeokd_ray.tables.digits import DIGITS, digits_frame
from tgeokd_ray.tables.ids import UNUSED, file_row_ids, repeated_ids, text_ids
from tgeokd_ray.tables.outcome import returning_errors
from tgeokd_ray.tables.placing import PerSplit, Places, place
from tgeokd_ray.tables.readers import read_frames
from tgeokd_ray.tables.synthetic import DWELL, LOG_ODDS, LOG_ODDS_AFTER, check_columns, synthetic_rows, with_dwell

Ids = NDArray[np.int64]

UNIT_ROWS = PIECE_ROWS  # whole pieces of the reader are units, and not copied again
IMAGE_ROWS = 1 << 13  # images are wide: 25 MB of 32 x 32 in three colours
SPLIT, CHECK = "@split", "@check"


@dataclass(frozen=True)
class IngestItem:
    """One task's share of the raw data: the whole file `path`, or `rows` synthetic rows from `first` on."""

    index: int
    path: str | None
    first: int = 0
    rows: int = 0

    @property
    def name(self) -> str:
        """The base name of the file."""
        return Path(self.path).name if self.path is not None else "synthetic"

    @property
    def marker(self) -> str:
        """The file in the scratch folder that says that all units of this item are there."""
        return f"item-{self.index:05d}.json"


@dataclass(frozen=True)
class RawUnit:
    """One unit in the scratch folder: its file, the raw file its rows come from, how many raw rows were read for it,
    and how many of each class went to each split, `counts[split][class]` in the order of `SPLITS`.

    `unlabelled` train rows have no label. Per split, the labels of `trusted` rows are trusted, and `left_out` ones are
    not there, because they have none.
    """

    file: str
    source: str
    rows: int
    counts: tuple[PerSplit, ...]
    unlabelled: int = 0
    trusted: PerSplit = (0,) * len(SPLITS)
    left_out: PerSplit = (0,) * len(SPLITS)

    def rows_of(self, split: str) -> int:
        """Rows of one split, with and without a label."""
        return sum(self.counts[SPLITS.index(split)]) + (self.unlabelled if split == "train" else 0)


@dataclass(frozen=True)
class Piece:
    """The used rows of a piece of 65,536 raw rows, how many raw rows it had, and where they went."""

    typed: pa.Table
    raw_rows: int
    places: Places

    def unit(self, file: str, source: str, num_classes: int) -> RawUnit:
        """The facts of the unit that holds these rows as `file`."""
        counts, places = class_counts(self.typed, num_classes), self.places
        unlabelled = int((self.typed[LABEL].to_numpy() == UNLABELLED).sum())
        return RawUnit(file, source, self.raw_rows, counts, unlabelled, places.trusted, places.left_out)


def class_counts(typed: pa.Table, num_classes: int) -> tuple[PerSplit, ...]:
    """Rows of each class in each split, `[split][class]`; rows without a label are in none."""
    labels, codes = typed[LABEL].to_numpy(), typed[SPLIT].to_numpy()
    known = labels != UNLABELLED
    cells = codes[known].astype(np.int64) * num_classes + labels[known]
    counts = np.bincount(cells, minlength=len(SPLITS) * num_classes).reshape(len(SPLITS), num_classes)
    return tuple(map(tuple, counts.tolist()))


def ingest_plan(card: Card, files: Sequence[Path], first: int = 0) -> list[IngestItem]:
    """One item per raw file, in order, counted from `first`, or one per `chunk_rows` rows of a synthetic table."""
    if not card.format.makes_rows:
        return [IngestItem(index, str(path)) for index, path in enumerate(files, first)]
    if card.format.kind == "digits":
        return [IngestItem(0, None, 0, DIGITS)]
    check_columns(card)
    rows, chunk = card.format.rows or 0, card.format.chunk_rows
    starts = range(0, rows, chunk)
    return [IngestItem(index, None, first, min(chunk, rows - first)) for index, first in enumerate(starts)]


@returning_errors
def ingest(card: Card, scratch: Path, item: IngestItem) -> list[RawUnit]:
    """Write the units of one item to `scratch`, then its marker; the error holds all problems of the file."""
    units = []
    for number, piece in enumerate(typed_pieces(card, item)):
        file = f"raw-{item.index:05d}-{number:05d}.arrow"
        write_unit(scratch, file, piece.typed)
        units.append(piece.unit(file, item.name, len(card.label.classes)))
    write_file(scratch, item.marker, lambda path: write_json(path, [asdict(unit) for unit in units]))
    return units


def typed_pieces(card: Card, item: IngestItem) -> Iterator[Piece]:
    """The used rows of each piece of 65,536 raw rows, or of 8,192 images, in order."""
    for frame in in_pieces(_frames(card, item), UNIT_ROWS if card.image is None else IMAGE_ROWS):
        yield _typed(card, frame.combine_chunks(), item)


def finished_units(item: IngestItem, scratch: Path, kept: Mapping[str, FileEntry]) -> list[RawUnit] | None:
    """The units that an earlier attempt finished for this item, if every one of them is among the files `kept`."""
    if item.marker not in kept:
        return None
    saved = read_json(scratch / item.marker)
    units = [
        RawUnit(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in unit.items()}
            | {"counts": tuple(tuple(row) for row in unit["counts"])}
        )
        for unit in saved
    ]
    return units if all(unit.file in kept for unit in units) else None


# Some columns of a unit, wherever it lies.
ReadUnit: TypeAlias = Callable[[RawUnit, Sequence[str]], pa.Table]


def write_unit(scratch: Path, file: str, typed: pa.Table) -> None:
    """Write the rows of a unit as they are in memory, texts as dictionaries: they are read twice, and then go."""

    def write(path: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression=None, use_threads=False)
        narrow = pa.table({name: _narrow(typed[name].combine_chunks()) for name in typed.column_names})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, narrow.schema, options=options) as writer:
            writer.write_table(narrow)

    write_file(scratch, file, write, rows=typed.num_rows)


def _narrow(column: pa.Array) -> pa.Array:
    """The same values in half the bytes where they fit: what is written is hashed as well, which costs more."""
    if pa.types.is_dictionary(column.type) and len(column.dictionary) < 1 << 15:
        return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int16()), column.dictionary)
    if pa.types.is_float64(column.type):
        small = column.cast(pa.float32(), safe=False)
        if small.cast(pa.float64()).equals(column):  # NaN is not equal, so a column with one stays as it is
            return small
    return column


def read_unit(scratch: Path, unit: RawUnit, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a unit, or some of their columns, in this order; numbers as float32 where that is exact."""
    with pa.OSFile(str(scratch / unit.file)) as source:
        names = None if columns is None else list(dict.fromkeys(columns))
        fields = pa.ipc.open_file(source).schema.names if names is not None else []
        wanted = None if names is None else [fields.index(name) for name in names]
        source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        table = pa.ipc.open_file(source, options=options).read_all()
    return table if names is None else table.select(names)


def check_unique(card: Card, units: Sequence[RawUnit], read: ReadUnit) -> None:
    """DataError with the first repeated row ids and where they stand, if any; places in files never repeat."""
    if card.row_id.kind == "file_row":
        return

    def ids() -> Iterator[Ids]:
        return (read(unit, [ROW_ID])[ROW_ID].to_numpy() for unit in units)

    first, count = repeated_ids(ids, sum(unit.rows for unit in units))
    if not count:
        return
    problems: dict[int, Problem] = {}
    checks: dict[int, set[int]] = {}
    columns = [ROW_ID, ROW, *([CHECK] if card.row_id.type == "text" else [])]
    for unit in units:
        table = read(unit, columns)
        found = np.isin(table[ROW_ID].to_numpy(), first)
        for row in table.filter(pa.array(found)).to_pylist():
            checks.setdefault(row[ROW_ID], set()).add(row.get(CHECK, 0))
            what = "another row has this row id"
            # Of a text only the hash is known here; the row says which text it is.
            got = str(row[ROW_ID]) if card.row_id.type == "int" else None
            problems[row[ROW_ID]] = Problem(what, unit.source, card.row_id.column, row[ROW] + 1, got=got)
    collided = any(len(values) > 1 for values in checks.values())
    fix = "two texts share a hash: use a column of whole numbers" if collided else "give every row its own id"
    raise DataError([problems[int(row_id)] for row_id in first[:SHOWN]], fix=fix, total=count)


def row_ids(card: Card, frame: pa.Table, file_index: int) -> tuple[Ids, Ids | None]:
    """(ids, checks) of the rows of a frame as read; checks only for ids that are hashes of texts."""
    if card.row_id.kind == "file_row":
        return file_row_ids(file_index, frame[ROW].to_numpy()), None
    if card.row_id.type == "text":
        return text_ids(frame[ROW_ID].combine_chunks())
    return frame[ROW_ID].cast(pa.int64()).to_numpy(), None


def _frames(card: Card, item: IngestItem) -> Iterator[pa.Table]:
    if item.path is not None:
        yield from read_frames(card, Path(item.path))
    elif card.format.kind == "digits":
        yield digits_frame()
    else:
        rows = synthetic_rows(card.format.seed, item.first, item.rows)
        yield with_dwell(card.format.seed, rows) if DWELL in card.numeric else rows


def _typed(card: Card, frame: pa.Table, item: IngestItem) -> Piece:
    """The used rows: id, split, label, weight, place in the file, raw columns of the encoder."""
    ids, checks = row_ids(card, frame, 0 if item.path is None else item.index)
    places = place(card, frame, ids, item.name)
    codes = places.codes
    columns = {ROW_ID: pa.array(ids), ROW: frame[ROW], SPLIT: pa.array(codes), LABEL: frame[LABEL].cast(pa.int32())}
    if checks is not None:
        columns[CHECK] = pa.array(checks)
    if card.weight is not None:
        columns[WEIGHT] = frame[WEIGHT].cast(pa.float32())
    columns |= {name: frame[name] for name in card.features}
    if item.path is None:
        columns |= {name: frame[name] for name in (LOG_ODDS, LOG_ODDS_AFTER) if name in frame.column_names}
    used = codes != UNUSED
    typed = pa.table(columns)
    return Piece(typed if used.all() else typed.filter(pa.array(used)), frame.num_rows, places)
