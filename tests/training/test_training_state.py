"""The state of a pack lets go of students that have ended."""

from __future__ import annotations

import pytest
import torch

from tgeokd_ray.training import state as state_module
from tgeokd_ray.training.state import State


def pack(students: int, ended: list[int]) -> State:
    one = {"weight": torch.arange(students, dtype=torch.float64)[:, None].expand(-1, 3).clone()}
    left = torch.full((students,), -1)
    left[ended] = 4
    best = torch.zeros(students, dtype=torch.float64)
    totals = {"loss": torch.arange(students, dtype=torch.float64)}
    places = torch.arange(students)
    return State(one, {"v/weight": 2 * one["weight"]}, {}, {}, dict(one), {}, totals, best, left.clone(), left, places)


@pytest.mark.parametrize("ended", [[3], [0, 4], [1, 2, 3, 4]])
def test_who_has_ended_is_let_go_at_once(ended: list[int]) -> None:
    before = pack(5, ended)
    after = before.compacted()
    left = [k for k in range(5) if k not in ended]
    assert after.active.tolist() == left
    assert after.theta["weight"][:, 0].tolist() == left
    assert after.moments["v/weight"][:, 2].tolist() == [2 * k for k in left]
    assert after.totals["loss"].tolist() == left
    assert after.best_theta["weight"].shape == (5, 3), "what is best is kept of all"
    assert after.compacted() is after


@pytest.mark.parametrize("ended", [[], [0, 1, 2, 3, 4]])
def test_nothing_moves_while_all_train_and_when_nobody_is_left(ended: list[int]) -> None:
    before = pack(5, ended)
    assert before.compacted() is before


def test_what_is_large_is_copied_when_half_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "SMALL_BYTES", 3 * (3 + 3 + 1) * 8)
    assert pack(8, [0]).compacted().active.tolist() == [*range(8)]
    assert pack(8, [0, 2, 4]).compacted().active.tolist() == [*range(8)]
    assert pack(8, [0, 2, 4, 6]).compacted().active.tolist() == [1, 3, 5, 7]
    assert pack(8, [0, 2, 4, 6, 7]).compacted().active.tolist() == [1, 3, 5]
    assert pack(4, [0]).compacted().active.tolist() == [1, 2, 3], "three are small"
