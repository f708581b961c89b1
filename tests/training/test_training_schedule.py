"""The learning rate over the steps of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_table import Small
from training_runs import Killed, StopsAt, run

from tgeokd_ray.training.run import _lowered
from tgeokd_ray.training.steps import Schedule

RATES = torch.tensor([1.0, 0.5], dtype=torch.float64)


def test_it_rises_then_stays_then_is_a_tenth_from_each_of_these_steps_on() -> None:
    schedule = Schedule(RATES, warm_up=4, lowered=(10, 12))
    found = torch.stack([schedule(step) for step in range(14)])
    expected = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(found[:, 1], found[:, 0] / 2, rtol=1e-12, atol=0)
    assert schedule.take([1])(13).tolist() == pytest.approx([0.005])


def test_shares_of_the_epochs_are_whole_epochs(small: Small) -> None:
    spec = small.spec(epochs=5, lower_at=(0.5, 0.8))
    assert _lowered(spec, 6) == (18, 24)
    assert spec.arguments()["lower_at"] == [0.5, 0.8]
    assert "lower_at" not in small.spec().arguments()


def test_a_run_that_was_interrupted_lowers_it_where_it_would_have(small: Small) -> None:
    spec = small.spec(epochs=3, lower_at=(0.6,), checkpoint_seconds=1e-9)
    with pytest.raises(Killed):
        run(spec, progress=StopsAt(14, Killed()))
    (continued,) = run(spec)
    (whole,) = run(replace(spec, artifact="whole", name="whole"))
    (level,) = run(replace(spec, artifact="level", name="level", lower_at=()))
    nll = [one.metrics["valid"]["nll"] for one in (continued, whole, level)]
    assert nll[0] == nll[1] != nll[2]
