"""The grid of a study: how it is written, that every rule is tried on all of it in the same packs, and who wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.pipeline.study import _token
from tgeokd_ray.pipeline.study_cell import Cell, StudyCell
from tgeokd_ray.pipeline.study_grid import GRIDS, StudyGrid, at_rates, read_grid
from tgeokd_ray.pipeline.study_summary import summarise
from tgeokd_ray.training import plan as training_plan
from tgeokd_ray.training.pack import Pack, packed
from tgeokd_ray.training.spec import RunSpec

SETTINGS = (
    "student.training.epochs=2",
    "distill.constants=[0.0,0.5]",
    "distill.strengths=[1.0]",
    "distill.shifts=[0.0,1.5]",
    "distill.fusion.look_ahead=1",
)
RULES = ("ada", "permuted", "recalibrated", "tgeo", "tgeo_one_step")
POINTS = [f"-tau{tau}-lr{rate}" for tau in ("1", "3") for rate in ("0.005", "0.01")]


def test_how_a_grid_is_written() -> None:
    assert read_grid("full") == StudyGrid((1, 2, 4), (1, 0.3))
    assert read_grid("short") is None
    assert read_grid("1.5x1,0.1") == StudyGrid((1.5,), (1, 0.1))
    for wrong in ("half", "1,2", "1,ax1", "1,-2x1", "0x1", "1,1x1", "1x1x1", "x", "infx1", "nanx1"):
        with pytest.raises(ConfigError, match="is no grid") as caught:
            read_grid(wrong)
        assert "full, short, one" in str(caught.value)


def test_every_rate_is_a_job_of_its_own() -> None:
    job = Job()
    assert [(ending, one) for ending, one in at_rates(job, None)] == [("", job)]
    assert [(ending, one) for ending, one in at_rates(job, GRIDS["one"])] == [("", job)]
    (first, same), (second, slower) = at_rates(job, StudyGrid((1.0,), (1.0, 0.3)))
    assert (first, second) == ("-lr0.005", "-lr0.0015")
    assert same == job
    assert slower.student.training.optimizer.learning_rate == pytest.approx(0.0015)
    assert slower.student.training.optimizer.kind == job.student.training.optimizer.kind
    assert slower.teacher == job.teacher


def test_a_grid_decides_a_cell_and_none_leaves_its_token_alone() -> None:
    task = StudyCell("a", "b", ("ada",), settings=("seed=1",))
    assert _token(task) == "cc6da644ef59626d", "as it was before there were grids"
    assert len({_token(replace(task, grid=grid)) for grid in GRIDS.values()}) == 3


def test_the_whole_grid_of_every_rule_trains_in_the_same_packs(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    packs: list[Pack] = []

    def watched(specs: Sequence[RunSpec]) -> list[Pack]:
        packs.extend(found := packed(specs))
        return found

    monkeypatch.setattr(training_plan, "packed", watched)
    grid = StudyGrid((1.0, 3.0), (1.0, 2.0))
    told = StudyCell(str(tmp_path), str(tmp_path / "data"), RULES, settings=SETTINGS, grid=grid)(Cell("synth.soft", 0))
    assert "error" not in told, told
    names = [one["name"] for one in told["students"]]
    assert not [one for one in told["students"] if "error" in one]
    for rule in ("constant-0", "constant-0.5", "ada", "reference", "tgeo_one_step", "recalibrated-0.5"):
        assert {name for name in names if name.startswith(f"{rule}-tau")} == {rule + point for point in POINTS}, rule
    assert {"labels-lr0.005", "labels-lr0.01", "tgeo-lr0.005", "tgeo-lr0.01", "permuted"} < set(names)
    assert len(names) == len(set(names))
    assert set(told["ratio"]) == {f"shape{point}" for point in POINTS}
    for pack, kinds in zip(packs, ({"labels", "constant", "ada"}, {"given"}), strict=False):
        assert {spec.temperature for spec in pack.specs} == {1.0, 3.0}
        assert {spec.optimizer.learning_rate for spec in pack.specs} == {0.005, 0.01}
        assert {spec.rule["kind"] for spec in pack.specs} == kinds
    _chosen_alike(told)


def _chosen_alike(told: dict[str, Any]) -> None:
    """Each rule's point is its best on valid; the learners of both rates had the same constant to beat."""
    rows = {row["rule"]: row for row in summarise([told])[0]}
    students = {one["name"]: one for one in told["students"]}
    for rule in ("ada", "reference", "tgeo_one_step"):
        best = min((f"{rule}{point}" for point in POINTS), key=lambda name: students[name]["valid"]["nll"])
        assert rows[rule]["nll"] == students[best]["test"]["nll"]
        assert rows[rule]["chosen"] == best.removeprefix(f"{rule}-").replace("-lr", ", lr ").replace("tau", "tau ")
    first, second = (students[f"tgeo-lr{rate}"]["choice"] for rate in ("0.005", "0.01"))
    constants = [one for name, one in students.items() if name.startswith("constant-")]
    assert first["constant"] == second["constant"]
    assert first["constant"]["valid"] == min(one["valid"]["nll"] for one in constants)
    assert len(first["candidates"]) == len(second["candidates"]) == 4
    both = [students["tgeo-lr0.005"], students["tgeo-lr0.01"]]
    assert rows["tgeo.each"]["nll"] == min(both, key=lambda one: one["valid"]["nll"])["test"]["nll"]
    assert rows["tgeo"]["chosen"].startswith("strength")
    assert ", lr " in rows["tgeo"]["chosen"]
