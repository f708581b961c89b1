"""What a search is told of trials that are over, begun or known, and what the driver makes of those it lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tgeokd_ray.config.job import Job
from tgeokd_ray.config.proposals import Asked
from tgeokd_ray.config.space import Point
from tgeokd_ray.config.sweep import Sweep
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.sweep_board import Board
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, trial_name
from tgeokd_ray.pipeline.sweep_trial import Trials, Unit, refused
from tgeokd_ray.pipeline.sweep_units import proposals, total_of
from tgeokd_ray.training.data import DirectSource

SPACE = {
    "rule": {"choice": ["labels", "constant"]},
    "constant": {"uniform": [0, 1], "when": {"rule": "constant"}},
}


def sweep(**keys: Any) -> Sweep:
    return Sweep.model_validate({"space": SPACE, "search": "tpe", **keys})


def over(point: Point, value: float | None, raw: dict[str, Any]) -> Trial:
    status = "failed" if value is None else "finished"
    return Trial(trial_name(point), point, status, value=value, raw=raw)  # type: ignore[arg-type]


def asked(folder: Path, metric: str, trials_over: list[Trial], **keys: Any) -> Asked:
    trials = Trials(Job(card="synthetic_ctr", metric=metric), "c", "table", "logits", folder, epochs=4)
    found = proposals(sweep(**keys), trials, 9, {trial.name: trial for trial in trials_over})
    assert isinstance(found, Asked)
    return found


@pytest.mark.parametrize(("metric", "sign"), [("auc", 1.0), ("nll", -1.0)])
def test_larger_is_better_in_all_that_a_search_is_told(metric: str, sign: float, tmp_path: Path) -> None:
    raw = {"rule": 0, "constant": 0.3}
    known = [over({"rule": "labels"}, 0.5, raw), over({"rule": "constant", "constant": 0.5}, None, raw)]
    found = asked(tmp_path, metric, known)
    assert found.known == ((raw, sign * 0.5), (raw, None))
    assert found.number == 7


def test_a_known_point_that_was_begun_is_asked_once(tmp_path: Path) -> None:
    point, raw = {"rule": "constant", "constant": 1.0}, {"rule": 1, "constant": 1.0}
    Journal(tmp_path).begin(trial_name(point), point, raw)
    keys: dict[str, Any] = {"known": [{"rule": "constant", "constant": 1}]}
    found = asked(tmp_path, "auc", [], **keys)
    assert found.first == (raw,)
    assert found.unit(found.first[0]).points == (point,)
    assert asked(tmp_path / "over", "auc", [over(point, 0.5, raw)], **keys).first == ()


def test_every_trial_that_was_begun_changes_the_dice(tmp_path: Path) -> None:
    """Those that were stopped, too, of which TPE hears nothing: it threw the points of an earlier driver again, nothing
    new came of them, and the sweep ended with trials left."""
    points = [{"rule": "constant", "constant": value / 10} for value in range(1, 7)]
    raws = [{"rule": 1, "constant": point["constant"]} for point in points]
    stopped = [
        Trial(trial_name(point), point, "stopped", value=0.5, raw=raw)
        for point, raw in zip(points[:2], raws, strict=False)
    ]
    seeds = []
    for known in range(3):
        for begun in range(2):
            journal = Journal(tmp_path / f"{known}{begun}")
            for point, raw in zip(points[2 : 2 + begun], raws[2:], strict=False):
                journal.begin(trial_name(point), point, raw)
            seeds.append(asked(journal.folder, "auc", stopped[:known], seed=5).seed)
    assert seeds == [5, 6, 6, 7, 7, 8]


def test_no_search_goes_on_for_more_points_than_there_are(tmp_path: Path) -> None:
    """Not of 18 combinations but of 8 points, since some have no meaning; between two ends there is no end of them."""
    space = {
        "rule": {"choice": ["labels", "constant", "ada"]},
        "constant": {"choice": [0.1, 0.2, 0.3], "when": {"rule": "constant"}},
        "distill.temperature": {"choice": [1.0, 2.0], "when": {"rule": ["constant"]}},
    }
    points = [
        {"rule": "constant", "constant": c, "distill.temperature": t} for c in (0.1, 0.2, 0.3) for t in (1.0, 2.0)
    ]
    everything = [over({"rule": rule}, 0.5, {}) for rule in ("labels", "ada")] + [over(p, 0.5, {}) for p in points]
    told = asked(tmp_path, "auc", everything[:5], space=space)
    assert told.number == len(told.first) == 3
    left = sorted(str(told.unit(raw).points[0]) for raw in told.first)
    assert left == sorted(str(trial.point) for trial in everything[5:]), "all that are left, each once"
    assert len(asked(tmp_path, "auc", [], space=space).first) == 8
    trials = Trials(Job(card="synthetic_ctr"), "c", "table", "logits", tmp_path, epochs=4)
    known = {trial.name: trial for trial in everything}
    assert len(known) == 8
    assert proposals(sweep(space=space), trials, 20, known) is None
    assert total_of(sweep(space=space), 5) == 5
    assert total_of(sweep(space=space), 20) == 8
    assert total_of(sweep(), 20) == 20


def test_raw_points_that_differ_where_they_have_no_meaning_are_one_trial(tmp_path: Path) -> None:
    found = asked(tmp_path, "auc", [])
    same, other = ({"rule": 0, "constant": value} for value in (0.1, 0.2)), {"rule": 1, "constant": 0.1}
    assert len({found.key(raw) for raw in same}) == 1
    assert found.key(other) == trial_name({"rule": "constant", "constant": 0.1})


def test_a_trial_that_was_lost_before_it_began_is_written_down(tmp_path: Path) -> None:
    unit = Unit(({"rule": "labels"},))
    board = Board(Journal(tmp_path), "nll", -1.0, 9, Silent(), {})
    board.ended(unit, "its node is gone")
    found = board.known[unit.name]
    assert (found.status, found.seconds < 1) == ("failed", True)
    assert "its node is gone" in str(found.reason)


def test_what_a_stopped_trial_told_an_earlier_driver_is_a_gap_in_its_curve(tmp_path: Path) -> None:
    """It went on from its checkpoint in epoch 3."""
    unit = Unit(({"rule": "labels"},))
    board = Board(Journal(tmp_path), "nll", -1.0, 9, Silent(), {})
    board.began(unit)
    board.told(unit, 3, -0.5)
    board.told(unit, 4, -0.4)
    board.ended(unit, None)
    found = Journal(tmp_path).get(unit.name)
    assert found is not None
    assert (found.status, found.value, found.epochs, found.curve) == ("stopped", 0.4, 4, (None, None, 0.5, 0.4))
    assert board.curves == {}, "no rung is judged by a curve with gaps"


def test_a_trial_that_an_older_process_ended_first_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(Job(card="synthetic_ctr"), "c", "table", "logits", tmp_path, epochs=4)
    point: Point = {"rule": "labels"}
    told: list[Any] = []
    first = over(point, 0.75, {})

    def beaten(*_: object) -> list[Trial]:
        Journal(tmp_path).keep(first)  # and its folder of checkpoints goes, under this process's feet
        return [refused(point, FileNotFoundError("checkpoints"))]

    monkeypatch.setattr(Trials, "_outcomes", beaten)
    trials(Unit((point,)), told.append, DirectSource())
    assert Journal(tmp_path).known() == {first.name: first}
    assert len(list(tmp_path.glob(f"trials/{first.name}/v*"))) == 1
    assert told == [{"epoch": 4, "value": 0.75}]
