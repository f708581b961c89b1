"""What a sweep is not for is refused before anything starts; a fault of ours in one trial is that trial's alone."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_runs import RATE, Sweeps, trials_of

from tgeokd_ray.errors import ConfigError, IntegrityError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline import sweep_student, sweep_trial
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import dry_run, run_sweep
from tgeokd_ray.pipeline.sweep_units import units_of

LOCAL = Place(local=True)
RULES = {"rule": {"grid": ["labels", "ada", "constant"]}}


def test_ratios_of_before_are_refused(sweeps: Sweeps) -> None:
    """Trials would look for them among their own artifacts."""
    with pytest.raises(ConfigError, match=r"distill\.ratios: a trial learns its own ratio; got mine"):
        sweeps.run("ratios", RULES, search="grid", base={"distill": {"ratios": ["mine"]}})
    assert not sweeps.folder("ratios").exists()


def test_a_grid_has_its_own_number(sweeps: Sweeps) -> None:
    resolved = sweeps.resolved("whole", RULES, search="grid")
    with pytest.raises(ConfigError, match="--add-trials: a grid has its own number"):
        run_sweep(resolved, LOCAL, Silent(), add_trials=2)
    with pytest.raises(ConfigError, match="--add-trials: a grid has its own number"):
        dry_run(resolved, LOCAL, Silent(), add_trials=2)
    assert not sweeps.folder("whole").exists()


def test_t1_a_damaged_record_says_how_to_go_on_and_costs_no_trial(sweeps: Sweeps) -> None:
    space: dict[str, Any] = {RATE: {"grid": [0.005, 0.02]}, "rule": {"grid": ["labels"]}}
    first = trials_of(sweeps.run("damaged", space, search="grid"))
    record = sweeps.folder("damaged") / "sweep.json"
    whole = record.read_text()
    for text in ("", whole[: len(whole) // 2], "[]", "{}", '{"identity": 3, "trials": 2, "runs": 1}'):
        record.write_text(text)
        with pytest.raises(IntegrityError, match="remove this file: the same command writes it anew") as caught:
            sweeps.run("damaged", space, search="grid")
        assert str(record) in str(caught.value)
    record.unlink()
    assert trials_of(sweeps.run("damaged", space, search="grid")) == first
    assert len(list(sweeps.folder("damaged").glob("trials/*/v*"))) == 2


@pytest.mark.parametrize("where", ["plan", "outcome"])
def test_t2_a_fault_before_or_after_the_training_of_one_trial(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Of points that would share a pack the others finish."""

    def broken(whole: Any) -> Any:
        def fails_for_ada(*arguments: Any) -> Any:
            if any(isinstance(one, dict) and one.get("rule") == "ada" for one in arguments):
                raise KeyError("no such thing")
            return whole(*arguments)

        return fails_for_ada

    target = (sweep_trial, "student_plan") if where == "plan" else (sweep_trial, "outcome")
    monkeypatch.setattr(*target, broken(getattr(*target)))
    prepared = sweeps.prepared(f"fault-{where}", RULES, search="grid")
    units = units_of(prepared.resolved.sweep.points or [], prepared.trials, together=True, shares=1)
    assert sorted(len(unit.points) for unit in units) == ([1, 2] if where == "plan" else [3])
    results = sweeps.run(f"fault-{where}", RULES, search="grid", concurrency=1)
    trials = {trial["point"]["rule"]: trial for trial in trials_of(results).values()}
    assert {rule: trial["status"] for rule, trial in trials.items()} == {
        "labels": "finished",
        "ada": "failed",
        "constant": "finished",
    }
    assert trials["ada"]["reason"] == "KeyError: 'no such thing'"
    told = sweeps.folder(f"fault-{where}") / "errors" / f"{trials['ada']['name']}.txt"
    assert "Traceback" in told.read_text()
    assert [path.name for path in told.parent.iterdir()] == [told.name]


def test_a_level_that_is_chosen_is_told_in_the_job_of_a_point(sweeps: Sweeps) -> None:
    job = sweeps.resolved("levels", RULES, search="grid").job
    assert job.distill.fusion.level == "chosen"
    levels = {
        rule: sweep_student.point_job(job, {"rule": rule}).distill.fusion.level for rule in ("tgeo_one_step", "ada")
    }
    assert levels == {"tgeo_one_step": sweep_student.LEVEL, "ada": "chosen"}
