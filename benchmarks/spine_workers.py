"""Two workers of a Ray Train group against one worker: parameters after 50 bilevel steps with centring.

`spine.py workers` runs `main` in a process of its own.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from tgeokd_ray.artifacts import load_tensors
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_job

SETTINGS = (
    "student.training.epochs=5",
    "student.training.patience=5",
    "student.training.optimizer.clip_norm=1.0",
    "distill.constants=[0.5]",
    "distill.fusion.level=0.5",
    "teacher.training.epochs=1",
    "teacher.model.hidden=[32]",
)


def tgeo(root: Path, workers: int, precision: str) -> tuple[dict[str, object], int]:
    """Parameters of the learned student, and its steps, of a job on `workers` workers."""
    settings = [*SETTINGS, f"precision={precision}", f"workers={workers}"]
    job, card = resolve({"root": str(root)}, settings=settings)
    results, _ = run_job(job, card, Place(), Silent())
    entry = next(model for model in results["models"] if model["name"] == "tgeo")
    folder = root / entry["artifact"]
    tensors = {
        f"{name}/{key}": value.double()
        for name in ("model", "fusion")
        for key, value in load_tensors(folder / f"{name}.safetensors").items()
    }
    return tensors, entry["history"][-1]["step"]


def main(precision: str) -> None:
    """Print one JSON line: steps, largest absolute difference, seconds; `precision` is fp32 or fp64."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # both runs share the teacher and the logits that one worker made
        one, steps = tgeo(Path(folder) / "root", 1, precision)
        os.rename(Path(folder) / "root" / "students", Path(folder) / "students-of-one")
        two, _ = tgeo(Path(folder) / "root", 2, precision)
    difference = max(float((one[name] - two[name]).abs().max()) for name in one)  # type: ignore[operator]
    print(json.dumps({"steps": steps, "difference": difference, "seconds": round(time.monotonic() - began, 1)}))
