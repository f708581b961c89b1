"""CIFAR-10 and CIFAR-100 as their publisher gives them in binary: label bytes, then red, green and blue, row by row.

A row of CIFAR-10 is 1 + 3072 bytes, one of CIFAR-100 2 + 3072: the coarse label, then the fine one
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN, Problem
from tgeokd_ray.feed.arrow import flat, lists
from tgeokd_ray.tables.card_images import IMAGES, PIXELS, ImageKind
from tgeokd_ray.tables.cards import LABEL, ROW, Card
from tgeokd_ray.tables.findings import Findings, file_error

PIECE_ROWS = 4096
_GZIP = b"\x1f\x8b"
_FIX = "get the file again, or correct format.kind in the card"


def cifar_frames(card: Card, path: Path, labels: bool = True) -> Iterator[pa.Table]:
    """The rows of one file in its order, as `readers.read_frames` gives them, the pixels as lists of 3072 bytes.

    DataError for a file that is empty, packed, or ends inside a row, before any row is given; after the last row, with
    the first 20 of them and how many there are, for label bytes that are no class, of either label of CIFAR-100.
    """
    form = IMAGES[card.format.kind]
    findings, rows = Findings(path), 0
    _check_length(path, card.format.kind, form)
    with path.open("rb") as file:
        while data := file.read(PIECE_ROWS * form.row_bytes):
            table = np.frombuffer(data, dtype=np.uint8).reshape(-1, form.row_bytes)
            numbers = np.arange(rows, rows + len(table))
            _note(table, form, rows, findings)
            columns = {ROW: flat(numbers)}
            if labels:
                place = list(form.labels).index(card.label.column)
                columns[LABEL] = flat(table[:, place].astype(np.int32))
            rows += len(table)
            if not findings.total:
                yield pa.table(columns | {PIXELS: lists(table[:, len(form.labels) :])})
    findings.raise_if_any(_FIX)


def _check_length(path: Path, kind: str, form: ImageKind) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
    except OSError as error:
        raise file_error([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from None
    rows, left = divmod(size, form.row_bytes)
    expected = f"{form.row_bytes} bytes per row of kind {kind}"
    if packed:
        raise file_error([Problem("is packed: unpack it first", file=str(path))])
    if not size:
        raise file_error([Problem("is empty", file=str(path), expected=expected)])
    if left:
        problem = Problem("the file ends inside this row", str(path), row=rows + 1, expected=expected, got=f"{left}")
        raise file_error([problem], fix=_FIX)


def _note(table: NDArray[np.uint8], form: ImageKind, first: int, findings: Findings) -> None:
    for place, (name, num_classes) in enumerate(form.labels.items()):
        wrong = np.flatnonzero(table[:, place] >= num_classes)
        for row in wrong[:SHOWN].tolist():
            expected, got = f"0 to {num_classes - 1}", int(table[row, place])
            findings.add(first + row, "the label is no class", column=name, expected=expected, got=got)
        findings.count(max(len(wrong) - SHOWN, 0))
