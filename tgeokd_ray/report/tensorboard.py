"""The learning curves of a run as TensorBoard events."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_events(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """One folder of events per model that has a history, `folder/tensorboard/MODEL`; returns these folders.

    Every number of an entry but `epoch` and `step` becomes a scalar at its step; null is left out. Leading dots of a
    name and characters outside `A-Za-z0-9._-` become `_`, so that no name leaves the folder. Earlier events of these
    models are replaced.
    """
    from tensorboardX import SummaryWriter

    written = []
    for model in results["models"]:
        history = model.get("history") or []
        if not history:
            continue
        target = Path(folder) / "tensorboard" / (re.sub(r"^\.+|[^A-Za-z0-9._-]", "_", model["name"]) or "_")
        for old in target.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(target)) as writer:
            for entry in history:
                for key, value in entry.items():
                    if key not in ("epoch", "step") and _drawable(value):
                        writer.add_scalar(key.replace("valid_", "valid/"), value, int(entry["step"]))
        written.append(target)
    return written


def _drawable(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
