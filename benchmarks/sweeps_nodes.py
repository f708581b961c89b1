"""Bar f: a sweep on a cluster of two nodes on this machine: how often its table is on each, and nodes lost while trials
run."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import ray
from figures import Figure
from quality import REPOSITORY
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from sweeps_job import command, sweep
from sweeps_kills import SMALL, SPACE

from tgeokd_ray.cluster.environment import ensure_token, inherited, prepare

TRIALS, LOSSES = 12, 5
ROWS = 200_000
LIMIT_SECONDS = 600
STORE_BYTES = 400 << 20


def nodes(quick: bool) -> Iterator[Figure]:
    """Copies of table and logits on a node at its most, without a loss; then finished trials that were lost, trained
    twice, or changed where a node is removed at a random moment of the trials, after a random number of them."""
    copies, faults, kept = [], [], []
    losses = 1 if quick else LOSSES
    with tempfile.TemporaryDirectory() as root:
        sweep(root, "first", _told(Path(root)) | {"trials": 1}, "--local")  # makes table and logits
        calm = _Sweep(Path(root), "calm")
        copies, expected = calm.copies, calm.values
        dice = random.Random(0)
        for number in range(losses):
            lost = _Sweep(Path(root), f"lost{number}", after=dice.randrange(TRIALS - 1), wait=dice.uniform(0.0, 1.0))
            faults += lost.faults(expected)
            kept.append(len(lost.before))
    told = {"trials": TRIALS, "nodes": 2}
    most = max(copies)
    context = told | {"store": calm.shared, "nodes_with_a_copy": len(copies)}
    ok = len(copies) == 2 and most < 1.5
    yield Figure("sweeps.nodes.copies", most, "copies", "< 1.5", ok, [min(copies), most], context)
    context = told | {"losses": losses, "finished_when_lost": kept, "median": median(kept), "faults": faults[:3]}
    yield Figure("sweeps.nodes.faults", len(faults), "count", "<= 0", not faults, context=context)


class _Sweep:
    """A sweep from its beginning to its end on two fresh nodes, one of which is removed when more trials than `after`
    are over, and `wait` seconds later."""

    def __init__(self, root: Path, name: str, after: int | None = None, wait: float = 0.0) -> None:
        self.folder, self.name, self._after, self._wait = root / "runs" / name, name, after, wait
        self.before: dict[str, bytes] = {}
        self._most: dict[str, int] = {}
        prepare()
        ensure_token()
        os.environ |= inherited(verbose=False)
        one: dict[str, Any] = {"num_cpus": 2, "object_store_memory": STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args={**one, "num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(**one) for _ in range(2)]
        self._cluster.wait_for_nodes()
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            self._empty = self._used()
            self.results = self._run(root)
        finally:
            ray.shutdown()
            self._cluster.shutdown()

    def _run(self, root: Path) -> dict[str, Any]:
        with (root / f"{self.name}.out").open("w+") as out, (root / f"{self.name}.err").open("w+") as said:
            driver = subprocess.Popen(
                command(root, self.name, _told(root), "--address", self._cluster.address),
                stdout=out,
                stderr=said,
                cwd=REPOSITORY,
            )
            try:
                self._watch(driver)
                driver.wait(LIMIT_SECONDS)
            finally:
                driver.kill()  # nothing to do where it has ended
            if driver.returncode:
                said.seek(0)
                raise SystemExit(f"the sweep {self.name} failed:\n{said.read()[-4000:]}")
            out.seek(0)
            found: dict[str, Any] = json.load(out)
        log = (self.folder / "log.txt").read_text(encoding="utf-8").splitlines()
        self.shared = next(line.partition("share finished ")[2] for line in log if "share finished" in line)
        return found

    def _watch(self, driver: subprocess.Popen[str]) -> None:
        """Look at the stores until the last trial is over, or a node is removed in its time."""
        while driver.poll() is None and len(over := self._over()) < TRIALS:
            if self._after is not None and len(over) > self._after:
                time.sleep(self._wait)
                self.before = self._over()
                self._cluster.remove_node(self._nodes[0], allow_graceful=False)
                return
            for name, used in self._used().items():
                self._most[name] = max(self._most.get(name, 0), used - self._empty.get(name, 0))
            time.sleep(0.1)

    def _used(self) -> dict[str, int]:
        """Bytes in the object store of each living node that runs trials."""
        found = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        return {
            node["NodeID"]: int(
                node_stats(
                    node["NodeManagerAddress"], node["NodeManagerPort"], False
                ).store_stats.object_store_bytes_used
            )
            for node in found
        }

    def _over(self) -> dict[str, bytes]:
        """The manifests of the trials that are over."""
        return {path.parent.parent.name: path.read_bytes() for path in self.folder.glob("trials/t-*/v*/manifest.json")}

    @property
    def copies(self) -> list[float]:
        """Bytes of each node at its most, in those that the sweep says it shares."""
        size = float(self.shared.split()[0]) * 2**20
        return [most / size for most in self._most.values()]

    @property
    def values(self) -> dict[str, float]:
        """What each trial was worth."""
        return {t["name"]: t["value"] for t in self.results["extra"]["sweep"]["trials"] if t["status"] == "finished"}

    def faults(self, expected: dict[str, float]) -> list[str]:
        """What is wrong after a node was lost."""
        after = self._over()
        changed = [name for name, manifest in self.before.items() if after.get(name) != manifest]
        found = [f"{self.name}: the finished trial {name} is lost or another" for name in changed]
        found += [f"{self.name}: {p.parent.name} was written twice" for p in self.folder.glob("trials/t-*/v000002")]
        return found + (
            [] if self.values == expected else [f"{self.name}: another leaderboard than the undisturbed one"]
        )


def _told(root: Path) -> dict[str, Any]:
    """The sweep."""
    base = SMALL | {"card": str(_card(root))}
    return {"base": base, "space": SPACE, "trials": TRIALS, "packs": False, "concurrency": 4, "seed": 1}


def _card(root: Path) -> Path:
    """The embedded synthetic table with more rows, so that it is large beside all else in the store."""
    packaged = REPOSITORY / "tgeokd_ray" / "tables" / "cards" / "synthetic_ctr.yaml"
    path = root / "clicks.yaml"
    text = packaged.read_text(encoding="utf-8")
    path.write_text(re.sub(r"rows: \d+", f"rows: {ROWS}", text, count=1), encoding="utf-8")
    return path
