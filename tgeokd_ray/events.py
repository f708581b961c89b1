"""What a long stage tells whoever watches: passed in, so that no floor below the report knows a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    """Listener of stages. `stage` names the stage; amounts are in `unit` (rows by default)."""

    def started(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        """A stage begins; `total` is the expected amount, None where it is unknown."""

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` is a short figure to show (for instance `auc .7312`)."""

    def stood(self, stage: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """How the stage stands, the best first: a small table that takes the place of the one before."""

    def warned(self, message: str) -> None:
        """Something the user should know although the work goes on."""

    def finished(self, stage: str, note: str = "") -> None:
        """The stage is done; `note` says what came of it (for instance `reused tables/criteo/v000001`)."""


class Heard:
    """Passes everything on to another listener, and keeps the warnings."""

    def __init__(self, to: Progress) -> None:
        self.warnings: list[str] = []
        self.started, self.advanced, self.stood, self.finished = to.started, to.advanced, to.stood, to.finished
        self._to = to

    def warned(self, message: str) -> None:
        """The warning, kept and passed on."""
        self.warnings.append(message)
        self._to.warned(message)


class Silent:
    """Says nothing and keeps the warnings: the listener of tests and of library use."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def started(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        del stage, total, unit

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        del stage, amount, note

    def stood(self, stage: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        del stage, headings, rows

    def warned(self, message: str) -> None:
        self.warnings.append(message)

    def finished(self, stage: str, note: str = "") -> None:
        del stage, note
