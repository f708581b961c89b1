"""A sweep on Ray: halving and TPE end in students that one process trains to the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_chain import SMALL, Chain

from tgeokd_ray.config.sweep import resolve_sweep
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import run_sweep
from tgeokd_ray.pipeline.sweep_journal import trial_name

RATE = "student.training.optimizer.learning_rate"
SPACE = {
    RATE: {"log_uniform": [1e-3, 1e-1]},
    "rule": {"choice": ["labels", "constant"]},
    "constant": {"uniform": [0.1, 1.0], "when": {"rule": "constant"}},
}
HALVING = {"search": "tpe", "scheduler": "asha", "asha": {"grace_epochs": 1, "reduction": 2}}
RISING = [{RATE: rate, "rule": "labels"} for rate in (1e-3, 3e-2)]  # neither is stopped: the second is better
FIGURES = ("point", "value", "curve", "epochs", "steps", "students", "parameters", "figures")


def swept(chain: Chain, root: Path, place: Place, **keys: Any) -> dict[str, Any]:
    path = root.parent / f"{keys['name']}.yaml"
    path.write_text(yaml.safe_dump({"space": SPACE, **keys}))
    options = {"card": chain.job.card, "root": str(root)}
    resolved = resolve_sweep(str(path), options, settings=(*SMALL, "student.training.epochs=4"))
    return run_sweep(resolved, place, Silent())[0]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("cluster")
def test_trials_on_ray_have_the_values_of_one_process(chain: Chain, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(chain.root, root)
    shutil.rmtree(root / "runs")
    on_ray = swept(chain, root, Place(), name="ray", trials=8, concurrency=1, known=RISING, **HALVING)
    told = on_ray["extra"]["sweep"]
    finished = [trial for trial in told["trials"] if trial["status"] == "finished"]
    assert told["counts"]["finished"] + told["counts"]["stopped"] == len(told["trials"]) == 8
    assert told["counts"]["stopped"] > 0
    assert {trial["name"] for trial in finished} >= {trial_name(point) for point in RISING}
    folder = root / "runs" / "ray"
    assert len([*(folder / "trials").glob("t-*/v000001")]) == 8
    assert not [*(folder / "trials").glob("t-*/v000002")]
    assert not [*(folder / "work").glob("*"), *(folder / "asked").glob("*"), *root.glob(".ray-*")]

    known = [trial["point"] for trial in finished]
    here = swept(chain, root, Place(local=True), name="here", trials=1, known=known)
    alone = {trial["name"]: trial for trial in here["extra"]["sweep"]["trials"]}
    assert {trial["name"]: [trial[key] for key in FIGURES] for trial in finished} == {
        name: [trial[key] for key in FIGURES] for name, trial in alone.items()
    }
    best = [next(model for model in results["models"] if model["name"] == "best") for results in (on_ray, here)]
    for key in ("auc", "nll", "valid", "history", "parameters"):
        assert best[0][key] == best[1][key]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("cluster")
def test_t2_a_search_lists_what_fails_and_ends_with_its_space(chain: Chain, tmp_path: Path) -> None:
    """A trial that fails tells no value, to neither search nor halving; four points are not asked for nine times."""
    root = tmp_path / "root"
    shutil.copytree(chain.root, root)
    space = {RATE: {"choice": [0.01, 1e30]}, "rule": {"choice": ["labels", "ada"]}}
    results = swept(chain, root, Place(), name="failing", space=space, trials=9, **HALVING)
    told = results["extra"]["sweep"]
    trials = {(trial["point"][RATE], trial["point"]["rule"]): trial for trial in told["trials"]}
    assert len(trials) == len(told["trials"]) == 4
    assert told["counts"]["unfinished"] == 0
    for (rate, _), trial in trials.items():
        assert (trial["status"] == "failed") == (rate > 1)
        assert (trial["value"] is None) == (rate > 1)
        assert rate < 1 or "the loss is not finite" in trial["reason"]
    assert sum(trial["name"] in warning for trial in trials.values() for warning in results["warnings"]) == 2
    assert not [*(root / "runs" / "failing" / "work").glob("*"), *root.glob(".ray-*")]
