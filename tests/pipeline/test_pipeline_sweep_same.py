"""Trials are students that a job trains, whatever their rule and place; best.yaml is such a job; test stays unseen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sweep_runs import RATE, Sweeps, trials_of

from tgeokd_ray.artifacts import latest
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline import sweep_trial
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.sweep_student import point_job
from tgeokd_ray.pipeline.sweep_trial import Unit
from tgeokd_ray.training.data import DirectSource, all_wanted
from tgeokd_ray.training.spec import Finished, RunSpec

LOCAL = Place(local=True)


def students(results: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The students of a job with this rule."""
    return [model for model in results["models"] if model["role"] == "student" and model["rule"]["kind"] == kind]


def test_every_trial_is_worth_what_the_student_of_a_job_is(sweeps: Sweeps) -> None:
    space = {RATE: {"grid": [0.004, 0.02]}, "rule": {"grid": ["ada"]}}
    trials = list(trials_of(sweeps.run("worth", space, search="grid", packs=False)).values())
    assert trials[0]["value"] > trials[1]["value"]
    resolved = sweeps.resolved("worth", space, search="grid", packs=False)
    for number, trial in enumerate(trials):
        job = point_job(resolved.job, trial["point"]).model_copy(update={"run": f"worth-{number}"})
        (student,) = students(run_job(job, resolved.card, LOCAL, Silent())[0], "ada")
        assert student["valid"]["auc"] == trial["value"]
        assert {name: student["valid"][name] for name in ("nll", "accuracy")} == {
            name: trial["figures"][name] for name in ("nll", "accuracy")
        }


@pytest.mark.parametrize(
    ("rule", "fusion", "level"),
    [("tgeo_one_step", {}, 0.5), ("tgeo_one_step", {"level": 0.3}, 0.3), ("tgeo", {}, None)],
)
def test_the_job_in_best_yaml_trains_the_best_student(
    sweeps: Sweeps, rule: str, fusion: dict[str, float], level: float | None
) -> None:
    name = f"yaml-{rule}-{level}"
    base = {"distill": {"fusion": {"batch_rows": 64, **fusion}, "strengths": [1.0], "shifts": [0.0, 1.5]}}
    results = sweeps.run(name, {"rule": {"grid": [rule]}}, search="grid", base=base)
    (best,) = [model for model in results["models"] if model["name"] == "best"]
    assert best["rule"].get("level") == level
    artifact = latest(sweeps.root, "sweeps", name)
    assert artifact is not None
    job, card = resolve({"root": str(sweeps.root), "run": f"{name}-job"}, config=str(artifact.path / "best.yaml"))
    (again,) = students(run_job(job, card, LOCAL, Silent())[0], rule)
    assert again["rule"] == best["rule"]
    assert (again["valid"]["auc"], again["auc"]) == (best["valid"]["auc"], best["auc"])


def test_no_trial_reads_or_measures_test(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    specs: list[RunSpec] = []
    found: list[Finished] = []
    read: set[str] = set()
    execute = sweep_trial.execute

    def watched(plan: Any, *rest: Any) -> list[Finished]:
        def seen(finished: Sequence[Finished]) -> Sequence[RunSpec]:
            asked = plan(finished)
            specs.extend(asked)
            read.update(split for spec in asked for wanted in all_wanted(spec) for split in wanted.splits)
            return asked  # type: ignore[no-any-return]

        runs = execute(seen, *rest)
        found.extend(runs)
        return runs

    monkeypatch.setattr(sweep_trial, "execute", watched)
    sweeps.run("unseen", {"rule": {"grid": ["labels", "tgeo"]}}, search="grid")
    assert [spec.kind for spec in specs] == [
        "students",
        "students",
        "ratios",
        "students",
    ]
    assert not any(spec.measured for spec in specs)
    assert read == {"train", "outer", "valid"}
    measured = [run.metrics["test"] for run in found if "test" in run.metrics]
    assert measured == [None] * 3  # of ratios there is nothing to measure


@pytest.mark.parametrize(("metric", "sign"), [("auc", 1.0), ("nll", -1.0)])
def test_what_a_trial_tells_is_its_best_so_far_larger_better(sweeps: Sweeps, metric: str, sign: float) -> None:
    prepared = sweeps.prepared(f"tells-{metric}", {"rule": {"grid": ["labels"]}}, search="grid", metric=metric)
    (point,) = prepared.resolved.sweep.points or []
    told: list[Any] = []
    prepared.trials(Unit((point,)), told.append, DirectSource())
    trial = sweep_trial.Journal(prepared.trials.folder).get(Unit((point,)).name)
    assert trial is not None
    curve = [sign * value for value in trial.curve if value is not None]
    assert [one["epoch"] for one in told] == [1, 2, 4]  # of the last epoch it tells when it is over
    assert [one["value"] for one in told[:2]] == pytest.approx([curve[0], max(curve[:2])])
    assert told[-1]["value"] == pytest.approx(max(curve))
