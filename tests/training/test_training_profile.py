"""A profile says where the time of a step goes and changes nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import run
from worker_ranks import parameters

from tgeokd_ray.events import Silent
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.training.profile import NOTHING, OUTERMOST, STEPS, region
from tgeokd_ray.training.spec import Fusion


class Told(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, str] = {}

    def finished(self, stage: str, note: str = "") -> None:
        self.notes[stage] = note


@pytest.mark.timeout(120)
def test_regions_cover_a_step_and_the_numbers_stay(small, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """54 bilevel steps, every second with an outer one, on a table that moves row by row."""
    optimizer = OptimizerSpec("adam", 1e-2, embedding="rowwise_adagrad", embedding_rate=4.0)
    fusion = Fusion(every=2, batch_rows=100, warm_up=0.0, look_ahead=3)
    spec = small.spec(epochs=9, patience=9, optimizer=optimizer, fusion=fusion)
    (plain,) = run(spec)
    places = {"root": str(tmp_path / "other"), "folder": str(tmp_path / "run")}
    told = Told()
    (profiled,) = run(replace(spec, profile=True, **places), progress=told)
    assert profiled.digest == plain.digest
    expected = parameters(plain)
    assert all(torch.equal(value, expected[name]) for name, value in parameters(profiled).items())

    written = json.loads((tmp_path / "run" / "profile" / "tgeo.json").read_text())
    rows = {row["region"]: row for row in written["regions"]}
    assert written["steps"] == STEPS
    assert set(rows) == {*OUTERMOST, "whole", "rest"}
    assert rows["whole"]["share"] == 1.0
    assert rows["forward"]["calls"] == 1.0
    assert rows["second order"]["calls"] == 0.5
    assert 0 <= rows["rest"]["share"] < 0.5
    assert sum(row["share"] for name, row in rows.items() if name != "whole") == pytest.approx(1.0, abs=0.01)
    trace = json.loads((tmp_path / "run" / "profile" / "tgeo.trace.json").read_text())
    assert "step/second order" in {event.get("name") for event in trace["traceEvents"]}
    assert "second order" in told.notes["profile"]
    assert not (small.root / "runs" / "small" / "profile").exists(), "nobody asked for one"


def test_a_short_run_is_profiled_as_far_as_it_goes(small) -> None:  # type: ignore[no-untyped-def]
    (finished,) = run(small.spec(rule={"kind": "labels"}, epochs=2, profile=True))
    assert finished.error is None
    written = json.loads((small.root / "runs" / "small" / "profile" / "tgeo.json").read_text())
    assert 0 < written["steps"] < STEPS


def test_a_region_is_nothing_where_nobody_profiles() -> None:
    assert region("forward") is NOTHING
