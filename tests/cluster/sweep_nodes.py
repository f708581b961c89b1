"""Trials on a cluster of two nodes on this machine, of which one is removed: python sweep_nodes.py FOLDER

Writes FOLDER/told.json: bytes in each node's object store, and what was heard. A process of its own, since it must not
meet the Ray of other tests.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from tune_toys import EPOCHS, Heard, Toy, ToyUnit

from tgeokd_ray.cluster.environment import prepare
from tgeokd_ray.cluster.shared_rows import SharedRows
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.cluster.train import Group, run_plan
from tgeokd_ray.cluster.tune import run_trials
from tgeokd_ray.config.proposals import Listed, Round
from tgeokd_ray.config.sweep import Sweep
from tgeokd_ray.events import Silent

MIB = 1 << 20
TABLE = 48 * MIB
STORE = 200 * MIB
KEY = ("table",)
UNITS = 8
LONG = 8  # epochs of every other trial, the others have 2
PAUSE = 0.3  # seconds of an epoch


class Reading(Toy):
    """A toy that reads the shared rows first."""

    def __call__(self, unit: ToyUnit, tell: Callable[[Mapping[str, float]], None], source: Any) -> None:
        rows = source.shared.rows[KEY].get()["x"]
        assert int(rows[-1]) == 7
        super().__call__(unit, tell, source)


class Together(Toy):
    """A trial of two workers, each of which notes its node."""

    def __call__(self, unit: ToyUnit, tell: Callable[[Mapping[str, float]], None], source: Any) -> None:
        run_plan(lambda _: (), Group(2, in_trial=True), source, Silent(), self.folder, self.work, tell)
        tell({"epoch": EPOCHS, "value": 0.5})

    def work(self, plan: Any, worker: Any, source: Any, progress: Any) -> list[Any]:
        self._write(ToyUnit(f"rank{worker.rank}"), 1, {"node": ray.get_runtime_context().get_node_id()})
        worker.report({"epoch": 1, "value": 0.5})
        return []


def used() -> dict[str, int]:
    """Bytes in the object store of each living node that runs trials."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    stats = {n["NodeID"]: node_stats(n["NodeManagerAddress"], n["NodeManagerPort"], False) for n in nodes}
    return {name: int(found.store_stats.object_store_bytes_used) for name, found in stats.items()}


def trials(folder: Path, units: list[ToyUnit], source: ClusterSource, heard: Heard) -> bool:
    """All units, four at once, two on each node."""
    toy = Reading(folder / "notes")
    sweep = Sweep.model_validate({"space": {"x": {"uniform": [0, 1]}}, "concurrency": 4, "resources": {"cpu": 0.5}})
    return run_trials(Round(toy, Listed(tuple(units)), sweep, EPOCHS, (), heard), source, folder)


def busy(toy: Toy) -> str | None:
    """A node on which one of the long trials is far from its end, if there is one."""
    now = time.time()
    notes = (note for k in range(0, UNITS, 2) for note in toy.notes(f"lost{k}"))
    return next(
        (note["node"] for note in notes if "ended" not in note and now - note["began"] < LONG * PAUSE / 2), None
    )


def main(folder: Path) -> None:
    """Trials on both nodes, then more of them, during which a node is lost."""
    prepare()
    one = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**one, "num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(**one) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    (folder / "notes").mkdir()
    table = np.zeros(TABLE, dtype=np.uint8)
    table[-1] = 7
    source = ClusterSource("direct", share({}), SharedRows({KEY: share({"x": table})}, TABLE))
    told: dict[str, Any] = {"before": used()}
    trials(folder, [ToyUnit(f"spread{k}", (0.5,) * 4, pause=0.5) for k in range(4)], source, Heard())
    told["after"] = used()
    group = Sweep.model_validate({"space": {"x": {"uniform": [0, 1]}}, "concurrency": 1})
    together = Round(Together(folder / "notes"), Listed((ToyUnit("group"),)), group, EPOCHS, (), Heard())
    run_trials(together, source, folder, workers=2)

    heard = Heard()
    units = [ToyUnit(f"lost{k}", (0.5,) * (2 if k % 2 else LONG), pause=PAUSE) for k in range(UNITS)]
    thread = threading.Thread(target=trials, args=(folder, units, source, heard))
    thread.start()
    toy, places = Reading(folder / "notes"), {node.node_id: node for node in nodes}
    while not heard.of("ended") or busy(toy) is None:
        time.sleep(0.05)
    told["removed"] = busy(toy)
    told["over_before"] = [name for name, _ in heard.of("ended")]
    cluster.remove_node(places[told["removed"]], allow_graceful=False)
    thread.join()
    told |= asdict(heard)
    (folder / "told.json").write_text(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
