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

# In float32 a row may come so close to a ReLU's kink that the order of a sum decides on which side it is, as it does
# for seed 0 without `exact_sums`. The worst of some seeds counts; all stand beside it.
SEEDS = {"fp32": (0, 1, 2), "fp64": (0,)}
SETTINGS = (
    "student.training.epochs=5",
    "student.training.patience=5",
    "student.training.optimizer.clip_norm=1.0",
    "distill.rule=tgeo_one_step",
    "distill.constants=[0.5]",
    "distill.fusion.level=0.5",
    "teacher.training.epochs=1",
    "teacher.model.hidden=[32]",
)


def tgeo(root: Path, workers: int, precision: str, seed: int) -> tuple[dict[str, object], int]:
    """Parameters of the learned student, and its steps, of a job on `workers` workers."""
    settings = [*SETTINGS, f"precision={precision}", f"workers={workers}", f"seed={seed}"]
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
    """Print one JSON line: steps, the largest difference and that of every seed, seconds; fp32 or fp64."""
    began = time.monotonic()
    differences, steps = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS[precision]:
            # both runs share the teacher and the logits that one worker made
            one, steps = tgeo(Path(folder) / "root", 1, precision, seed)
            os.rename(Path(folder) / "root" / "students", Path(folder) / f"students-of-one-{seed}")
            two, _ = tgeo(Path(folder) / "root", 2, precision, seed)
            os.rename(Path(folder) / "root" / "students", Path(folder) / f"students-of-two-{seed}")
            differences.append(max(float((one[name] - two[name]).abs().max()) for name in one))  # type: ignore[operator]
    facts = {"steps": steps, "difference": max(differences), "by_seed": differences}
    print(json.dumps({**facts, "seconds": round(time.monotonic() - began, 1)}))
