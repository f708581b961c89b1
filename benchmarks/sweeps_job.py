"""One run of jobs/sweep.py in a process of its own, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from quality import REPOSITORY

JOB = [sys.executable, str(REPOSITORY / "jobs" / "sweep.py")]
LIMIT_SECONDS = 3000


@dataclass(frozen=True)
class Ended:
    """What the sweep's results.json says, and the `wall` seconds from the first trial's beginning to the last one's
    end: without the start of Ray, with all that Tune does."""

    results: dict[str, Any]
    wall: float

    @property
    def told(self) -> dict[str, Any]:
        sweep: dict[str, Any] = self.results["extra"]["sweep"]
        return sweep

    @property
    def trained(self) -> float:
        """Seconds that trials say they took."""
        return float(self.told["cost"]["trial_seconds"])

    @property
    def epochs(self) -> int:
        """Epochs of all trials, in whole."""
        return sum(trial["epochs"] for trial in self.told["trials"])

    def test(self, metric: str) -> float:
        """A figure of the best student on test."""
        return float(next(m for m in self.results["models"] if m["name"] == "best")[metric])


def card(name: str) -> str:
    """The file of one of the repository's cards."""
    return str(REPOSITORY / "datasets" / f"{name}.yaml")


def command(root: str | Path, name: str, told: dict[str, Any], *options: str) -> list[str]:
    """The command line of a sweep, whose file is written beside the root."""
    path = Path(root) / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(told))
    return [*JOB, str(path), "--root", str(root), "--json", *options]


def environment() -> dict[str, str]:
    """That of a user without a cluster."""
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}


def sweep(root: str | Path, name: str, told: dict[str, Any], *options: str) -> Ended:
    """Run it to its end; SystemExit with what it said where it fails."""
    done = subprocess.run(
        command(root, name, told, *options),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
        cwd=REPOSITORY,
        env=environment(),
    )
    if done.returncode:
        raise SystemExit(f"the sweep {name} failed with {done.returncode}:\n{done.stderr[-4000:]}")
    return Ended(json.loads(done.stdout), _wall(Path(root) / "runs" / name / "log.txt"))


def _wall(log: Path) -> float:
    """Seconds from the moment when everything stands ready to the last trial, by the run's log."""
    began = ended = None
    for line in log.read_text(encoding="utf-8").splitlines():
        moment, _, what = line.partition(" ")
        if what.startswith(("trials started", "share finished")):
            began = datetime.fromisoformat(moment)
        elif what.startswith("trials finished"):
            ended = datetime.fromisoformat(moment)
    if began is None or ended is None:
        raise SystemExit(f"{log} lacks the stage trials")
    return (ended - began).total_seconds()
