"""Small sweeps in this process: a table with logits that all of them start from, and how one is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tgeokd_ray.config.sweep import Resolved, resolve_sweep
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import Prepared, prepare, run_sweep

RATE = "student.training.optimizer.learning_rate"
SMALL = {
    "teacher": {"model": {"hidden": [8], "members": 1}, "training": {"epochs": 1}},
    "student": {"model": {"hidden": [4]}, "training": {"epochs": 3, "batch_rows": 128, "patience": 9}},
    "distill": {"fusion": {"batch_rows": 64}, "strengths": [1.0], "shifts": [0.0, 1.5]},
}
SPACE = {
    RATE: {"log_uniform": [1e-3, 3e-2]},
    "rule": {"choice": ["labels", "constant", "ada"]},
    "constant": {"uniform": [0.1, 1.0], "when": {"rule": "constant"}},
}


@dataclass(frozen=True)
class Sweeps:
    """A root with a small table and logits, and the card that made them."""

    root: Path
    card: Path

    def resolved(
        self, name: str, space: Mapping[str, Any] = SPACE, base: Mapping[str, Any] | None = None, **keys: Any
    ) -> Resolved:
        """The sweep of this name."""
        path = self.root.parent / f"{name}.yaml"
        told = {"base": {"card": str(self.card), **SMALL, **(base or {})}, "space": dict(space), **keys}
        path.write_text(yaml.safe_dump(told))
        return resolve_sweep(str(path), {"root": str(self.root)})

    def run(self, name: str, space: Mapping[str, Any] = SPACE, *, add_trials: int = 0, **keys: Any) -> dict[str, Any]:
        """What results.json of a sweep in this process holds."""
        resolved = self.resolved(name, space, **keys)
        return run_sweep(resolved, Place(local=True), Silent(), add_trials=add_trials)[0]

    def prepared(self, name: str, space: Mapping[str, Any] = SPACE, **keys: Any) -> Prepared:
        """What the trials of a sweep start from."""
        folder = self.root / "runs" / name
        return prepare(self.resolved(name, space, **keys), self.root, folder, lambda: LocalEngine("cpu", 1), Silent())

    def folder(self, name: str) -> Path:
        """The run folder of a sweep."""
        return self.root / "runs" / name


def trials_of(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The trials of a sweep by name."""
    return {trial["name"]: trial for trial in results["extra"]["sweep"]["trials"]}
