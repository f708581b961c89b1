"""A driver of a sweep is killed in mid-sweep: the same command goes on, keeps what is over, and ends the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_chain import SMALL, Chain

from tgeokd_ray.artifacts import read_json
from tgeokd_ray.cluster.connect import Connection
from tgeokd_ray.config.sweep import resolve_sweep
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import run_sweep

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = (*SMALL, "student.training.epochs=16", "student.training.patience=16")
SWEEP = {
    "space": {
        "student.training.optimizer.learning_rate": {"log_uniform": [1e-3, 1e-1]},
        "rule": {"choice": ["labels", "constant"]},
    },
    "trials": 6,
    "concurrency": 2,
    "packs": False,
}


def driver(chain: Chain, root: Path, cluster: Connection) -> subprocess.Popen[bytes]:
    """What a user types who has a cluster; what it says goes to a file."""
    command = [sys.executable, str(REPOSITORY / "jobs" / "sweep.py"), str(root.parent / "killed.yaml")]
    command += ["--root", str(root), "--card", chain.job.card, "--address", cluster.address]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    with (root.parent / "said.txt").open("w") as said:
        return subprocess.Popen(command, cwd=root.parent, start_new_session=True, stdout=said, stderr=subprocess.STDOUT)


def entries(folder: Path) -> dict[str, int]:
    """When each entry of the journal was written, by its path."""
    found = folder.glob("trials/t-*/v*/trial.json")
    return {str(path.relative_to(folder)): os.stat(path).st_mtime_ns for path in found}


def board(folder: Path) -> list[list[Any]]:
    """The leaderboard, without times."""
    keys = ("rank", "name", "point", "status", "value", "curve", "epochs", "steps", "figures")
    trials = read_json(folder / "results.json")["extra"]["sweep"]["trials"]
    return [[trial[key] for key in keys] for trial in trials]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(290)
def test_k3_a_killed_sweep_goes_on_where_it_was(cluster: Connection, chain: Chain, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(chain.root, root)
    shutil.rmtree(root / "runs")
    (tmp_path / "killed.yaml").write_text(yaml.safe_dump(SWEEP))
    folder = root / "runs" / "killed"

    first = driver(chain, root, cluster)
    while len(entries(folder)) < 2:
        assert first.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.02)
    first.kill()
    first.wait(5)
    kept = entries(folder)
    code = driver(chain, root, cluster).wait(200)  # at once, as a user would
    assert 2 <= len(kept) < 6, "killed in mid-sweep"
    assert code == 0, (tmp_path / "said.txt").read_text()
    assert re.search(r"[2-5] of 6 are over and are kept", (folder / "log.txt").read_text())
    after = entries(folder)
    assert {path: after[path] for path in kept} == kept, "nothing that was over is trained again"
    assert len(after) == 6
    assert {Path(path).parent.name for path in after} == {"v000001"}, "nothing is trained twice"
    assert not [*folder.glob("work/*"), *folder.glob("asked/*"), *root.glob(".ray-*")]

    options = {"card": chain.job.card, "root": str(root)}
    undisturbed = resolve_sweep(str(tmp_path / "killed.yaml"), options, settings=SETTINGS, changes={"name": "local"})
    run_sweep(undisturbed, Place(local=True), Silent())
    assert board(folder) == board(root / "runs" / "local")
