"""`metrics.jsonl` of a run folder: one line per logged step, written by one worker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends lines `{"run": name, "epoch": e, "step": s, ...}`; measures are lists of one value per student.

    A run that starts again at `step` first drops its own lines from there on, so that no step stands twice.
    """

    def __init__(self, path: Path | None, name: str, step: int = 0) -> None:
        self.path, self.name = path, name
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
        return entry.get("run") != self.name or int(entry.get("step", 0)) <= step

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line; a log without a path (another worker's) says nothing."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as lines:
            lines.write(json.dumps({"run": self.name, **entry}) + "\n")
