"""What is wrong in one raw file: everything is counted, the first of it is kept, and it is told once, at the end."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tgeokd_ray.errors import SHOWN, DataError, Problem

SHOWN_VALUE = 60


def shown(value: object) -> str:
    """A value for a message: quoted, cut after 60 characters."""
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}... ({len(text)} characters)"


@dataclass
class Findings:
    """Problems of the rows of one file. Rows are given as their place among the rows that could be cut into columns,
    from 0; what is told are data rows of the file, from 1, for which rows that could not be cut are counted too.
    """

    path: Path
    total: int = 0
    _kept: list[tuple[int, int, Problem]] = field(default_factory=list)
    _uncut: list[int] = field(default_factory=list)

    def add(
        self, row: int, what: str, *, column: str | None = None, expected: str | None = None, got: object = None
    ) -> None:
        """One bad value, in the row at place `row`."""
        number = self.number(row)
        value = None if got is None else shown(got)
        self._keep(Problem(what, str(self.path), column, number, expected=expected, got=value))

    def count(self, more: int) -> None:
        """`more` bad values that are not told one by one."""
        self.total += more

    def add_uncut(self, number: int, what: str, *, expected: str, got: str) -> None:
        """The data row `number`, from 1, that could not be cut into columns. They come in order."""
        if len(self._uncut) < SHOWN:
            self._uncut.append(number)
        self._keep(Problem(what, str(self.path), row=number, expected=expected, got=got))

    def number(self, row: int) -> int:
        """The data row, from 1, of the row at place `row`; exact up to the last row that is told."""
        number = row + 1
        for uncut in self._uncut:
            number += uncut <= number
        return number

    def _keep(self, problem: Problem) -> None:
        insort(self._kept, (problem.row or 0, self.total, problem), key=lambda item: item[:2])
        del self._kept[SHOWN:]
        self.total += 1

    def raise_if_any(self, fix: str | None = None) -> None:
        """DataError with the first problems in the order of rows, and how many there are in all."""
        if self.total:
            raise file_error([problem for *_, problem in self._kept], total=self.total, fix=fix)


def file_error(problems: Iterable[Problem], total: int | None = None, fix: str | None = None) -> DataError:
    """The error for problems of raw files."""
    return DataError(
        list(problems), fix=fix or "correct the file or the card; tgeokd check reads without writing", total=total
    )
