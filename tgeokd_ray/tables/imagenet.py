"""ImageNet in small images, as its publisher gives it for NumPy: red, green and blue of an image, row by row.

Chrabaszcz, Loshchilov and Hutter, A Downsampled Variant of ImageNet as an Alternative to the CIFAR Datasets, 2017
(https://arxiv.org/abs/1707.08819). An archive holds `data` [N, 3 S S] uint8 and `labels` [N], 1 to 1000, in the order
of the publisher's `map_clsloc.txt`; those of the train rows also their mean, which is not read. Nothing is unpickled.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN, Problem
from tgeokd_ray.feed.arrow import flat, lists
from tgeokd_ray.tables.card_images import IMAGES, PIXELS, ImageKind
from tgeokd_ray.tables.cards import LABEL, ROW, Card
from tgeokd_ray.tables.findings import Findings, file_error

PIECE_BYTES = 12 << 20
DATA, LABELS = "data", "labels"
_FIX = "get the file again, or correct format.kind in the card"
_PACKING = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
_TORN = (*_PACKING, ValueError, OverflowError, TokenError)  # the last three are of what stands before an array


def npz_frames(card: Card, path: Path, labels: bool = True) -> Iterator[pa.Table]:
    """The rows of one file in its order, as `readers.read_frames` gives them, the pixels as lists of 3 S S bytes; in
    the memory of some thousand images.

    DataError for a file that is no such archive, torn, empty, or whose arrays are of another form, as soon as that is
    known; after the last row, with the first 20 of them and how many there are, for labels that are no class.
    """
    form = IMAGES[card.format.kind]
    findings, rows = Findings(path), 0
    with _archive(path) as archive:
        classes = _labels(archive, path) - form.first
        _note(classes, form, findings)
        for pixels in _pixels(archive, path, form, len(classes)):
            ends = rows + len(pixels)
            columns = {ROW: flat(np.arange(rows, ends))}
            if labels:
                columns[LABEL] = flat(classes[rows:ends].astype(np.int32))
            rows = ends
            if not findings.total:
                yield pa.table(columns | {PIXELS: lists(pixels)})
    findings.raise_if_any(_FIX)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever shows on the way that it is none, or torn, as a DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise file_error([Problem(f"cannot be read: {error.strerror or error}", file=str(path))]) from None
    except _TORN as error:
        expected = f"an .npz file with the arrays {DATA} and {LABELS}"
        problem = Problem("is no whole archive of NumPy", str(path), expected=expected, got=str(error) or "its end")
        raise file_error([problem], fix=_FIX) from None


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> IO[bytes]:
    names = [Path(known).stem for known in archive.namelist()]
    if name not in names:
        got = ", ".join(names) or "nothing"
        raise file_error([Problem(f"has no array {name}", str(path), expected=f"{DATA}, {LABELS}", got=got)], fix=_FIX)
    return archive.open(archive.namelist()[names.index(name)])


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether columns come first, and type of the array that follows. ValueError where none does."""
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


def _labels(archive: zipfile.ZipFile, path: Path) -> NDArray[np.int64]:
    with _member(archive, path, LABELS) as member:
        shape, _, dtype = _header(member)
        if len(shape) != 1 or shape[0] < 0 or dtype.kind not in "iu":
            raise _other_form(path, LABELS, "whole numbers [N]", shape, dtype)
        if not shape[0]:
            raise file_error([Problem("has no rows", str(path))], fix=_FIX)
        data = member.read(shape[0] * dtype.itemsize)
        _at_end(member)
    return np.frombuffer(data, dtype=dtype, count=shape[0]).astype(np.int64)


def _pixels(archive: zipfile.ZipFile, path: Path, form: ImageKind, rows: int) -> Iterator[NDArray[np.uint8]]:
    """The images in pieces [n, 3 S S]."""
    with _member(archive, path, DATA) as member:
        shape, columns_first, dtype = _header(member)
        if shape != (rows, form.num_pixels) or dtype != np.uint8 or columns_first:
            raise _other_form(path, DATA, f"uint8 [{rows}, {form.num_pixels}], a row for each label", shape, dtype)
        most = max(PIECE_BYTES // form.num_pixels, 1)
        for first in range(0, rows, most):
            size = min(most, rows - first) * form.num_pixels
            data = member.read(size)
            if len(data) < size:
                row = first + len(data) // form.num_pixels + 1
                problem = Problem("the file ends inside this row", str(path), row=row, expected=f"{rows} rows")
                raise file_error([problem], fix=_FIX)
            yield np.frombuffer(data, dtype=np.uint8).reshape(-1, form.num_pixels)
        _at_end(member)


def _at_end(member: IO[bytes]) -> None:
    """Only at the end the archive's check sum is compared; ValueError where more follows."""
    if member.read(1):
        raise ValueError("more bytes than its arrays have")


def _other_form(path: Path, name: str, expected: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Exception:
    got = f"{dtype} [{', '.join(map(str, shape))}]"
    return file_error([Problem("is of another form", str(path), column=name, expected=expected, got=got)], fix=_FIX)


def _note(classes: NDArray[np.int64], form: ImageKind, findings: Findings) -> None:
    ((name, num_classes),) = form.labels.items()
    wrong = np.flatnonzero((classes < 0) | (classes >= num_classes))
    expected = f"{form.first} to {form.first + num_classes - 1}"
    for row in wrong[:SHOWN].tolist():
        findings.add(row, "the label is no class", column=name, expected=expected, got=int(classes[row]) + form.first)
    findings.count(max(len(wrong) - SHOWN, 0))
