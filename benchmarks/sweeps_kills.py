"""Bar d: drivers of sweeps struck by SIGKILL at random moments, and the same command again until it ends."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from figures import Figure
from quality import REPOSITORY
from sweeps_job import command, environment, sweep

SMALL = {"teacher": {"training": {"epochs": 2}, "model": {"members": 1}}, "student": {"training": {"epochs": 6}}}
SPACE = {
    "student.training.optimizer.learning_rate": {"log_uniform": [1e-3, 5e-2]},
    "rule": {"choice": ["labels", "constant", "ada"]},
}
TRIALS, KILLS = 12, 20
KINDS = {"random": {"packs": False}, "asha_tpe": {"search": "tpe", "scheduler": "asha"}}


def kills(quick: bool) -> Iterator[Figure]:
    """Twenty kills of sweeps of twelve trials, by a random search and by TPE with ASHA: trials that were lost, trained
    twice, or that differ from the undisturbed ones."""
    for kind, how in KINDS.items():
        told = {"base": SMALL, "space": SPACE, "trials": TRIALS, **how}
        with tempfile.TemporaryDirectory() as root:
            calm = sweep(root, "calm", told)
            found = _Struck(Path(root), told, {t["name"]: t["value"] for t in calm.told["trials"]})
            found.run(3 if quick else KILLS)
        wrong = [*found.faults, *([] if kind != "random" else found.different)]
        context = {
            "kills": found.kills,
            "sweeps": found.sweeps,
            "finished_when_struck": found.over,
            "faults": wrong[:3],
        }
        yield Figure(f"sweeps.kills.{kind}.faults", len(wrong), "count", "<= 0", not wrong, context=context)


class _Struck:
    """Sweeps of one kind, one after another, until there were enough kills; the last one goes to its end. Every second
    kill is at a moment of the whole command, the others when one more trial is over than a random number of them."""

    def __init__(self, root: Path, told: dict[str, Any], expected: dict[str, float]) -> None:
        self.root, self.told, self.expected = root, told, expected
        self.kills = self.sweeps = 0
        self.over: list[int] = []
        self.faults: list[str] = []
        self.different: list[str] = []
        self._dice = random.Random(0)
        self._seconds = 30.0

    def run(self, kills: int) -> None:
        while self.kills < kills:
            name = f"struck{self.sweeps}"
            self.sweeps += 1
            before = len(self.over)  # a sweep is struck once at most after its last trial
            while (results := self._once(name, struck=self.kills < kills and TRIALS not in self.over[before:])) is None:
                pass
            self._check(name, results)

    def _once(self, name: str, *, struck: bool) -> dict[str, Any] | None:
        """What the command printed, None where it was killed."""
        folder = self.root / "runs" / name
        with (self.root / f"{name}.out").open("w+") as out:
            began = time.monotonic()
            driver = subprocess.Popen(
                command(self.root, name, self.told),
                stdout=out,
                stderr=subprocess.DEVNULL,
                cwd=REPOSITORY,
                env=environment(),
            )
            if struck and self.kills % 2 and _trials_over(folder) < TRIALS:
                _wait_for_trials(driver, folder, self._dice.randrange(TRIALS))
                limit = self._dice.uniform(0.0, 0.1)
            else:
                limit = self._dice.uniform(0.1, 1.0) * self._seconds if struck else 600.0
            try:
                driver.wait(limit)
            except subprocess.TimeoutExpired:
                self._strike(driver, folder)
                return None
            if driver.returncode:
                self.faults.append(f"{name} ended with {driver.returncode}")
                return {}
            self._seconds = max(10.0, min(self._seconds, time.monotonic() - began))
            out.seek(0)
            told: dict[str, Any] = json.load(out)
            return told

    def _strike(self, driver: subprocess.Popen[bytes], folder: Path) -> None:
        """Kill the driver alone, and wait until the Ray that it started has noticed."""
        left = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        self.kills += 1
        self.over.append(_trials_over(folder))
        _, alive = psutil.wait_procs(left, timeout=30)
        for process in alive:
            process.kill()

    def _check(self, name: str, results: dict[str, Any]) -> None:
        if not results:
            return
        trials = {t["name"]: t for t in results["extra"]["sweep"]["trials"]}
        if len(trials) != TRIALS or any(t["status"] == "failed" for t in trials.values()):
            self.faults.append(f"{name}: {len(trials)} trials, {[t['reason'] for t in trials.values() if t['reason']]}")
        twice = list((self.root / "runs" / name / "trials").glob("t-*/v000002"))
        self.faults += [f"{name}: {path.parent.name} was written twice" for path in twice]
        values = {key: trial["value"] for key, trial in trials.items()}
        if values != self.expected:
            self.different.append(f"{name}: another leaderboard than the undisturbed one")


def _wait_for_trials(driver: subprocess.Popen[bytes], folder: Path, number: int) -> None:
    """Until more than so many trials are over, and one more than there were, or the driver has ended."""
    least = max(number, _trials_over(folder)) + 1
    while driver.poll() is None and _trials_over(folder) < min(least, TRIALS):
        time.sleep(0.01)


def _trials_over(folder: Path) -> int:
    return len(list((folder / "trials").glob("t-*/v*/manifest.json")))
