"""A small job whose numbers Ray must repeat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL = (
    "teacher.training.epochs=1",
    "teacher.model.hidden=[16]",
    "teacher.model.embedding=4",
    "student.training.epochs=2",
    "student.training.batch_rows=64",
    "distill.constants=[0.25, 0.75]",
    "distill.fusion.batch_rows=64",
)


@dataclass(frozen=True)
class Chain:
    """A finished job: its configuration, its card, what it found and where."""

    job: Any
    card: Any
    results: dict[str, Any]
    root: Path
