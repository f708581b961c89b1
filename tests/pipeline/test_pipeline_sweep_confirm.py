"""The winner of a sweep against the first known point, on seeds that no trial had."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from sweep_runs import RATE, Sweeps, trials_of

from tgeokd_ray.artifacts import latest, read_json
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.config.sweep import rule_of
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.pipeline import sweep_confirm
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.sweep import dry_run
from tgeokd_ray.pipeline.sweep_journal import trial_name
from tgeokd_ray.pipeline.sweep_student import point_job
from tgeokd_ray.report.sweep import sections
from tgeokd_ray.report.sweep_plan import plan_table
from tgeokd_ray.report.sweep_terminal import sweep_table
from tgeokd_ray.report.sweep_wording import confirmed

SPACE = {RATE: {"log_uniform": [1e-4, 3e-2]}, "rule": {"choice": ["constant"]}, "constant": {"choice": [0.5]}}
POOR = {RATE: 1e-4, "rule": "constant", "constant": 0.5}  # a rate at which nothing is learned in three epochs
ARMS = ("winner", "known")


def told_of(results: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = results["extra"]["sweep"]
    return found


@pytest.fixture(scope="module")
def swept(sweeps: Sweeps) -> dict[str, Any]:
    return sweeps.run("confirmed", SPACE, known=[POOR], trials=4, confirm=3)


def test_g_both_points_are_trained_with_the_same_fresh_seeds(sweeps: Sweeps, swept: dict[str, Any]) -> None:
    found = told_of(swept)["confirmation"]
    assert found["known"] == trial_name(POOR)
    assert found["winner"] == told_of(swept)["best"] != found["known"]
    assert found["seeds"] == [1, 2, 3], "trials and the best student have the job's, 0"
    auc = found["figures"]["auc"]
    assert len({*auc["winner"], *auc["known"]}) == 6
    assert (auc["difference"], auc["low"], auc["high"]) == paired_difference(auc["winner"], auc["known"])
    assert set(found["figures"]) == {"auc", "nll"}
    assert found["replaces"]
    assert auc["low"] > 0


def test_g_an_arm_is_what_a_job_with_that_seed_trains(sweeps: Sweeps, swept: dict[str, Any]) -> None:
    resolved = sweeps.resolved("confirmed", SPACE, known=[POOR], trials=4, confirm=3)
    found, trials = told_of(swept)["confirmation"], trials_of(swept)
    for arm in ARMS:
        point = trials[found[arm]]["point"]
        student = latest(sweeps.root, "students", f"confirmed-confirm-{arm}-2-constant-0.5")
        assert student is not None
        spec = student.manifest.arguments
        assert spec["data_seed"] == 2
        assert spec["optimizer"]["learning_rate"] == point[RATE]
        assert read_json(student.file("metrics.json"))["test"]["auc"] == found["figures"]["auc"][arm][1]
        assert rule_of(resolved.job, point) == "constant"
    job = point_job(resolved.job, trials[found["winner"]]["point"])
    card = resolve({"card": str(sweeps.card)})[1]
    # A job has a teacher of its own seed; with that of the sweep the student is the same.
    alone, _ = run_job(job.model_copy(update={"run": "seed-0-alone"}), card, Place(local=True), Silent())
    best = next(model for model in swept["models"] if model["name"] == "best")
    assert best["auc"] in [model["auc"] for model in alone["models"] if model["role"] == "student"]


def test_the_same_command_trains_nothing_again_and_a_killed_one_goes_on(
    sweeps: Sweeps, swept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted((sweeps.root / "students").glob("confirmed-confirm-*/v*"))
    assert len(before) == 6
    again = sweeps.run("confirmed", SPACE, known=[POOR], trials=4, confirm=3)
    assert told_of(again)["confirmation"] == told_of(swept)["confirmation"]
    assert sorted((sweeps.root / "students").glob("confirmed-confirm-*/v*")) == before

    class Struck(SystemExit):
        """As a kill after the first arm."""

    whole = sweep_confirm.Arms.__call__

    def struck(self: sweep_confirm.Arms, finished: Any) -> Any:
        if finished:
            raise Struck
        return [spec for spec in whole(self, finished) if spec.name.startswith("winner-1")]

    with monkeypatch.context() as patch:
        patch.setattr(sweep_confirm.Arms, "__call__", struck)
        with pytest.raises(Struck):
            sweeps.run("confirm-struck", SPACE, known=[POOR], trials=4, confirm=2)
    made = {path: path.stat().st_mtime_ns for path in (sweeps.root / "students").glob("confirm-struck-confirm-*/v*")}
    assert len(made) == 1
    assert (
        len(told_of(sweeps.run("confirm-struck", SPACE, known=[POOR], trials=4, confirm=2))["confirmation"]["seeds"])
        == 2
    )
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_more_seeds_are_not_another_sweep_and_its_artifact_tells_them(sweeps: Sweeps, swept: dict[str, Any]) -> None:
    keys: dict[str, Any] = {"known": [POOR], "trials": 4}
    plain = sweeps.run("confirm-later", SPACE, **keys)
    assert told_of(plain)["confirmation"] is None
    asked = sweeps.run("confirm-later", SPACE, **keys, confirm=2)
    assert told_of(asked)["artifact"] != told_of(plain)["artifact"]
    kept = latest(sweeps.root, "sweeps", "confirm-later")
    assert kept is not None
    assert read_json(kept.file("leaderboard.json"))["confirmation"] == told_of(asked)["confirmation"]
    assert told_of(sweeps.run("confirm-later", SPACE, **keys, confirm=2))["artifact"] == told_of(asked)["artifact"]


def test_where_the_known_point_wins_nothing_is_trained(sweeps: Sweeps) -> None:
    good = {**POOR, RATE: 0.02}
    space = {**SPACE, RATE: {"log_uniform": [1e-4, 3e-2]}}
    results = sweeps.run("confirm-stays", space, known=[good], trials=1, confirm=2)
    found = told_of(results)["confirmation"]
    assert (found["same"], found["replaces"], found["seeds"]) == (True, False, [])
    assert not [*(sweeps.root / "students").glob("confirm-stays-confirm-*")]
    assert "won: there is nothing to replace" in str(confirmed(told_of(results)))


def test_what_is_shown(swept: dict[str, Any]) -> None:
    console = Console(record=True, width=140)
    sweep_table(swept, console)
    assert "On 3 fresh seeds the winner is beside the first known point" in console.export_text().replace("\n", " ")
    page = "".join(sections(swept))
    assert "On fresh seeds" in page
    assert "it replaces it" in page
    for value in told_of(swept)["confirmation"]["figures"]["auc"]["winner"]:
        assert f"{value:.4f}" in page


@pytest.mark.parametrize(
    ("metric", "values", "replaces", "said"),
    [
        ("auc", ([0.8, 0.81], [0.7, 0.71]), True, "+0.1000 AUC on test, +0.1000 to +0.1000: it replaces it"),
        ("auc", ([0.8, 0.7], [0.7, 0.8]), False, "the known point stays"),
        ("nll", ([0.4, 0.41], [0.5, 0.51]), True, "-0.1000 NLL on test, -0.1000 to -0.1000: it replaces it"),
        ("nll", ([0.5, 0.51], [0.4, 0.41]), False, "the known point stays"),
        ("auc", ([0.8, None], [0.7, 0.71]), False, "AUC is undefined on test"),
    ],
)
def test_it_replaces_where_the_interval_excludes_0_on_the_better_side(
    metric: str, values: tuple[list[float | None], list[float | None]], replaces: bool, said: str
) -> None:
    found = sweep_confirm._difference(*values)
    assert sweep_confirm._excludes_0(found, 1.0 if metric == "auc" else -1.0) == replaces
    told = {"metric": metric, "known": "t-1", "same": False, "seeds": [1, 2], "replaces": replaces}
    assert said in str(confirmed({"confirmation": told | {"figures": {metric: found}}}))


def test_h_confirm_without_a_known_point_is_refused(sweeps: Sweeps) -> None:
    with pytest.raises(ConfigError, match="there is none"):
        sweeps.resolved("confirm-nobody", SPACE, trials=2, confirm=2)
    with pytest.raises(ConfigError, match="confirm"):
        sweeps.resolved("confirm-nobody", SPACE, known=[POOR], trials=2, confirm=1)


def test_a_dry_run_counts_them(sweeps: Sweeps) -> None:
    resolved = sweeps.resolved("confirm-counted", SPACE, known=[POOR], trials=4, confirm=3)
    plan = dry_run(resolved, Place(local=True), Silent())
    assert plan["expected_seconds"] == pytest.approx((2 + 6) * plan["trial_seconds"])
    console = Console(record=True, width=140)
    plan_table(plan, console)
    assert "3 fresh seeds" in console.export_text()
