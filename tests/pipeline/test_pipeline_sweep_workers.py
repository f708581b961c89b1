"""Sweeps whose trials have several workers: what they can't be is refused, what they reserve is counted."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_runs import RATE, Sweeps

from tgeokd_ray.cluster import connect
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import dry_run, run_sweep

TWO = {"workers": 2}
FUSION = {
    "distill.fusion.optimizer.learning_rate": {"log_uniform": [1e-3, 1e-1]},
    "rule": {"choice": ["tgeo_one_step"]},
}


@pytest.fixture(autouse=True)
def _a_machine_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "this_machine", lambda: {"CPU": 4.0, "GPU": 4.0})
    monkeypatch.setattr(connect, "connect", lambda *_, **__: pytest.fail("Ray was started"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"space": FUSION, "scheduler": "pbt", "base": TWO},
            "scheduler: pbt moves students that one process trains; expected workers 1; got workers 2",
        ),
        (
            {"base": {**TWO, "device": "cuda"}, "resources": {"gpu": 0.5}},
            "each of several workers of a trial needs a GPU of its own, or none; got workers 2, resources.gpu 0.5",
        ),
        ({"base": {"workers": 3}}, "concurrency 2 x 3 workers x 1 CPU: there is room for 1 on 1 node(s) with 4 CPUs"),
        ({"base": TWO, "concurrency": 3}, "concurrency 3 x 2 workers x 1 CPU: there is room for 2 on 1 node(s)"),
    ],
)
def test_what_trials_of_several_workers_cannot_be(sweeps: Sweeps, keys: dict[str, Any], said: str) -> None:
    resolved = sweeps.resolved("refused", **keys)
    for call in (run_sweep, dry_run):
        with pytest.raises(ConfigError) as caught:
            call(resolved, Place(), Silent())
        assert said in str(caught.value)
    assert not sweeps.folder("refused").exists()


def test_without_ray_there_is_one_worker(sweeps: Sweeps) -> None:
    with pytest.raises(ConfigError, match=r"--local trains in this process alone; expected workers 1; got 2"):
        sweeps.run("local", base=TWO)


def test_a_dry_run_measures_a_trial_of_one_worker(sweeps: Sweeps) -> None:
    """Two at once of two workers each fit; the time of one that trains alone stands for them, and needs no Ray."""
    space = {RATE: {"choice": [0.01, 0.02, 0.03, 0.04]}, "rule": {"choice": ["labels"]}}
    plan = dry_run(sweeps.resolved("dry-two", space, search="grid", base=TWO), Place(), Silent())
    assert plan["failed"] is None
    assert plan["expected_seconds"] == pytest.approx(2 * plan["trial_seconds"])
