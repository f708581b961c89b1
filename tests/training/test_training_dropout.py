"""Dropout masks: their law, and that nothing but student, step and place decides them."""

from __future__ import annotations

import pytest
import torch

from tgeokd_ray.training.dropout import Dropout

LIKE = torch.zeros(1)
SHARES = tuple((lane, 80 + lane % 3) for lane in range(12))


def masks(dropout: Dropout, step: int, shares: tuple[tuple[int, int], ...] = SHARES) -> torch.Tensor:
    found = dropout.masks(step, shares, LIKE)
    assert found is not None
    return found


def test_units_are_dropped_at_the_rate_and_the_mean_is_kept() -> None:
    found = masks(Dropout(0.3, 200, (0, 1)), step=5)
    assert found.shape == (2, sum(rows for _, rows in SHARES), 200)
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 1 / 0.7]))
    # 388,800 draws: the share of zeros has a standard deviation of .0007
    assert (found == 0).double().mean().item() == pytest.approx(0.3, abs=0.004)
    assert found.mean().item() == pytest.approx(1.0, abs=0.006)


def test_students_steps_lanes_and_units_draw_apart() -> None:
    dropout = Dropout(0.5, 64, (0, 1))
    first, second = masks(dropout, 0)
    assert (first == second).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (masks(dropout, 1)[0] == first).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (first[:80] == first[80:160]).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (first[:, 0] == first[:, 1]).double().mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_e1_a_lane_draws_the_same_on_any_worker(world: int) -> None:
    dropout = Dropout(0.2, 10, (7,))
    (whole,) = masks(dropout, 3)
    of_lane = dict(zip((lane for lane, _ in SHARES), whole.split([rows for _, rows in SHARES]), strict=True))
    for rank in range(world):
        (mine,) = masks(dropout, 3, SHARES[rank::world])
        assert torch.equal(mine, torch.cat([of_lane[lane] for lane, _ in SHARES[rank::world]]))


def test_a_pack_draws_what_each_student_draws_alone() -> None:
    pack = masks(Dropout(0.2, 10, (4, 9)), 3)
    for index, seed in enumerate((4, 9)):
        assert torch.equal(pack[index], masks(Dropout(0.2, 10, (seed,)), 3)[0])


@pytest.mark.parametrize(("rate", "units"), [(0.0, 8), (0.5, 0)])
def test_nothing_to_drop_is_no_mask(rate: float, units: int) -> None:
    assert Dropout(rate, units, (0,)).masks(0, SHARES, LIKE) is None


def test_a_worker_without_rows_has_an_empty_mask() -> None:
    assert masks(Dropout(0.5, 8, (0,)), 0, ((0, 0), (6, 0))).shape == (1, 0, 8)
