"""One run of jobs/sweep.py in a process of its own, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from quality import REPOSITORY

JOB = [sys.executable, str(REPOSITORY / "jobs" / "sweep.py")]
LIMIT_SECONDS = 3000
BEFORE_TRIALS = ("precompute", "ray", "share")


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
    with tempfile.TemporaryFile("w+") as results:
        process = subprocess.Popen(
            command(root, name, told, *options),
            stdout=results,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment(),
        )
        limit = threading.Timer(LIMIT_SECONDS, process.kill)
        limit.start()
        try:
            said = _stamped(process)
            code = process.wait()
        finally:
            limit.cancel()
        if code:
            raise SystemExit(f"the sweep {name} failed with {code}:\n" + "".join(line for _, line in said[-60:]))
        results.seek(0)
        return Ended(json.load(results), _wall(said))


def _stamped(process: subprocess.Popen[str]) -> list[tuple[float, str]]:
    """What it says until its end, each line with the moment it came."""
    assert process.stderr is not None
    return [(time.monotonic(), line) for line in process.stderr]


def _wall(said: list[tuple[float, str]]) -> float:
    """Seconds from the moment when everything stands ready to the last trial: a stage says so at its end."""
    ends = {line.split(maxsplit=1)[0]: moment for moment, line in said if line.strip()}
    if "trials" not in ends:
        raise SystemExit("the sweep said nothing of the stage trials")
    return ends["trials"] - max(moment for name, moment in ends.items() if name in BEFORE_TRIALS)
