"""The head of an ARFF file (Weka's format): attribute names and types, up to its `@data`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.delimited import Marks
from tgeokd_ray.tables.findings import file_error, shown

MARKS = Marks(separator=",", quote="'", nulls=("?", ""), escape="\\", comment="%")
_ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s{]+))\s*(\{.*|\S+.*)$""", re.I | re.S
)
_MAX_HEAD = 1 << 24


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
