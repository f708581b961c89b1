"""What a run folder keeps: `log.txt`, the warnings for results.json, and the curves of models that were re-used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import read_json
from tgeokd_ray.errors import UserError
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

    def stood(self, stage: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._progress.stood(stage, headings, rows)  # of a moment: the file keeps what lasts

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


def known_digests(folder: Path) -> dict[str, str]:
    """{model: digest} of the results.json that lies in a run folder already; nothing where there is none."""
    with suppress(OSError, UserError, TypeError, KeyError, AttributeError):
        return {model["name"]: model["digest"] for model in read_json(folder / "results.json")["models"]}
    return {}


def known_channel(folder: Path) -> str | None:
    """The digest of the channel of the results.json that lies in a run folder already; None where there is none."""
    with suppress(OSError, UserError, TypeError, KeyError, AttributeError):
        return str(read_json(folder / "results.json")["channel"]["digest"])
    return None


def write_curves(
    folder: Path, models: Sequence[Mapping[str, Any]], before: Mapping[str, str], reused: Sequence[str]
) -> None:
    """metrics.jsonl and TensorBoard events of a run folder, such that they tell of these models.

    A re-used model was trained under another run, or before an earlier job of this one (`before`: its digests) put
    another model in its place: then its lines are those of its history, one per epoch, with the keys that training
    writes. Events are written anew when a model changed or they are not there.
    """
    changed = {model["name"] for model in models if before.get(model["name"]) != model["digest"]}
    _restore_lines(folder / "metrics.jsonl", [m for m in models if m["name"] in reused], before)
    if changed or not (folder / "tensorboard").is_dir():
        from tgeokd_ray.report.tensorboard import write_events

        write_events({"models": models}, folder)


def _restore_lines(path: Path, models: Sequence[Mapping[str, Any]], before: Mapping[str, str]) -> None:
    there = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    runs = [_run_of(line) for line in there]
    stale = [m for m in models if m["name"] not in runs or before.get(m["name"], m["digest"]) != m["digest"]]
    if not stale:
        return
    names = {model["name"] for model in stale}
    kept = [line for line, run in zip(there, runs, strict=True) if run is not None and run not in names]
    added = [json.dumps(_entry(model["name"], entry)) + "\n" for model in stale for entry in model["history"]]
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text("".join([*added, *kept]), encoding="utf-8")
    os.replace(draft, path)


def _entry(run: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A measure is a list of one value per student, as in the lines of training."""
    return {"run": run} | {key: value if key in ("epoch", "step") else [value] for key, value in entry.items()}


def _run_of(line: str) -> str | None:
    """The run that a line belongs to; None where it is torn."""
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(line)["run"])
    return None
