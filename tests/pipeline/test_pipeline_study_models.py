"""What a study keeps of its models: teachers against the regime's own logits, and bins that merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.pipeline.study_cell import Cell, StudyCell
from tgeokd_ray.pipeline.study_grid import GRIDS
from tgeokd_ray.pipeline.study_models import mean, pooled, teachers
from tgeokd_ray.pipeline.study_summary import summarise
from tgeokd_ray.tables.regimes.catalogue import build

SETTINGS = ("student.training.epochs=1", "distill.constants=[0.0,0.5]")


def evaluated(seed: int, rows: int) -> Evaluation:
    rng = np.random.default_rng(seed)
    evaluation = Evaluation(3)
    evaluation.add(rng.normal(size=(rows, 3)).astype(np.float32) * 2, rng.integers(0, 3, rows))
    return evaluation


def test_pooled_bins_are_those_of_one_pass_over_all_rows() -> None:
    parts = [evaluated(seed, rows) for seed, rows in ((0, 500), (1, 40), (2, 3))]
    found = pooled([part.results()["calibration"] for part in parts])
    whole = parts[0].merge(parts[1]).merge(parts[2]).results()["calibration"]
    assert found is not None
    assert len(found) == len(whole)
    for one, other in zip(found, whole, strict=True):
        assert one == pytest.approx(other)
    assert pooled([whole, None]) is None
    assert pooled([]) is None


def test_a_mean_needs_every_value() -> None:
    assert mean([1.0, 2.0]) == 1.5
    assert mean([1.0, None]) is None
    assert mean([]) is None


def test_a_cell_tells_of_its_teachers_and_of_every_student(tmp_path: Path) -> None:
    task = StudyCell(str(tmp_path), str(tmp_path / "data"), ("ada",), settings=SETTINGS, grid=GRIDS["one"])
    told = task(Cell("synth.multi", 0))
    regime = build("synth.multi")
    assert regime.logits is not None
    assert [one["name"] for one in told["teachers"]] == ["teacher 0", "teacher 1", "teacher 2"]
    rows = regime.split(0)["test"]
    for number, one in enumerate(told["teachers"]):
        direct = Evaluation(len(regime.classes))
        direct.add(regime.logits[rows, number].astype(np.float32), regime.labels("test")[rows])
        results = direct.results()
        for name in ("nll", "auc", "accuracy"):
            assert one[name] == pytest.approx(results[name], rel=1e-6), name
        assert one["parameters"] is None
        assert sum(part["rows"] for part in one["calibration"]) == len(rows)
    row = {row["rule"]: row for row in summarise([told])[0]}["ada"]
    ada: dict[str, Any] = next(one for one in told["students"] if one["name"] == "ada")
    assert row["parameters"] == ada["parameters"] > 0
    for one, other in zip(row["calibration"], ada["calibration"], strict=True):
        assert one == pytest.approx(other)
    assert sum(part["rows"] for part in row["calibration"]) == len(rows)


def test_teachers_are_means_over_seeds_and_absent_from_old_cells() -> None:
    bins = [{"rows": 2.0, "confidence": 0.7, "accuracy": 0.5}]
    one = {"name": "teacher", "parameters": 9, "nll": 0.5, "auc": 0.7, "accuracy": None, "calibration": bins}
    cells = [{"dataset": "d", "teachers": [one]}, {"dataset": "d", "teachers": [{**one, "nll": 0.7}]}]
    (found,) = teachers([*cells, {"dataset": "old"}])["d"]
    assert found["nll"] == pytest.approx(0.6)
    assert found["accuracy"] is None
    assert found["calibration"][0]["rows"] == 4
    assert "old" not in teachers([{"dataset": "old"}])
