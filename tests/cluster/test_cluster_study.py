"""A study on Ray: each cell is one task, and says what it says in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_card import small_card

from tgeokd_ray.cluster.engine import open_engine
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.engine import Engine, LocalEngine
from tgeokd_ray.pipeline.study import Study, run_study
from tgeokd_ray.pipeline.study_cell import StudyCell

RULES = ("tgeo", "wls")
SETTINGS = (
    "teacher.training.epochs=1",
    "student.training.epochs=2",
    "distill.constants=[0.5]",
    "distill.more_temperatures=[]",
    "distill.strengths=[1.0]",
    "distill.shifts=[0.0]",
    "distill.fusion.look_ahead=1",
)


def figures(folder: Path, engine: Engine, card: Path) -> dict[str, Any]:
    """What study.json holds but the time that it took."""
    study = Study("s", ("synth.soft", "clicks.whole"), RULES, 2)
    task = StudyCell(str(folder), str(folder / "data"), RULES, {"clicks": str(card)}, settings=SETTINGS)
    results = run_study(study, task, folder / "s", lambda: engine, Silent())
    del results["extra"]["seconds"], results["extra"]["cell_seconds"]
    return results


@pytest.mark.ray
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("cluster")
def test_a_study_on_ray_says_what_one_process_says(tmp_path: Path) -> None:
    options: dict[str, Any] = {"address": None, "workers": 1, "device": "cpu", "threads": 1, "feed": "direct"}
    ray = open_engine(**options, root=tmp_path, verbose=False, progress=Silent())
    card = small_card(tmp_path, 4000, 4000)
    on_ray, here = figures(tmp_path / "ray", ray, card), figures(tmp_path / "here", LocalEngine("cpu", 1), card)
    assert on_ray == here
    for place in ("ray", "here"):
        assert len([*(tmp_path / place / "tables" / "synthetic_ctr").glob("v*")]) == 1, "cells share the table"
    assert {row["seeds"] for row in here["rows"] if row["refused"] is None} == {2}
    assert {"reference", "tgeo", "wls"} < {row["rule"] for row in here["rows"]}
