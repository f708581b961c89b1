"""`metrics.jsonl` of a run folder: one line per logged step, written by one worker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends lines `{"run": name, "epoch": e, "step": s, ...}`, one for each run of a pack; a measure is a list of one
    value per student of the run, null for those that have ended, and a run whose students all have gets no line.

    `runs` are the names with the places of their students in the pack. A pack that starts again at `step` first drops
    its own lines from there on, so that no step stands twice.
    """

    def __init__(self, path: Path | None, runs: Sequence[tuple[str, range]], step: int = 0) -> None:
        self.path, self.runs = path, runs
        if path is not None and path.exists():
            kept = [line for line in path.read_text().splitlines(keepends=True) if self._stays(line, step)]
            draft = path.with_name(f"{path.name}.tmp")
            draft.write_text("".join(kept))
            os.replace(draft, path)

    def _stays(self, line: str, step: int) -> bool:
        try:
            entry = json.loads(line)
        except ValueError:
            return False
        return entry.get("run") not in dict(self.runs) or int(entry.get("step", 0)) <= step

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append the lines of one step, whose measures are lists of R; a log without a path (another worker's) says
        nothing."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as lines:
            for name, students in self.runs:
                own = entry_of(entry, students)
                if own is not None:
                    lines.write(json.dumps({"run": name, **own}) + "\n")


def entry_of(entry: Mapping[str, Any], students: range) -> dict[str, Any] | None:
    """The part of these students in an entry whose measures are lists of R; None where no measure has a value."""
    own = {
        key: value[students.start : students.stop] if isinstance(value, list) else value for key, value in entry.items()
    }
    values = [one for value in own.values() if isinstance(value, list) for one in value]
    return own if any(one is not None for one in values) else None
