"""Members of a population: what they have gone through can be trained again from the first step on, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sweep_runs import RATE, Sweeps

from tgeokd_ray.config.sweep import CHANGES, FUSION_RATE
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.pipeline.sweep import Prepared
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, trial_name
from tgeokd_ray.pipeline.sweep_population import Member, Past
from tgeokd_ray.pipeline.sweep_trial import Unit
from tgeokd_ray.training.data import DirectSource

SPACE = {FUSION_RATE: {"log_uniform": [1e-3, 1.0]}, "rule": {"choice": ["tgeo_one_step"]}}
KEYS = {"scheduler": "pbt", "trials": 2}
SLOW, FAST = 1e-3, 0.5


class Told:
    """Keeps what a member tells, and a copy of each checkpoint."""

    def __init__(self, folder: Path, until: int | None = None) -> None:
        self.folder, self.until = folder, until
        self.epochs: list[float] = []

    def __call__(self, told: Mapping[str, float], checkpoint: Path | None) -> None:
        self.epochs.append(told["epoch"])
        if checkpoint is not None:
            shutil.copytree(checkpoint, self.folder / str(told["epoch"]))
        if told["epoch"] == self.until:
            raise SystemExit


def start(sweeps: Sweeps, name: str) -> tuple[Prepared, Unit]:
    base: dict[str, Any] = {"student": {"model": {"hidden": [4]}, "training": {"epochs": 4, "batch_rows": 64}}}
    prepared = sweeps.prepared(name, SPACE, base=base, **KEYS)
    point, *_ = prepared.resolved.sweep.points or []
    return prepared, Unit(({**point, FUSION_RATE: SLOW},))


def over(prepared: Prepared) -> Trial:
    (trial,) = Journal(prepared.trials.folder).known().values()
    return trial


def test_a_member_that_nobody_moves_is_a_plain_trial(sweeps: Sweeps, tmp_path: Path) -> None:
    plain, unit = start(sweeps, "plain-member")
    plain.trials(unit, lambda told: None, DirectSource())
    prepared, unit = start(sweeps, "member")
    told = Told(tmp_path)
    Member(prepared.trials, 1)(unit, SLOW, None, "one", told, DirectSource())
    assert over(prepared).curve == over(plain).curve
    assert over(prepared).name == over(plain).name
    assert told.epochs == [1, 2, 3, 5]  # of the last epoch nothing is told until the trial is over
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3"]
    assert not (prepared.trials.folder / "work" / "one").exists()


def test_a_student_that_went_on_with_another_rate_can_be_trained_again(sweeps: Sweeps, tmp_path: Path) -> None:
    prepared, unit = start(sweeps, "exploited")
    member = Member(prepared.trials, 2)
    with pytest.raises(SystemExit):
        member(unit, SLOW, None, "first", Told(tmp_path, until=2), DirectSource())
    heard = Told(tmp_path / "second")
    member(unit, FAST, tmp_path / "2", "second", heard, DirectSource())
    moved = over(prepared)
    assert heard.epochs == [5]
    assert moved.point == {"rule": "tgeo_one_step", FUSION_RATE: SLOW, CHANGES: [[2, FAST]]}

    again, _ = start(sweeps, "again-with-changes")
    again.trials(Unit((moved.point,)), lambda told: None, DirectSource())
    assert over(again).curve == moved.curve
    assert over(again).value == moved.value
    slow, unit = start(sweeps, "never-moved")
    slow.trials(unit, lambda told: None, DirectSource())
    assert over(slow).curve[:2] == moved.curve[:2]
    assert over(slow).curve[2:] != moved.curve[2:]


def test_a_past_keeps_every_move_but_none_to_the_same_rate() -> None:
    past = Past({FUSION_RATE: 0.1})
    assert past.whole == {FUSION_RATE: 0.1}
    assert past.moved(0.1) == past
    later = Past({FUSION_RATE: 0.1}, epoch=3).moved(0.2)
    assert later.rate == 0.2
    assert later.whole == {FUSION_RATE: 0.1, CHANGES: [[3, 0.2]]}
    assert trial_name(later.whole) != trial_name(past.whole)


@pytest.mark.parametrize(
    ("space", "keys", "said"),
    [
        ({RATE: {"choice": [0.01]}}, {}, f"needs {FUSION_RATE} in the space"),
        ({FUSION_RATE: {"choice": [0.01, 0.1]}}, {}, "between two ends"),
        (SPACE, {"search": "tpe"}, "search must be random"),
        (SPACE, {"seeds": 2}, "seeds must be 1"),
        (SPACE | {"rule": {"choice": ["tgeo"]}}, {}, "expected the rule tgeo_one_step; got tgeo"),
    ],
)
def test_what_a_population_is_not_for(sweeps: Sweeps, space: dict[str, Any], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweeps.resolved("refused", space, **{**KEYS, **keys})
    assert said in str(caught.value)
