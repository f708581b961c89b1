"""The columns a raw file has against those its card names: every difference at once, with the likely cause."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tgeokd_ray.errors import Problem
from tgeokd_ray.tables.cards import Card, Format
from tgeokd_ray.tables.findings import file_error, shown
from tgeokd_ray.tables.streams import TextBytes
from tgeokd_ray.tables.validation import did_you_mean

# What a cell may hold, in characters; also what the first record of a file may.
CELL = 1 << 22
NAMED = 6
_SEPARATORS = {
    "\t": ("tab", "kind: tsv"),
    ",": ("comma", "kind: csv"),
    ";": ("semicolon", "separator: ';'"),
    "|": ("bar", "separator: '|'"),
}
_UNDECODED = re.compile("[\udc80-\udcff]")


def first_record(path: Path, form: Format) -> tuple[list[str], str]:
    """The cells of the first record of a text file, and its text; DataError if it is no text or none is there."""
    with (
        TextBytes(path) as raw,
        io.TextIOWrapper(io.BufferedReader(raw), "utf-8", "surrogateescape", newline="") as text,
    ):
        lines: list[str] = []

        def reading() -> Iterator[str]:
            while line := text.readline(CELL):
                lines.append(line)
                yield line

        old = csv.field_size_limit(CELL)
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if form.quote else csv.QUOTE_NONE
        separator, quote = form.separator or ",", form.quote or '"'
        try:
            rows = csv.reader(reading(), delimiter=separator, quotechar=quote, quoting=quoting)
            cells = next((row for row in rows if row), None)
        except csv.Error as error:
            what = f"cannot be cut into columns: {error}; is a quote not closed?"
            raise file_error([Problem(what, str(path), line=1)]) from None
        finally:
            csv.field_size_limit(old)
        open_quote = bool(form.quote and cells and cells[-1].endswith("\n") and not text.read(1))
    if cells is None:
        raise file_error([Problem("holds nothing but empty lines", str(path))])
    wrong = {
        "is no text file: it holds NUL bytes": any("\0" in line for line in lines),
        "the header is not UTF-8 text": form.header and _UNDECODED.search("".join(cells)),
        "a quote of the header is not closed": form.header and open_quote,
    }
    for what, found in wrong.items():
        if found:
            raise file_error([Problem(what, str(path), line=1)])
    return cells, lines[-1]


def file_columns(card: Card, path: Path, labels: bool) -> list[str]:
    """The names of the columns of a CSV or TSV file in their order, checked against the card.

    Without `labels` a file may lack the columns of label, weight and splits. DataError lists every difference.
    """
    cells, line = first_record(path, card.format)
    if card.format.header:
        check_names(card, path, cells, labels, line)
        return cells
    names, unlabelled = list(card.format.names), [n for n in card.format.names if n not in optional(card, labels)]
    if len(cells) == len(names):
        return names
    if len(cells) == len(unlabelled):
        return unlabelled
    expected, got = f"{len(names)} columns", f"{len(cells)}{_cause(card, len(names), line)}"
    raise file_error(
        [Problem("the file has another number of columns than the card", str(path), None, 1, None, expected, got)]
    )


def optional(card: Card, labels: bool) -> set[str]:
    """Columns that a file may lack: those that only training needs."""
    if labels:
        return set()
    own = {card.label.column, card.weight, *card.splits.columns, *card.columns.ignore}
    return {name for name in own if name is not None} - {card.row_id.column, *card.numeric, *card.categorical}


def check_names(card: Card, path: Path, names: Sequence[str], labels: bool, line: str = "") -> None:
    """DataError with all names that are missing, doubled, or not in the card though it allows no others."""
    problems = name_problems(card, path, names, labels, line)
    if problems:
        raise file_error(problems)


def name_problems(card: Card, path: Path, names: Sequence[str], labels: bool, line: str = "") -> list[Problem]:
    """What is wrong with the names of a file's columns; `line` is the text that they were cut from, if any was."""
    file, known, may_lack = str(path), card.known_columns, optional(card, labels) | set(card.columns.ignore)
    needed = [name for name in known if name not in may_lack]
    lacking = [name for name in needed if name not in names]
    if line and lacking and len(names) == 1 and (cause := _cause(card, len(needed), line)):
        expected, got = f"{len(needed)} columns", f"1{cause}"
        return [Problem("the header is not as the card says", file, line=1, expected=expected, got=got)]
    if line and lacking == needed:
        what = "no column of the card is in the first line; if that is data, set format.header: false and format.names"
        expected = ", ".join(map(repr, needed[:NAMED])) + (", ..." if len(needed) > NAMED else "")
        return [Problem(what, file, line=1, expected=expected, got=shown(line.strip()))]
    problems = [Problem("the file has this column twice", file, name) for name, n in Counter(names).items() if n > 1]
    strange = [name for name in dict.fromkeys(names) if name not in known]
    problems += [Problem(f"the file lacks this column{did_you_mean(name, strange)}", file, name) for name in lacking]
    if card.columns.others == "error":
        what = "the card does not name this column: give it a role, ignore it, or set columns.others: ignore"
        problems += [Problem(what, file, name) for name in strange]
    return problems


def _cause(card: Card, expected: int, line: str) -> str:
    """Which other separator would give the right number of columns, or at least more of them."""
    counts = {mark: line.count(mark) for mark in _SEPARATORS if mark != card.format.separator}
    mark = max(counts, key=lambda m: (counts[m] == expected - 1, counts[m]))
    if counts[mark] + 1 != expected and counts[mark] <= line.count(card.format.separator or ","):
        return ""
    name, setting = _SEPARATORS[mark]
    return f", but {counts[mark] + 1} when cut at every {name}: set format.{setting}?"
