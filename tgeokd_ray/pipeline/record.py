"""`log.txt` of a run folder: what the terminal said, kept with the time, and the warnings for results.json."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tgeokd_ray.events import Progress


class Recorder:
    """A Progress that passes everything on, appends stages and warnings to a file, and keeps the warnings once each."""

    def __init__(self, progress: Progress, path: Path) -> None:
        self.warnings: list[str] = []
        self._progress = progress
        self._path = path

    def started(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        self._write(f"{stage} started" + (f", {total} {unit}" if total is not None else ""))
        self._progress.started(stage, total, unit)

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        if note:
            self._write(f"{stage} {note}")
        self._progress.advanced(stage, amount, note)

    def warned(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self._write(f"warning: {message}")
            self._progress.warned(message)

    def finished(self, stage: str, note: str = "") -> None:
        self._write(f"{stage} finished {note}".rstrip())
        self._progress.finished(stage, note)

    def _write(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n")
