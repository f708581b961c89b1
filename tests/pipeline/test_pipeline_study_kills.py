"""A study whose process is killed: the same command goes on with its finished cells and ends with the same rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SEEDS = 2
SMALL = (
    "distill.constants=[0.0,0.5]",
    "distill.strengths=[1.0]",
    "distill.shifts=[0.0]",
    "distill.fusion.look_ahead=1",
)


def command(root: Path) -> dict[str, Any]:
    """The study's command and its environment, as subprocess takes them."""
    options = ["--datasets", "synth.soft", "--rules", "ada,tgeo", "--seeds", str(SEEDS), "--quick", "--local"]
    options += [word for setting in (*SMALL, "student.training.epochs=2") for word in ("--set", setting)]
    job = str(REPOSITORY / "jobs" / "benchmark.py")
    return {
        "args": [sys.executable, job, "--root", str(root), *options],
        "env": {**os.environ, "PYTHONPATH": str(REPOSITORY)},
    }


def cells(root: Path) -> dict[str, int]:
    """The finished cells, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (root / "studies" / "study" / "cells").glob("*.json")}


def killed_after(root: Path, finished: int, wait: float) -> None:
    """Start the study, and kill it `wait` seconds after so many cells are there."""
    process = subprocess.Popen(**command(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 100
        while len(cells(root)) < finished:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < until, "no cell within 100 s"
            time.sleep(0.02)
        time.sleep(wait)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


def ended(root: Path) -> dict[str, Any]:
    done = subprocess.run(**command(root), capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads((root / "studies" / "study" / "study.json").read_text())
    return told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_k3_a_study_that_is_killed_goes_on_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    killed_after(broken, 0, 2.5)  # within the first cell, or before it
    killed_after(broken, 1, 0.4)  # within the second
    before = cells(broken)
    assert 1 <= len(before) < SEEDS
    assert not (broken / "studies" / "study" / "study.json").exists()
    again, once = ended(broken), ended(whole)
    assert again["rows"] == once["rows"]
    assert again["notes"] == once["notes"]
    assert {row["seeds"] for row in once["rows"]} == {SEEDS}
    after = cells(broken)
    assert len(after) == SEEDS
    assert {name: after[name] for name in before} == before, "finished cells are not made again"
    pages = [(root / "studies" / "study" / "report.html").stat().st_size for root in (broken, whole)]
    assert min(pages) > 10_000
