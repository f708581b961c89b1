"""Conditions that never hold and lists without end are refused when the file is read."""

from __future__ import annotations

from typing import Any

import pytest

from tgeokd_ray.config.space import MOST_POINTS, Parameter, listed
from tgeokd_ray.config.sweep import Sweep

SPACE: dict[str, Any] = {
    "rule": {"choice": ["labels", "constant"]},
    "student.model.hidden": {"choice": [[8], [16, 8]]},
    "student.training.epochs": {"int_uniform": [2, 5]},
    "distill.temperature": {"uniform": [1, 4]},
}


def constant(when: Any) -> dict[str, Any]:
    """The space with a parameter under this condition."""
    return SPACE | {"constant": {"uniform": [0, 1], "when": when}}


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"rule": "constnt"}, "space.constant.when: rule is never 'constnt'; did you mean 'constant'?"),
        ({"rule": ["constant", "tgeo"]}, "rule is never 'tgeo'"),
        ({"student.model.hidden": [8]}, "student.model.hidden is never 8"),
        ({"student.training.epochs": 6}, "student.training.epochs is never 6"),
        ({"student.training.epochs": 2.5}, "student.training.epochs is never 2.5"),
        ({"distill.temperature": "warm"}, "distill.temperature is never 'warm'"),
        ({"rul": "constant"}, "space.constant.when: 'rul' is not in the space; did you mean 'rule'?"),
    ],
)
def test_a_condition_that_never_holds_is_refused(when: Any, said: str) -> None:
    """Its parameter would be left out of every point, and nobody would see it."""
    with pytest.raises(ValueError) as caught:
        Sweep.model_validate({"space": constant(when)})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "when",
    [
        {"rule": "constant"},
        {"rule": ["constant", "labels"]},
        {"student.model.hidden": [[16, 8]]},
        {"student.training.epochs": 5, "rule": "labels"},
    ],
)
def test_one_that_can_hold_is_taken(when: Any) -> None:
    points = Sweep.model_validate({"space": constant(when), "trials": 40}).points
    assert points is not None
    with_it = sum("constant" in point for point in points)
    assert 0 < with_it <= len(points)
    assert (with_it < len(points)) == (when != {"rule": ["constant", "labels"]})


def test_a_list_has_an_end() -> None:
    """It is made whole before anything starts: ten billion points would take all memory there is."""
    digits = {f"distill.fusion.p{k}": {"choice": list(range(10))} for k in range(10)}
    with pytest.raises(ValueError, match=f"search: grid makes a list of {10**10} points, at most {MOST_POINTS}"):
        Sweep.model_validate({"space": digits, "search": "grid"})
    grids = {name: {"grid": parameter["choice"]} for name, parameter in list(digits.items())[:3]}
    with pytest.raises(ValueError, match="search: random makes a list of 101000 points"):
        Sweep.model_validate({"space": grids, "trials": 101})
    assert Sweep.model_validate({"space": grids, "trials": 100}).trials == 100
    assert Sweep.model_validate({"space": digits, "trials": 100}).trials == 100
    assert Sweep.model_validate({"space": digits, "search": "tpe", "trials": 200_000}).trials == 200_000


def test_the_number_of_combinations() -> None:
    space = {"a": Parameter(grid=(1, 2)), "b": Parameter(choice=(1, 2, 3)), "c": Parameter(uniform=(0, 1))}
    assert listed(space, "random", 5) == 10
    assert listed({name: space[name] for name in ("a", "b")}, "grid", 5) == 6
