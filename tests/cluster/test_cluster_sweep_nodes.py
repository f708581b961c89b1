"""Trials on two nodes: they spread, as one of two workers does; each node fetches shared rows once; a lost node loses
no finished trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_nodes import TABLE, Reading

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_two_nodes_share_the_rows_and_one_may_be_lost(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_health_check_period_ms": "500"}
    command = [sys.executable, str(Path(__file__).with_name("sweep_nodes.py")), str(tmp_path)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=260, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    notes = Reading(tmp_path / "notes").notes()

    spread = [note for note in notes if note["name"].startswith("spread")]
    assert len(spread) == 4
    assert {note["node"] for note in spread} == {*told["after"]}, "trials on both nodes"
    for node, after in told["after"].items():
        fetched = after - told["before"][node]
        assert TABLE <= fetched < 1.5 * TABLE, "one copy, for two trials"

    ranks = [note for note in notes if note["name"].startswith("rank")]
    assert sorted(note["name"] for note in ranks) == ["rank0", "rank1"]
    assert {note["node"] for note in ranks} == {*told["after"]}, "one trial on both nodes, all of whose CPUs it has"

    lost = [note for note in notes if note["name"].startswith("lost")]
    assert {note["name"] for note in lost if "ended" in note} == {f"lost{k}" for k in range(8)}
    again = [note for note in lost if "ended" not in note]
    assert again, "some were on the node"
    assert {note["node"] for note in again} == {told["removed"]}
    assert not {note["name"] for note in again} & {*told["over_before"]}, "what was over stays over"
    ended = [(name, more) for what, name, more in told["events"] if what == "ended"]
    assert sorted(ended) == [(f"lost{k}", None) for k in range(8)]
    assert not [*tmp_path.glob(".ray-*")]
