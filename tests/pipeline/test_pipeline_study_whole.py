"""A study of a table as its card says: what is shared, what is like a job, what is not known there."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_card import small_card

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.engine import Engine, LocalEngine
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.study import Study, run_study
from tgeokd_ray.pipeline.study_cell import StudyCell
from tgeokd_ray.pipeline.study_grid import StudyGrid
from tgeokd_ray.report.study import study_table
from tgeokd_ray.report.study_page import render_study

SETTINGS = (
    "teacher.training.epochs=1",
    "teacher.model.members=1",
    "student.training.epochs=2",
    "distill.constants=[0.5]",
    "distill.strengths=[1.0]",
    "distill.shifts=[0.0]",
    "distill.fusion.look_ahead=2",
)
RULES = ("ada", "permuted", "reference", "tgeo")
DATASET = "synthetic_ctr.whole"


def local() -> Engine:
    return LocalEngine("cpu", 1)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    root = tmp_path_factory.mktemp("whole")
    card = str(small_card(root, 6000, 6000))
    cards, data = {"synthetic_ctr": card}, {"synthetic_ctr": ()}
    cell = StudyCell(str(root), str(root / "data"), RULES, cards, data, SETTINGS, StudyGrid((1.0,), (1.0,)))
    study = Study("whole", (DATASET,), RULES, 2)
    return run_study(study, cell, root / "studies" / "whole", local, Silent(), "python ..."), root, card


def test_the_table_is_shared_and_a_seed_is_that_of_a_job(done: tuple[dict[str, Any], Path, str]) -> None:
    results, root, card = done
    assert [path.name for path in (root / "tables").iterdir()] == ["synthetic_ctr"]
    assert len([*(root / "tables" / "synthetic_ctr").glob("v*")]) == 1
    cells = [json.loads((root / "studies/whole/cells" / f"{DATASET}-seed{seed}.json").read_text()) for seed in (0, 1)]
    figures = []
    for seed, cell in enumerate(cells):
        job, its_card = resolve({"card": card, "root": str(root / "jobs"), "seed": seed}, settings=SETTINGS)
        told, _ = run_job(job, its_card, Place(local=True), Silent())
        for name in ("labels", "constant-0.5"):
            alone = next(model["auc"] for model in told["models"] if model["name"] == name)
            mine = next(student for student in cell["students"] if student["name"] == name)
            assert mine["test"]["auc"] == alone
            figures.append(alone)
        assert cell["teachers"][0]["auc"] == told["models"][0]["auc"]
    assert len(set(figures)) == 4
    assert results["warnings"] == []


def test_no_ratio_is_known_and_everything_is_shown(done: tuple[dict[str, Any], Path, str]) -> None:
    results = done[0]
    rows = {row["rule"]: row for row in results["rows"]}
    assert rows["reference"]["refused"] == "no ratio is known to be right on a real table as it is"
    assert rows["reference"]["nll"] is None
    assert rows["ada"]["seeds"] == 2
    assert {row["oracle_vs_constant"] for row in results["rows"]} == {None}
    assert not any("needs an explanation" in note for note in results["notes"])
    stream = StringIO()
    study_table(results, Console(file=stream, width=200))
    assert "refused: no ratio is known" in stream.getvalue()
    assert DATASET in render_study(results)


def test_the_same_command_trains_nothing_again(done: tuple[dict[str, Any], Path, str]) -> None:
    results, root, card = done

    def never() -> Engine:
        raise AssertionError("all is there")

    cell = StudyCell(
        str(root), "", RULES, {"synthetic_ctr": card}, {"synthetic_ctr": ()}, SETTINGS, StudyGrid((1.0,), (1.0,))
    )
    again = run_study(Study("whole", (DATASET,), RULES, 2), cell, root / "studies" / "whole", never, Silent())
    assert again["rows"] == results["rows"]


def test_a_table_needs_its_card_and_its_files() -> None:
    study = Study("s", ("criteo.whole", "crito.whole"), ("ada",), 1)
    with pytest.raises(ConfigError) as caught:
        study.check([], ["criteo", "gas"])
    text = str(caught.value)
    assert "criteo.whole is made of the table criteo" in text
    assert "no dataset 'crito.whole'; did you mean 'criteo.whole'?" in text
    study = Study("s", ("criteo.whole",), ("ada",), 1)
    study.check(["criteo"], ["criteo"])
    with pytest.raises(ConfigError, match=r"no dataset 'criteo.whole'"):
        study.check(["criteo"])
