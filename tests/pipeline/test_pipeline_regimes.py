"""The learner where the right ratio is known: what wrong code would not reach, in a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tgeokd_ray.pipeline.references import mixtures
from tgeokd_ray.pipeline.study_cell import Cell, StudyCell
from tgeokd_ray.training.ratios import logits_and_gates

SETTINGS = (
    "student.training.epochs=10",
    "student.training.patience=10",
    "distill.constants=[0.5]",
    "distill.more_temperatures=[]",
    "distill.strengths=[1.0]",
    "distill.shifts=[0.0]",
    "distill.temperature=2",
)


def learned(folder: Path, name: str) -> dict[str, Any]:
    told = StudyCell(str(folder), str(folder / "data"), ("tgeo",), settings=SETTINGS)(Cell(name, 0))
    assert "error" not in told, told
    return dict(told["ratio"]["shape"])


def test_stored_ratios_are_the_mixtures_that_they_came_from() -> None:
    weights = np.random.default_rng(1).uniform(0.1, 2.0, size=(7, 4))
    back = mixtures(logits_and_gates(weights).astype(np.float64))
    np.testing.assert_allclose(back, weights / weights.sum(1).mean(), rtol=1e-6)


def test_the_shape_is_that_of_the_reference(tmp_path: Path) -> None:
    """Red for a flipped sign, no hypergradient, mixed-up rows, an outer loss on train rows."""
    found = learned(tmp_path, "synth.soft")
    region = list(found["by_region"].values())
    assert found["correlation"] > 0.75
    assert region[0] < 0.25
    assert region[2] > 0.65


def test_without_regions_there_is_no_shape(tmp_path: Path) -> None:
    found = learned(tmp_path, "synth.null")
    assert found["correlation"] is None, "the reference is a constant"
    assert all(0.4 < share < 0.65 for share in found["by_region"].values()), found
    assert max(found["by_region"].values()) - min(found["by_region"].values()) < 0.1


@pytest.mark.parametrize("name", ["synth.multi", "synth.unlabelled", "synth.drift"])
def test_every_kind_of_regime_runs_through(tmp_path: Path, name: str) -> None:
    settings = (*SETTINGS, "student.training.epochs=2", "distill.fusion.look_ahead=2")
    told = StudyCell(str(tmp_path), str(tmp_path / "data"), ("tgeo",), settings=settings)(Cell(name, 0))
    assert "error" not in told, told
    students = {one["name"]: one for one in told["students"]}
    assert students.keys() == {"labels", "constant-0.5", "reference", "tgeo"}
    assert all(0 < one["test"]["nll"] < 2 for one in students.values())
