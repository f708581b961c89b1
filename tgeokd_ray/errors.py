"""One error form for the whole package: who, which, rule, value, and a way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where: `row` counts data rows from 1, `line` counts text lines from 1."""

    what: str
    file: str | None = None
    column: str | None = None
    row: int | None = None
    line: int | None = None
    expected: str | None = None
    got: str | None = None

    def __str__(self) -> str:
        where = [
            f"{name} {value!r}" if name == "column" else f"{name} {value}"
            for name, value in (("file", self.file), ("column", self.column), ("row", self.row), ("line", self.line))
            if value is not None
        ]
        parts = [", ".join([*where]) + ": " + self.what if where else self.what]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        return "; ".join(parts)


class UserError(Exception):
    """Something the user can mend; printed as one block, without a traceback.

    `problems` lists everything found at once; `total` is how many there were when only the first are listed;
    `fix` is what to do next. Subclasses fix the exit code. Instances survive pickling with every field.
    """

    exit_code = 1
    code = "error"

    def __init__(self, what: str | Sequence[Problem], fix: str | None = None, total: int | None = None) -> None:
        super().__init__(what, fix, total)
        self.problems: tuple[Problem, ...] = (Problem(what),) if isinstance(what, str) else tuple(what)
        self.fix = fix
        self.total = total if total is not None else len(self.problems)

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.problems[0]}"] if self.problems else [self.code]
        lines += [f"  {problem}" for problem in self.problems[1:SHOWN]]
        shown = min(len(self.problems), SHOWN)
        if self.total > shown:
            lines.append(f"  ... {self.total} in all, the first {shown} are shown")
        if self.fix:
            lines.append(f"  next: {self.fix}")
        return "\n".join(lines)


class ConfigError(UserError):
    """A wrong option, key or plan: nothing was started."""

    exit_code = 2
    code = "config"


class DataError(UserError):
    """A raw file, card or value that breaks its rule."""

    exit_code = 3
    code = "data"


class ProvenanceError(UserError):
    """Artifacts that do not belong together: another table, teacher, encoder or class order."""

    exit_code = 4
    code = "provenance"


class IntegrityError(UserError):
    """Bytes that differ from what the manifest says."""

    exit_code = 5
    code = "integrity"


class ResourceError(UserError):
    """The machine or the cluster cannot do it: disk, memory, CPUs, device, permissions."""

    exit_code = 6
    code = "resource"
