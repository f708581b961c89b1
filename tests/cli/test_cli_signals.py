"""A job in a process of its own that is asked to end: it commits a checkpoint, and the next job goes on from there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_artifacts import write_card

from tgeokd_ray.artifacts import open_artifact, read_json
from tgeokd_ray.artifacts.names import versions

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = ["teacher.training.epochs=100000", "teacher.training.patience=100000", "teacher.model.hidden=[8]"]
SECONDS = 30.0


def job(root: Path, card: Path) -> subprocess.Popen[str]:
    words = ["--local", "--card", str(card), "--root", str(root), *(w for s in SETTINGS for w in ("--set", s))]
    command = [sys.executable, str(REPOSITORY / "jobs" / "ctr_distill.py"), *words]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"}
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)


def lines(root: Path) -> int:
    log = root / "runs" / "mine" / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.timeout(120)
def test_k12_sigterm_and_ctrl_c_end_in_order_with_the_last_checkpoint(tmp_path: Path) -> None:
    """Training would last for hours, and no checkpoint is due before a quarter of a minute."""
    card = write_card(tmp_path / "mine.yaml", format={"kind": "synthetic", "rows": 1500, "seed": 1})
    root, reached = tmp_path / "root", 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before, until = lines(root), time.monotonic() + SECONDS
        with job(root, card) as process:
            try:
                while lines(root) < before + 3:  # three epochs of the teacher
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.02)
                asked = time.monotonic()
                process.send_signal(number)
                _, told = process.communicate(timeout=SECONDS)
                assert time.monotonic() - asked < 10
            finally:
                process.kill()
        assert process.returncode == code, told
        assert "Traceback" not in told
        (home,) = (root / "runs" / "mine" / "checkpoints").iterdir()
        newest = open_artifact(next(versions(home)), level="full")
        step = read_json(newest.file("cursor.json"))["step"]
        # Each line tells of an epoch of one step; the step before an interruption may have none yet, and has one later.
        assert step >= before + 3
        assert step > reached
        continued = re.findall(r"continued from step (\d+)", told)
        assert continued == ([str(reached)] if reached else [])
        assert not list((root / "teachers").glob("*/v*")), "nothing unfinished is visible"
        reached = step
