"""One raw file as typed pieces, whatever its format; all of its problems are told at once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables import arff
from tgeokd_ray.tables.card_images import IMAGES
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.cells import Cells
from tgeokd_ray.tables.cifar import cifar_frames
from tgeokd_ray.tables.columnar import columnar_pieces
from tgeokd_ray.tables.delimited import PIECE_BLOCKS, PIECE_ROWS, Marks, Unsure, cut, in_pieces
from tgeokd_ray.tables.findings import Findings, file_error
from tgeokd_ray.tables.headers import check_names, file_columns
from tgeokd_ray.tables.imagenet import npz_frames
from tgeokd_ray.tables.streams import BUFFER, TextBytes

_OF_IMAGES = {".bin": cifar_frames, ".npz": npz_frames}  # by how files end


def read_frames(card: Card, path: Path, labels: bool = True) -> Iterator[pa.Table]:
    """The rows of a raw file in its order, in bounded memory: `@row` counts them from 0; `@label` is the class index;
    `@row_id`, `@weight` and what decides about splits where the card names them; numbers as float64, null if missing;
    the rest text, categories as dictionaries.

    Without `labels` neither label nor weight nor a column of the splits is read or needed. DataError with the first 20
    problems of the whole file in the order of rows and the total; what was given before it must not be used.
    """
    given = 0
    if card.image is not None:
        yield from _OF_IMAGES[IMAGES[card.format.kind].suffix](card, path, labels)
        return
    if card.format.kind in ("csv", "tsv"):
        try:
            for frame in _in_haste(card, path, labels):
                yield frame
                given += frame.num_rows
            return
        except Unsure:  # from the start, with care; what was given already is not given again
            pass
    findings, rows = Findings(path), 0
    for frame in _typed(card, path, labels, findings):
        rows += frame.num_rows
        if not findings.total and rows > given:
            yield frame.slice(max(frame.num_rows - (rows - given), 0))
    findings.raise_if_any()
    if not rows and card.format.kind != "parquet":
        raise file_error([Problem("has no rows", str(path))])


def _in_haste(card: Card, path: Path, labels: bool) -> Iterator[pa.Table]:
    """The rows of a text file that nothing is wrong with; `Unsure` as soon as something may be."""
    findings, rows = Findings(path), 0
    for frame in _typed(card, path, labels, findings, haste=True):
        if findings.total:
            raise Unsure
        yield frame
        rows += frame.num_rows
    if findings.total or not rows:
        raise Unsure


def _typed(card: Card, path: Path, labels: bool, findings: Findings, haste: bool = False) -> Iterator[pa.Table]:
    wanted = _wanted(card, labels)
    if card.format.kind == "parquet":
        cells = Cells(card, findings, labels, nulls=card.format.null_values)
        yield from map(cells.typed, columnar_pieces(card, path, wanted, labels))
        return
    form = card.format
    names: list[str] | None = None
    if form.kind != "arff":
        columns = file_columns(card, path, labels)
        names = None if form.header else columns
    with TextBytes(path) as raw, io.BufferedReader(raw, BUFFER) as buffered:
        text: BinaryIO = buffered
        marks = Marks(form.separator or ",", form.quote, form.null_values)
        cells = Cells(card, findings, labels, nul=lambda: raw.has_nul, haste=haste)
        if form.kind == "arff":
            names = columns = arff.read_head(text, path)
            check_names(card, path, columns, labels)
            text, marks = arff.data_rows(text, path), replace(arff.MARKS, nulls=("?", *form.null_values))
            cells = replace(cells, strip=True, nulls=marks.nulls)
        last, end = columns[-1], b""
        # A column with a second role, or whose last cell is looked at, is needed as text.
        own = {*_roles(card), last}
        numbers = [name for name in card.numeric if name not in own] if haste else None
        blocks = cut(text, names, list(dict.fromkeys([*wanted, last])), marks, findings, numbers)
        for piece in in_pieces(blocks, PIECE_ROWS, PIECE_BLOCKS if haste else 1 + PIECE_BLOCKS // 8):
            yield cells.typed(piece)
            end = piece[last][-1].as_py() or b"" if piece.num_rows else end
        # Text that ends in an open quote takes the last newline into its cell; a closed cell may end in a newline, too.
        quote = (marks.quote or "").encode()
        if quote and end.endswith(b"\n") and raw.tail[:2] not in (b"\n" + quote, b"\r" + quote):
            findings.add(cells.rows - 1, "a quote is not closed before the end of the file", column=last)


def _wanted(card: Card, labels: bool) -> list[str]:
    """The raw columns that are read."""
    return list(dict.fromkeys([*_roles(card, labels), *card.numeric, *card.categorical]))


def _roles(card: Card, labels: bool = True) -> list[str]:
    """The raw columns that are more than features: row id and, with `labels`, label, weight, what decides on splits."""
    own = [card.row_id.column]
    if labels:
        own += [card.label.column, card.weight, *card.splits.columns]
    return [name for name in own if name is not None]
