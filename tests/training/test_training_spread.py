"""Percentiles of a ratio from shares in bins, against sorted rows; and the course of one that is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_runs import run

from tgeokd_ray.training import spread

RULES = {"learned": {"kind": "tgeo_one_step", "level": 0.3}, "constant": {"kind": "constant", "value": 0.3}}


def sorted_percentile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value below which `share` of the weight lies."""
    order = np.argsort(values)
    upto = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(upto, share)])


def test_percentiles_are_those_of_the_weighted_rows_to_the_width_of_a_bin() -> None:
    rng = np.random.default_rng(1)
    ratios, weights = rng.beta([[2.0], [0.5]], [[5.0], [0.5]], size=(2, 4000)), rng.random(4000)
    counted = spread.rows_by_ratio(torch.from_numpy(ratios), torch.from_numpy(weights))
    assert counted.sum(1).tolist() == pytest.approx([weights.sum()] * 2)
    for name, found in spread.percentiles(counted).items():
        share = int(name.removeprefix("ratio_p")) / 100
        expected = [sorted_percentile(own, weights, share) for own in ratios]
        assert found.tolist() == pytest.approx(expected, abs=0.01)


def test_the_ends_of_the_range_and_no_rows_at_all() -> None:
    ends = spread.rows_by_ratio(torch.tensor([[0.0, 1.0]]), torch.ones(2))
    assert (ends[0, 0], ends[0, -1], ends.sum()) == (1, 1, 2)
    top = spread.percentiles(spread.rows_by_ratio(torch.full((1, 9), 0.996), torch.ones(9)))
    assert all(0.99 <= value.item() <= 1 for value in top.values())
    nothing = spread.percentiles(torch.zeros(1, spread.BINS))
    assert [value.item() for value in nothing.values()] == [0, 0, 0]


def test_only_what_learns_tells_its_spread_and_parts_of_an_epoch_add_up(small) -> None:  # type: ignore[no-untyped-def]
    learned, constant = (small.spec(name, rule=rule) for name, rule in RULES.items())
    (one,), (other,) = run(learned), run(constant)
    for entry in one.metrics["history"]:
        assert 0 < entry["ratio_p10"] <= entry["ratio_p50"] <= entry["ratio_p90"] < 1
        assert entry["ratio_p10"] < entry["ratio"] < entry["ratio_p90"]
        assert "ratio_spread" not in entry
    assert one.metrics["history"][-1]["ratio_p90"] - one.metrics["history"][-1]["ratio_p10"] > 0.01
    assert not [key for entry in other.metrics["history"] for key in entry if key.startswith("ratio_")]
