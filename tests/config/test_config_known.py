"""Points that a user knows, and lists whose condition is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgeokd_ray.config.space import Parameter, random_points
from tgeokd_ray.config.sweep import Sweep, resolve_sweep, trial_job

DEFAULTS = sorted((Path(__file__).resolve().parents[2] / "datasets" / "sweeps").glob("*.yaml"))
RATE = "student.training.optimizer.learning_rate"


def test_equal_points_of_a_user_are_one_trial_with_the_values_of_the_search() -> None:
    """1 in YAML is a whole number, of which a search between two ends makes 1.0: they must have one name."""
    space = {RATE: {"uniform": [0, 2]}, "width": {"int_uniform": [1, 9]}, "rule": {"choice": ["labels"]}}
    known = [{RATE: rate, "width": width, "rule": "labels"} for rate, width in ((1, 4.0), (1.0, 4), (0.5, 4))]
    for keys in ({"search": "random", "trials": 1}, {"search": "tpe"}):
        sweep = Sweep.model_validate({"space": space, "known": known, **keys})
        told = [{RATE: rate, "width": 4, "rule": "labels"} for rate in (1.0, 0.5)]
        assert repr(sweep.known_points) == repr(told), "1 and 1.0 are equal, and are not written alike"
        assert sweep.points in (sweep.known_points, None)


def test_a_list_under_a_condition_on_what_is_drawn_is_tried_whole_where_it_holds() -> None:
    space = {
        "rule": Parameter(choice=("labels", "constant")),
        "constant": Parameter(grid=(0.25, 0.75), when={"rule": "constant"}),
    }
    points = random_points(space, 12, 0)
    assert points == random_points(space, 30, 0)
    assert sorted(map(str, points)) == sorted(
        map(str, [{"rule": "labels"}, *({"rule": "constant", "constant": value} for value in (0.25, 0.75))])
    )


@pytest.mark.parametrize(("value", "settled"), [(1, 1.0), (0.5, 0.5)])
def test_a_value_between_two_ends_is_a_float(value: float, settled: float) -> None:
    found = Parameter(uniform=(0, 2)).settled(value)
    assert (found, type(found)) == (settled, float)


@pytest.mark.parametrize("path", DEFAULTS, ids=lambda path: path.stem)
def test_the_default_sweep_of_a_card_tries_the_card_as_it_is_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parents[2])
    found = resolve_sweep(str(path), {})
    assert found.card.name == path.stem
    assert trial_job(found.job, found.sweep.known_points[0]) == found.job
