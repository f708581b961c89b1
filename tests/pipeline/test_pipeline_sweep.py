"""Sweeps in one process: trials are students as a job trains them, nothing is done twice, the best is kept."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import pytest
from sweep_runs import RATE, SPACE, Sweeps, trials_of

from tgeokd_ray.artifacts import latest, open_artifact, read_json
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.plans import AllAtOnce
from tgeokd_ray.pipeline.sweep import dry_run, run_sweep
from tgeokd_ray.pipeline.sweep_journal import Journal
from tgeokd_ray.pipeline.sweep_student import SEEDS_APART, SideBySide, point_job
from tgeokd_ray.pipeline.sweep_trial import Unit
from tgeokd_ray.pipeline.sweep_units import proposals, units_of
from tgeokd_ray.training.data import DirectSource
from tgeokd_ray.training.plan import execute
from tgeokd_ray.training.worker import LocalWorker


def test_a_trial_is_the_student_that_a_job_trains_and_the_best_is_trained_again(sweeps: Sweeps) -> None:
    results = sweeps.run("plain", trials=4, packs=False)
    trials = trials_of(results)
    assert [trial["status"] for trial in trials.values()] == ["finished"] * 4
    best = next(iter(trials.values()))
    assert results["extra"]["sweep"]["best"] == best["name"]
    assert best["value"] == max(trial["value"] for trial in trials.values())
    student = next(model for model in results["models"] if model["name"] == "best")
    assert student["valid"]["auc"] == best["value"]
    assert student["auc"] is not None
    assert all("test" not in json.dumps(trial) for trial in trials.values())

    job = point_job(sweeps.resolved("plain").job, best["point"])
    card = resolve({"card": str(sweeps.card)})[1]
    alone, _ = run_job(job.model_copy(update={"run": "as-a-job"}), card, Place(local=True), Silent())
    kind = best["point"]["rule"]
    same = [m for m in alone["models"] if m["role"] == "student" and m["rule"]["kind"] == kind]
    assert [model["auc"] for model in same] == [student["auc"]]


def test_packs_give_the_same_values(sweeps: Sweeps) -> None:
    alone, packed = (trials_of(sweeps.run(f"packs-{packs}", trials=6, packs=packs)) for packs in (False, True))
    assert set(alone) == set(packed)
    for name, trial in alone.items():
        assert packed[name]["value"] == pytest.approx(trial["value"], abs=1e-6)
        assert packed[name]["curve"] == pytest.approx(trial["curve"], abs=1e-6)


def test_several_seeds_of_a_point_count_as_their_mean(sweeps: Sweeps) -> None:
    space = {RATE: {"choice": [0.01]}, "rule": {"choice": ["labels"]}}
    (trial,) = trials_of(sweeps.run("seeds", space, trials=1, seeds=3)).values()
    prepared = sweeps.prepared("seeds", space, trials=1, seeds=3)
    home = sweeps.root / "alone"
    plan = prepared.trials.plan(trial["point"], home)
    runs = [execute(SideBySide({f"s{k}": (plan, k)}), LocalWorker(), DirectSource(), Silent()) for k in range(3)]
    values = [run.metrics["valid"]["auc"] for (run,) in runs]
    assert len(set(values)) == 3
    assert trial["value"] == pytest.approx(fmean(values), abs=1e-6)
    assert trial["students"] == 3
    seeds = [SideBySide({"s": (plan, k)})([])[0].model_seeds for k in range(3)]
    assert seeds == [(SEEDS_APART * k,) for k in range(3)]


def test_the_same_command_trains_nothing_again_and_more_trials_add_to_what_there_is(sweeps: Sweeps) -> None:
    first = trials_of(sweeps.run("again", trials=3))
    moments = {path: path.stat().st_mtime_ns for path in sweeps.folder("again").glob("trials/*/*/trial.json")}
    assert len(moments) == 3
    again = sweeps.run("again", trials=3)
    assert trials_of(again) == first
    assert again["extra"]["sweep"]["resumed"] is True
    assert again["extra"]["sweep"]["artifact"] == "sweeps/again/v000001"
    more = trials_of(sweeps.run("again", trials=3, add_trials=2))
    assert len(more) == 5
    assert {name: more[name]["value"] for name in first} == {name: one["value"] for name, one in first.items()}
    assert {path: path.stat().st_mtime_ns for path in moments} == moments
    assert len(trials_of(sweeps.run("again", trials=3))) == 5  # what was added is not forgotten


def test_t3_another_sweep_of_the_same_name_is_refused_with_every_difference(sweeps: Sweeps) -> None:
    sweeps.run("taken", trials=1)
    with pytest.raises(ConfigError) as caught:
        sweeps.run("taken", trials=1, seed=7, base={"distill": {"temperature": 2.0}})
    said = str(caught.value)
    assert "sweep.seed was 0 and is 7" in said
    assert "job.distill.temperature was 1.0 and is 2.0" in said
    assert "name of its own" in said


def test_resume_wants_a_sweep_that_is_there(sweeps: Sweeps) -> None:
    with pytest.raises(ConfigError, match="there is no sweep runs/nowhere"):
        run_sweep(sweeps.resolved("nowhere"), Place(local=True), Silent(), resume=True)


def test_an_interrupted_trial_goes_on_from_its_checkpoint_bit_for_bit(sweeps: Sweeps) -> None:
    space = {RATE: {"choice": [0.01]}, "rule": {"choice": ["tgeo_one_step"]}}
    prepared = {name: sweeps.prepared(name, space, trials=1) for name in ("calm", "struck")}
    (point,) = prepared["calm"].resolved.sweep.points or []
    unit, told = Unit((point,)), []

    def stop(metrics: Any) -> None:
        if metrics["epoch"] == 2:
            raise SystemExit

    prepared["calm"].trials(unit, told.append, DirectSource())
    with pytest.raises(SystemExit):
        prepared["struck"].trials(unit, stop, DirectSource())
    struck = prepared["struck"].trials
    assert list(struck.home(unit.name).glob("checkpoints/*/*/manifest.json"))
    assert Journal(struck.folder).known() == {}
    assert [entry["point"] for entry in Journal(struck.folder).begun()] == [point]
    heard: list[Any] = []
    struck(unit, heard.append, DirectSource())
    (calm,), (after,) = (Journal(one.trials.folder).known().values() for one in prepared.values())
    assert after.curve == calm.curve
    assert after.value == calm.value
    assert told[-1] == heard[-1] == {"epoch": 4, "value": calm.value}
    assert [one["epoch"] for one in heard] == [2, 4]  # the end of epoch 2 was not in the checkpoint
    assert not struck.home(unit.name).exists()


def test_t1_a_torn_entry_of_the_journal_is_done_again(sweeps: Sweeps) -> None:
    first = trials_of(sweeps.run("torn", trials=2))
    path, *_ = sorted(sweeps.folder("torn").glob("trials/*/v000001/trial.json"))
    path.write_text(path.read_text()[:20])
    again = trials_of(sweeps.run("torn", trials=2))
    assert {n: t["value"] for n, t in again.items()} == {n: t["value"] for n, t in first.items()}
    assert (path.parent.parent / "v000002").is_dir()


def test_a_metric_of_which_less_is_better(sweeps: Sweeps) -> None:
    results = sweeps.run("nll", trials=3, metric="nll")
    values = [trial["value"] for trial in trials_of(results).values()]
    assert values == sorted(values)
    assert values[0] < values[-1]
    best = next(model for model in results["models"] if model["name"] == "best")
    assert best["valid"]["nll"] == pytest.approx(values[0], abs=1e-6)
    assert results["extra"]["sweep"]["higher_is_better"] is False


def test_every_rule_can_be_tried_and_two_phases_go_alone(sweeps: Sweeps) -> None:
    space = {"rule": {"grid": ["labels", "constant", "wls", "frozen", "rw", "tgeo_one_step", "tgeo"]}}
    results = sweeps.run("rules", space, search="grid")
    assert {trial["point"]["rule"]: trial["status"] for trial in trials_of(results).values()} == dict.fromkeys(
        space["rule"]["grid"], "finished"
    )
    prepared = sweeps.prepared("rules", space, search="grid")
    units = units_of(prepared.resolved.sweep.points or [], prepared.trials, together=True, shares=2)
    (alone,) = [unit for unit in units if any(point["rule"] == "tgeo" for point in unit.points)]
    assert len(alone.points) == 1


def test_units_are_a_function_of_all_points(sweeps: Sweeps) -> None:
    space = SPACE | {"student.model.hidden": {"choice": [[4], [6]]}}
    prepared = sweeps.prepared("units", space, trials=90, seeds=2)
    points = prepared.resolved.sweep.points or []
    units = units_of(points, prepared.trials, together=True, shares=2)
    assert sorted(map(str, points)) == sorted(str(point) for unit in units for point in unit.points)
    assert all(len({str(point["student.model.hidden"]) for point in unit.points}) == 1 for unit in units)
    assert max(len(unit.points) for unit in units) == 16  # 32 students, two of each point
    assert units == units_of(points, prepared.trials, together=True, shares=2)
    assert [len(one.points) for one in units_of(points, prepared.trials, together=False, shares=2)] == [1] * 90
    name = next(iter(unit.name for unit in units))
    left = proposals(prepared.resolved.sweep, prepared.trials, 90, {name: object()})  # type: ignore[dict-item]
    assert left is not None
    assert left.number in (len(units), len(units) - 1)


def test_what_a_sweep_leaves(sweeps: Sweeps) -> None:
    results = sweeps.run("leaves", trials=3)
    artifact = latest(sweeps.root, "sweeps", "leaves")
    assert artifact is not None
    board = pq.read_table(artifact.path / "leaderboard.parquet").to_pylist()
    trials = list(trials_of(results).values())
    assert [row["name"] for row in board] == [trial["name"] for trial in trials]
    assert [row[RATE] for row in board] == [trial["point"][RATE] for trial in trials]
    assert [row["constant"] for row in board] == [trial["point"].get("constant") for trial in trials]
    assert read_json(artifact.path / "leaderboard.json")["best"] == trials[0]["name"]
    assert set(artifact.manifest.parents) == {"table", "logits", "student"}

    options = {"root": str(sweeps.root), "run": "by-its-yaml"}
    job, card = resolve(options, config=str(artifact.path / "best.yaml"))
    again, _ = run_job(job, card, Place(local=True), Silent())
    best = next(model for model in results["models"] if model["name"] == "best")
    assert best["auc"] in [model["auc"] for model in again["models"] if model["role"] == "student"]
    page = (sweeps.folder("leaves") / "report.html").read_text()
    assert all(trial["name"] in page for trial in trials)
    assert (sweeps.folder("leaves") / "tensorboard" / trials[0]["name"]).is_dir()


def test_a_dry_run_measures_one_trial_and_keeps_none(sweeps: Sweeps) -> None:
    plan = dry_run(sweeps.resolved("dry", trials=7), Place(local=True), Silent())
    assert plan["trials"] == 7
    assert plan["expected_seconds"] == pytest.approx(4 * plan["trial_seconds"])
    assert Journal(sweeps.folder("dry")).known() == {}
    assert [path.name for path in sweeps.folder("dry").iterdir() if path.name.startswith(".dry")] == []


def test_the_seconds_of_a_budget_end_a_sweep_which_then_goes_on(sweeps: Sweeps) -> None:
    progress = Silent()
    resolved = sweeps.resolved("budget", trials=3, packs=False, budget_minutes=1e-6)
    with pytest.raises(Exception, match="no trial is finished, 3 are left"):
        run_sweep(resolved, Place(local=True), progress)
    assert any("is used up" in warning for warning in progress.warnings)
    assert len(trials_of(sweeps.run("budget", trials=3, packs=False))) == 3


def test_plans_side_by_side_keep_their_runs_apart(sweeps: Sweeps) -> None:
    prepared = sweeps.prepared("apart", {"rule": {"choice": ["labels", "ada"]}}, search="grid")
    home = sweeps.root / "apart"
    plans = {f"p{k}": (prepared.trials.plan(p, home), 0) for k, p in enumerate(prepared.resolved.sweep.points or [])}
    specs = SideBySide(plans)([])
    assert [spec.name for spec in specs] == ["p0-labels", "p1-ada"]
    assert not any(spec.measured for spec in specs)
    assert isinstance(plans["p0"][0], AllAtOnce)
    assert open_artifact(Path(specs[0].table)).label.startswith("tables/")
