"""A sweep that ended in the middle goes on: with the same numbers, nothing done twice, nothing left lying about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from sweep_runs import RATE, SMALL, Sweeps, trials_of

from tgeokd_ray.artifacts import DISK, held
from tgeokd_ray.config.proposals import Listed, Round
from tgeokd_ray.config.sweep import Resolved
from tgeokd_ray.errors import ConfigError, ResourceError
from tgeokd_ray.events import Progress, Silent
from tgeokd_ray.pipeline import engine, job
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import Prepared, dry_run, run_sweep
from tgeokd_ray.pipeline.sweep_journal import Journal
from tgeokd_ray.pipeline.sweep_trial import Unit
from tgeokd_ray.pipeline.sweep_units import units_of
from tgeokd_ray.training.data import DirectSource

LABELS = {"rule": {"grid": ["labels"]}}
PAIR = {RATE: {"grid": [0.005, 0.02]}, **LABELS}
LOCAL = Place(local=True)


def struck(epoch: int) -> Callable[[Mapping[str, float]], None]:
    """A `tell` that ends the trial from outside once it is so far."""

    def tell(told: Mapping[str, float]) -> None:
        if told["epoch"] >= epoch:
            raise SystemExit

    return tell


def interrupted(prepared: Prepared, unit: Unit, epoch: int = 2) -> None:
    """Begin a unit, and end it after so many epochs."""
    with pytest.raises(SystemExit):
        prepared.trials(unit, struck(epoch), DirectSource())
    assert list(prepared.trials.home(unit.name).glob("checkpoints/*/*/manifest.json"))


def figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of the trials by name, but not their time."""
    return {name: {**trial, "seconds": None} for name, trial in trials_of(results).items()}


@pytest.mark.parametrize(
    ("name", "space", "model"),
    [
        ("pack", PAIR, {}),
        ("dropout", PAIR | {"rule": {"grid": ["ada"]}}, {"dropout": 0.3}),
        ("two-phases", {"rule": {"grid": ["tgeo"]}}, {}),
    ],
)
def test_a_unit_that_was_interrupted_ends_as_an_undisturbed_one(
    sweeps: Sweeps, name: str, space: dict[str, Any], model: dict[str, Any]
) -> None:
    student = SMALL["student"] | {"model": {"hidden": [4], **model}}
    keys: dict[str, Any] = {"search": "grid", "concurrency": 1, "base": {"student": student}}
    calm = sweeps.run(f"calm-{name}", space, **keys)
    prepared = sweeps.prepared(f"struck-{name}", space, **keys)
    points = prepared.resolved.sweep.points or []
    (unit,) = units_of(points, prepared.trials, together=True, shares=1)
    assert len(unit.points) == len(points)
    interrupted(prepared, unit)
    assert figures(sweeps.run(f"struck-{name}", space, **keys)) == figures(calm)
    assert {path.parent.name for path in sweeps.folder(f"struck-{name}").glob("trials/*/*/trial.json")} == {"v000001"}


def test_other_company_leaves_nothing_behind(sweeps: Sweeps) -> None:
    """With more or fewer trials at once units are others, and what the old ones left is removed at the end."""
    space = {RATE: {"grid": [0.005, 0.01, 0.02, 0.03]}, **LABELS}
    prepared = sweeps.prepared("company", space, search="grid")
    points = prepared.resolved.sweep.points or []
    units = units_of(points, prepared.trials, together=True, shares=2)
    assert [len(unit.points) for unit in units] == [2, 2]
    for unit in units:
        interrupted(prepared, unit, epoch=1)
    assert len(trials_of(sweeps.run("company", space, search="grid", concurrency=1))) == 4
    assert not [*sweeps.folder("company").glob("work/*"), *sweeps.folder("company").glob("asked/*")]


def test_the_time_may_be_up_in_the_middle_of_a_trial(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it stops after an epoch, and goes on from there."""
    keys: dict[str, Any] = {"search": "grid", "concurrency": 1}
    calm = sweeps.run("unhurried", PAIR, **keys)
    resolved = sweeps.resolved("hurried", PAIR, budget_minutes=1, **keys)
    moments = iter((0.0, 0.0, 0.0))  # when it begins, before the unit, after its first epoch; then it is late
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: next(moments, 1e9)))
    progress = Silent()
    with pytest.raises(ResourceError, match="no trial is finished, 2 are left"):
        run_sweep(resolved, LOCAL, progress)
    assert any("budget of 1 minutes is used up" in warning for warning in progress.warnings)
    assert list(sweeps.folder("hurried").glob("work/*/checkpoints/*/*/manifest.json"))
    monkeypatch.undo()
    assert figures(sweeps.run("hurried", PAIR, **keys)) == figures(calm)


def test_a_trial_that_is_over_counts_though_its_time_is_up(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last word comes when its entry is written."""
    once = sweeps.resolved("in-time", LABELS, search="grid", budget_minutes=1)
    moments = iter((0.0, 0.0, 0.0, 0.0))  # begin, unit, two epochs that are told of
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: next(moments, 1e9)))
    results, _ = run_sweep(once, LOCAL, Silent())
    assert results["extra"]["sweep"]["counts"]["finished"] == 1


def test_t1_an_entry_with_a_torn_manifest_is_done_again(sweeps: Sweeps) -> None:
    first = figures(sweeps.run("cut", PAIR, search="grid"))
    path, *_ = sorted(sweeps.folder("cut").glob("trials/*/v000001/manifest.json"))
    path.write_text(path.read_text()[:40])
    assert figures(sweeps.run("cut", PAIR, search="grid")) == first
    assert (path.parent.parent / "v000002").is_dir()


def test_t3_another_sweep_is_refused_before_its_teacher_is_trained(sweeps: Sweeps) -> None:
    sweeps.run("first-of-two", PAIR, search="grid")
    there = sorted(sweeps.root.glob("teachers/*/*"))
    other = {"teacher": {"model": {"hidden": [9], "members": 1}, "training": {"epochs": 1}}}
    resolved = sweeps.resolved("first-of-two", PAIR, search="grid", base=other)
    tries: tuple[Callable[[Resolved, Place, Silent], Any], ...] = (run_sweep, dry_run)
    for attempt in tries:
        with pytest.raises(ConfigError, match=r"job\.teacher\.model\.hidden was \[8\] and is \[9\]"):
            attempt(resolved, LOCAL, Silent())
    assert sorted(sweeps.root.glob("teachers/*/*")) == there


def test_t3_another_table_under_the_same_card_is_another_sweep(sweeps: Sweeps, tmp_path: Path) -> None:
    text = yaml.safe_load(sweeps.card.read_text())
    own = Sweeps(tmp_path / "root", tmp_path / "own.yaml")
    for rows in (1500, 1800):
        text["format"]["rows"] = rows
        own.card.write_text(yaml.safe_dump(text))
        if rows == 1500:
            own.run("tables", PAIR, search="grid")
    with pytest.raises(ConfigError) as caught:
        own.run("tables", PAIR, search="grid")
    assert all(f"made_from.{role} was" in str(caught.value) for role in ("table", "logits"))


def test_fewer_trials_than_before_take_none_away_and_a_dry_run_counts_them(sweeps: Sweeps) -> None:
    assert len(trials_of(sweeps.run("fewer", trials=4))) == 4
    again = sweeps.run("fewer", trials=2)
    assert len(trials_of(again)) == 4
    plan = dry_run(sweeps.resolved("fewer", trials=2), LOCAL, Silent(), add_trials=3)
    assert (plan["trials"], plan["over"]) == (7, 4)
    assert plan["expected_seconds"] == pytest.approx(2 * plan["trial_seconds"])  # three more, two at once


def test_two_commands_do_not_run_one_sweep_at_once(sweeps: Sweeps) -> None:
    folder = sweeps.folder("twice")
    with held(folder, DISK), pytest.raises(ResourceError, match="twice"):
        sweeps.run("twice", PAIR, search="grid")
    assert Journal(folder).known() == {}


def test_what_failed_and_what_is_left_are_both_told(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {RATE: {"grid": [1e30, 0.01]}, **LABELS}
    resolved = sweeps.resolved("both", space, search="grid", packs=False, budget_minutes=1)
    seen: list[Any] = []

    class Late(engine.LocalEngine):
        def trials(self, what: Round, progress: Progress) -> bool:
            assert isinstance(what.proposals, Listed)
            seen.append(what.proposals.number)
            first = replace(what.proposals, units=what.proposals.units[:1])
            super().trials(replace(what, proposals=first), progress)
            return False

    monkeypatch.setattr(job, "LocalEngine", Late)
    with pytest.raises(Exception, match="1 more are not over, with which the same command goes on"):
        run_sweep(resolved, LOCAL, Silent())
    assert seen == [2]
