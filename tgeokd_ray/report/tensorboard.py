"""The learning curves of a run as TensorBoard events."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_events(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """One folder of events per model that has a history, `folder/tensorboard/MODEL`; returns these folders.

    Every number of an entry but `epoch` and `step` becomes a scalar at its step; null is left out. Leading dots of a
    name and characters outside `A-Za-z0-9._-` become `_`, so that no name leaves the folder. Earlier events of these
    models are replaced.
    """
    new_writer = _writer()
    written = []
    for model in results["models"]:
        history = model.get("history") or []
        if not history:
            continue
        target = Path(folder) / "tensorboard" / (re.sub(r"^\.+|[^A-Za-z0-9._-]", "_", model["name"]) or "_")
        for old in target.glob("events.out.tfevents.*"):
            old.unlink()
        with new_writer(str(target)) as writer:
            for entry in history:
                for key, value in entry.items():
                    if key not in ("epoch", "step") and _drawable(value):
                        writer.add_scalar(key.replace("valid_", "valid/"), value, int(entry["step"]))
        written.append(target)
    return written


def _writer() -> Any:
    """SummaryWriter without torch, unless that is there already: tensorboardX takes it where it can, for graphs and
    tensors, and seconds of import would be all that a job whose artifacts are all re-used does."""
    modules: dict[str, Any] = sys.modules
    absent = "torch" not in modules
    if absent:
        modules["torch"] = None  # an import of it fails, which tensorboardX allows for
    try:
        from tensorboardX import SummaryWriter
    finally:
        if absent:
            del modules["torch"]
    return SummaryWriter


def _drawable(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
