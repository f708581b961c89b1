"""What the driver hears of trials, and what it writes down of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweep_runs import RATE, Sweeps

from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.sweep_board import Board
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, trial_name
from tgeokd_ray.pipeline.sweep_record import different
from tgeokd_ray.pipeline.sweep_trial import Unit
from tgeokd_ray.pipeline.sweep_units import asked


class Heard(Silent):
    """Keeps how many trials are told to be over, and the note beside."""

    def __init__(self) -> None:
        super().__init__()
        self.advances: list[tuple[int, str]] = []
        self.shown: list[Any] = []

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        self.advances.append((amount, note))

    def stood(self, stage: str, headings: Any, rows: Any) -> None:
        self.shown.append(rows)


def board(folder: Path, known: dict[str, Trial] | None = None, sign: float = 1.0) -> Board:
    return Board(Journal(folder), "nll" if sign < 0 else "auc", sign, 10, Heard(), known if known is not None else {})


def unit(*numbers: int) -> Unit:
    return Unit(tuple({"a": number} for number in numbers))


def finished(number: int, value: float, curve: tuple[float | None, ...] = ()) -> Trial:
    point = {"a": number}
    return Trial(trial_name(point), point, "finished", value=value, curve=curve)


def test_an_epoch_that_is_told_again_replaces_what_came_after(tmp_path: Path) -> None:
    """A lost trial begins again from its last checkpoint."""
    heard, one = board(tmp_path), unit(1)
    for epoch, value in ((1, 0.5), (2, 0.6), (3, 0.7), (2, 0.61)):
        heard.told(one, epoch, value)
    heard.ended(one, None)
    trial = Journal(tmp_path).get(one.name)
    assert trial is not None
    assert (trial.curve, trial.value) == ((0.5, 0.61), 0.61)


def test_of_a_lost_pack_what_is_written_stays(tmp_path: Path) -> None:
    heard, three = board(tmp_path), unit(1, 2, 3)
    heard.began(three)
    assert heard.note == "3 running"
    Journal(tmp_path).keep(finished(2, 0.7))
    heard.ended(three, "killed")
    assert {t.point["a"]: t.status for t in heard.known.values()} == {1: "failed", 2: "finished", 3: "failed"}
    assert heard.note == f"best auc 0.7000 ({trial_name({'a': 2})}), 1 finished, 2 failed"
    assert heard.progress.advances[-1] == (3, heard.note)  # type: ignore[attr-defined]


def test_what_is_over_is_counted_once(tmp_path: Path) -> None:
    """A search algorithm may think of a point again."""
    before = finished(1, 0.6, (0.5, 0.6))
    heard = board(tmp_path, {before.name: before})
    Journal(tmp_path).keep(before)
    heard.began(unit(1))
    heard.told(unit(1), 10, 0.6)
    heard.ended(unit(1), None)
    assert sum(amount for amount, _ in heard.progress.advances) == 0  # type: ignore[attr-defined]
    assert heard.known == {before.name: before}
    assert heard.curves == {before.name: [0.5, 0.6]}


def test_halving_judges_by_whole_curves_larger_better(tmp_path: Path) -> None:
    trials = [finished(1, 0.4, (0.6, 0.4)), finished(2, 0.3, (None, 0.3)), finished(3, 0.5)]
    heard = board(tmp_path, {trial.name: trial for trial in trials}, sign=-1.0)
    assert heard.curves == {trials[0].name: [-0.6, -0.4]}
    assert heard.note == f"best nll 0.3000 ({trials[1].name}), 3 finished"
    headings, rows = heard.standing
    assert headings == ["best so far", "NLL", "epochs", "time", "parameters"]
    assert [row[:2] for row in rows] == [
        [trials[k].name, value] for k, value in ((1, "0.3000"), (0, "0.4000"), (2, "0.5000"))
    ]
    assert [row[-1] for row in rows] == ["a=2", "a=1", "a=3"]


def test_the_best_five_stand_below_the_bar(tmp_path: Path) -> None:
    heard = board(tmp_path)
    for number in range(8):
        Journal(tmp_path).keep(finished(number, 0.5 + 0.01 * number))
        heard.ended(unit(number), None)
    shown = heard.progress.shown  # type: ignore[attr-defined]
    assert [len(rows) for rows in shown] == [1, 2, 3, 4, 5, 5, 5, 5]
    assert [row[1] for row in shown[-1]] == ["0.5700", "0.5600", "0.5500", "0.5400", "0.5300"]


def test_t1_a_search_does_not_ask_again_what_is_over(sweeps: Sweeps, tmp_path: Path) -> None:
    """A process may die between the entry of a trial and the end of the note that it was begun; half a note is none."""
    sweep = sweeps.resolved("ask", {RATE: {"uniform": [0.001, 0.1]}}, search="tpe", trials=8).sweep
    journal = Journal(tmp_path)
    points = [{RATE: rate} for rate in (0.01, 0.02, 0.03)]
    for point in points:
        journal.begin(trial_name(point), point, point)
    (tmp_path / "asked" / "tmp-1-00-t-half.json").write_text(json.dumps({"point": {RATE: 0.05}, "raw": {RATE: 0.05}}))
    known = {
        trial_name(points[0]): Trial(trial_name(points[0]), points[0], "finished", value=0.7, raw=points[0]),
        trial_name(points[1]): Trial(trial_name(points[1]), points[1], "stopped", value=0.6, raw=points[1]),
    }
    found = asked(sweep, journal, 6, known, -1.0)
    assert found.first == (points[2],)
    assert found.known == ((points[0], -0.7),)  # of one that was stopped the end is not known


def test_differences_are_told_by_their_path() -> None:
    old = {"sweep": {"seed": 0, "space": {"a": {"choice": [1]}}}, "job": {"x": None}}
    new = {"sweep": {"seed": 1, "space": {"b": {"choice": [1]}}}, "job": {"x": None}}
    assert different(old, old) == []
    assert different(old, new) == [
        "sweep.seed was 0 and is 1",
        'sweep.space.a was {"choice": [1]} and is null',
        'sweep.space.b was null and is {"choice": [1]}',
    ]
