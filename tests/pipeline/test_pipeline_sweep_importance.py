"""What matters in a sweep: shares of parameters, and why there may be none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tgeokd_ray.config.space import Parameter
from tgeokd_ray.pipeline.sweep_importance import importance
from tgeokd_ray.pipeline.sweep_journal import Trial, trial_name

SPACE = {
    "rate": Parameter(uniform=(0, 1)),
    "hidden": Parameter(choice=([4], [8, 4], [16])),
    "rule": Parameter(choice=("labels", "constant")),
    "constant": Parameter(uniform=(0, 1), when={"rule": "constant"}),
    "seed": Parameter(choice=(1,)),
}


def trials(number: int, value: Callable[[dict[str, Any]], float]) -> list[Trial]:
    """So many finished trials of the space at random, each as good as `value` says."""
    found = []
    for k in range(number):
        generator = np.random.default_rng([7, k])
        point = {name: parameter.draw(generator) for name, parameter in SPACE.items()}
        if point["rule"] != "constant":
            del point["constant"]
        found.append(Trial(trial_name(point), point, "finished", value=value(point)))
    return found


def shares(told: Sequence[Trial], *, higher_is_better: bool = True) -> dict[str, float]:
    pytest.importorskip("optuna")
    found, why = importance(SPACE, told, higher_is_better=higher_is_better)
    assert why is None
    assert found is not None
    return found


def test_it_is_of_what_all_finished_trials_have() -> None:
    """Neither of conditional parameters, nor of trials that were stopped, nor of what was not varied."""
    told = trials(60, lambda point: -abs(point["rate"] - 0.3))
    stopped = Trial("t-stopped", {"rule": "labels"}, "stopped", value=5.0)
    found = shares([*told, stopped])
    assert set(found) == {"rate", "hidden", "rule"}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)
    assert found["rate"] > 0.8


def test_it_is_of_the_best_whatever_better_means() -> None:
    """The rate decides who is large, the widths who is small."""

    def value(point: dict[str, Any]) -> float:
        rate = float(point["rate"])
        return -10 - 1e4 * rate % 1 if point["hidden"] == [8, 4] else -abs(rate - 0.3)

    told = trials(120, value)
    assert next(iter(shares(told))) == "rate"
    assert next(iter(shares(told, higher_is_better=False))) == "hidden"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (trials(3, lambda point: point["rate"]), "3 finished trials say nothing of it, 4 are needed"),
        (trials(9, lambda point: 0.5), "all trials are equally good"),
        (
            [Trial(str(k), {"rate": 0.5}, "finished", value=float(k)) for k in range(5)],
            "no parameter that all trials have was varied",
        ),
        (
            [Trial("a", {"rate": 0.1}, "finished", 0.1), Trial("b", {"rule": "labels"}, "finished", 0.2)] * 2,
            "no parameter that all trials have was varied",
        ),
    ],
)
def test_why_there_is_none(told: list[Trial], why: str) -> None:
    assert importance(SPACE, told, higher_is_better=True) == (None, why)


def test_it_needs_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    found, why = importance(SPACE, trials(9, lambda point: point["rate"]), higher_is_better=True)
    assert found is None
    assert "pip install 'tgeokd-ray[tune]'" in str(why)
