"""Trials of two workers on Ray: the values of one process, as in a job; what is stopped or killed leaves nobody behind,
and its part of the cluster to the next."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from cluster_chain import Chain
from ray import cloudpickle
from test_cluster_sweep import FIGURES, RATE, swept
from test_cluster_train import train_processes
from tune_toys import EPOCHS, Heard, ToyUnit

from tgeokd_ray.artifacts import load_tensors
from tgeokd_ray.cluster.connect import Connection
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.cluster.train import Group, run_plan
from tgeokd_ray.cluster.tune import run_trials
from tgeokd_ray.config.proposals import Listed, Round
from tgeokd_ray.config.sweep import Sweep
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep_journal import trial_name

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # processes of Ray do not see the folder of tests
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]
EXACT = {"student": {"training": {"exact_sums": True}}, "feed": "direct"}
HALVING = {"scheduler": "asha", "asha": {"grace_epochs": 1, "reduction": 2}}
LAST = 3  # epoch of the doomed trial; a group that lost a worker after the first one can't reach it
GOOD, BAD, BETTER = ({RATE: rate, "rule": "labels"} for rate in (2e-2, 1e-3, 3e-2))


@pytest.fixture(autouse=True)
def _nobody_is_left(cluster: Connection) -> Any:
    yield
    (node,) = cluster.nodes()
    deadline = time.monotonic() + 20  # Ray ends them after the fit has returned
    while time.monotonic() < deadline and (list(train_processes()) or ray.available_resources()["CPU"] < node["CPU"]):
        time.sleep(0.2)
    assert not list(train_processes())
    assert ray.available_resources()["CPU"] == node["CPU"]


def test_trials_of_two_workers_have_the_values_of_one_process(chain: Chain, tmp_path: Path) -> None:
    """One that halving stops has its curve up to there, and the next one starts in its place."""
    root = tmp_path / "root"
    shutil.copytree(chain.root, root)
    shutil.rmtree(root / "runs")
    here = swept(chain, root, Place(local=True), name="one", base=EXACT, known=[GOOD, BAD, BETTER], trials=3)
    one, two = (root / "runs" / name / "trials" / trial_name(GOOD) for name in ("one", "two"))
    shutil.copytree(one, two)  # as the first trial, with which halving compares
    keys = {"known": [GOOD, BAD, BETTER], "trials": 3, "concurrency": 1, "base": {**EXACT, "workers": 2}}
    on_ray = swept(chain, root, Place(), name="two", **keys, **HALVING)

    alone, trials = (
        {trial["name"]: trial for trial in results["extra"]["sweep"]["trials"]} for results in (here, on_ray)
    )
    better, bad = trial_name(BETTER), trial_name(BAD)
    assert (trials[better]["status"], trials[bad]["status"]) == ("finished", "stopped")
    for key in FIGURES:
        told, ours = trials[better][key], alone[better][key]
        assert told == (ours if key in ("point", "steps") else pytest.approx(ours, abs=1e-6)), key
    assert trials[bad]["curve"] == pytest.approx(alone[bad]["curve"][:1], abs=1e-6)
    best = [load_tensors(root / "students" / name / "v000001" / "model.safetensors") for name in ("one", "two")]
    assert best[0].keys() == best[1].keys()
    assert max(float((best[0][name] - best[1][name]).abs().max()) for name in best[0]) <= 1e-8
    spent = on_ray["extra"]["sweep"]["cost"]
    assert spent["cpu_hours"] == pytest.approx(2 * spent["trial_seconds"] / 3600)
    assert not [*(root / "runs" / "two" / "work").glob("*"), *root.rglob(".ray-*")]


@dataclass(frozen=True)
class Doomed:
    """A trial whose group loses its second worker after the first epoch, and which itself dies after the last epoch of
    the group that took its place."""

    folder: Path

    def __call__(self, unit: ToyUnit, tell: Callable[[Mapping[str, float]], None], source: Any) -> None:
        started = self.note("trials", os.getpid())

        def told(metrics: Mapping[str, float]) -> None:
            if metrics["epoch"] == LAST and started == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            tell(metrics)

        run_plan(lambda _: (), Group(2, in_trial=True), source, Silent(), self.folder, self.work, told)
        tell({"epoch": EPOCHS, "value": 0.9})

    def work(self, plan: Any, worker: Any, source: Any, progress: Any) -> list[Any]:
        started = self.note(f"rank{worker.rank}", os.getpid())
        for epoch in range(1, LAST + 1):
            worker.report({"epoch": epoch, "value": epoch / 10})
            if worker.rank == 1 and started == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return []

    def note(self, name: str, pid: int) -> int:
        """How many lines the file has now."""
        with (self.folder / name).open("a") as file:
            file.write(f"{pid}\n")
        return len((self.folder / name).read_text().splitlines())


def test_k2_a_lost_worker_and_then_a_lost_trial_are_replaced(tmp_path: Path) -> None:
    """Worker and trial start again where they were reserved; Tune tries the trial whose process is gone anew."""
    keys = {"space": {"x": {"uniform": [0, 1]}}, "search": "random", "concurrency": 1}
    heard = Heard()
    what = Round(Doomed(tmp_path), Listed((ToyUnit("doomed"),)), Sweep.model_validate(keys), EPOCHS, (), heard)
    assert run_trials(what, ClusterSource("direct", share({})), tmp_path / "ray", workers=2)
    assert {path.name: len(path.read_text().splitlines()) for path in tmp_path.glob("*") if path.is_file()} == {
        "trials": 2,
        "rank0": 3,
        "rank1": 3,
    }
    assert [epoch for _, (epoch, _) in heard.of("told")][-6:] == [1, 2, 1, 2, LAST, EPOCHS]
    assert heard.of("ended") == [("doomed", None)]
