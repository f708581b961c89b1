"""ARFF files (Weka's format): attribute names and types up to `@data`, and what is peculiar to the rows after it."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import BinaryIO, cast

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.delimited import BLOCK, Marks
from tgeokd_ray.tables.findings import file_error, shown
from tgeokd_ray.tables.streams import BUFFER

MARKS = Marks(separator=",", quote="'", nulls=("?", ""), escape="\\")
_ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s{]+))\s*(\{.*|\S+.*)$""", re.I | re.S
)
_MAX_HEAD = 1 << 24
_COMMENT, _BEFORE_QUOTE = re.compile(rb"\n[ \t]*%[^\n]*"), re.compile(rb"([,\n])[ \t]+(?=')")
_SPARSE = re.compile(rb"\n[ \t]*\{")


def read_head(text: BinaryIO, path: Path) -> list[str]:
    """The attribute names, in order; the stream is left at the first data row.

    DataError with all lines that are no ARFF, for a file without `@data`, and for relational attributes.
    """
    names: list[str] = []
    problems: list[Problem] = []
    size = number = 0
    while line := text.readline(_MAX_HEAD):
        number, size = number + 1, size + len(line)
        try:
            words = line.decode().strip()
        except UnicodeDecodeError:
            problems.append(Problem("is not UTF-8 text", str(path), line=number))
            continue
        keyword = words.split(None, 1)[0].lower() if words else ""
        if keyword == "@data":
            break
        if keyword == "@attribute" and (found := _ATTRIBUTE.match(words)):
            names.append(re.sub(r"\\(.)", r"\1", next(name for name in found.groups()[:3] if name is not None)))
            if found[4].lower().startswith("relational"):
                problems.append(Problem("relational attributes cannot be read", str(path), names[-1], line=number))
        elif keyword and not keyword.startswith("%") and keyword != "@relation":
            expected = "@relation, @attribute NAME TYPE or @data"
            problems.append(
                Problem("is no line of an ARFF head", str(path), line=number, expected=expected, got=shown(words))
            )
        if size > _MAX_HEAD or len(problems) > 100:
            break
    else:
        problems.append(Problem("has no @data line", str(path)))
    if problems:
        raise file_error(problems)
    return names


def data_rows(text: BinaryIO, path: Path) -> BinaryIO:
    """The rest of an ARFF file without comments, and without blanks before quotes, which would not be taken for quotes.

    DataError, while it is read, for sparse rows.
    """
    return cast("BinaryIO", io.BufferedReader(_DataRows(text, path), BUFFER))


class _DataRows(io.RawIOBase):
    def __init__(self, text: BinaryIO, path: Path) -> None:
        super().__init__()
        self._text, self._path, self._rest = text, path, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        while not self._rest:
            lines = self._text.read(BUFFER) + self._text.readline(BLOCK)
            if not lines:
                return 0
            lines = b"\n" + lines
            if b"{" in lines and _SPARSE.search(lines):
                what = "sparse rows, {index value, ...}, cannot be read: write all values of a row"
                raise file_error([Problem(what, str(self._path))])
            lines = _COMMENT.sub(b"", lines) if b"%" in lines else lines
            lines = _BEFORE_QUOTE.sub(rb"\1", lines) if b"'" in lines else lines
            self._rest = lines[1:]
        data, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(data)] = data
        return len(data)
