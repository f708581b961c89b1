"""A study of a table as its card says: what is shared, what is like a job, what is not known there."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import results_page
from rich.console import Console
from small_card import small_card

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.engine import Engine, LocalEngine
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.study import Study, run_study
from tgeokd_ray.pipeline.study_cell import Cell, StudyCell
from tgeokd_ray.pipeline.study_grid import StudyGrid
from tgeokd_ray.pipeline.study_start import whole_of
from tgeokd_ray.report.study import study_table
from tgeokd_ray.report.study_page import family, render_study

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
DATASETS = Path(__file__).resolve().parents[2] / "datasets"


def local() -> Engine:
    return LocalEngine("cpu", 1)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    root = tmp_path_factory.mktemp("whole")
    card = str(small_card(root, 6000, 6000))
    cards: dict[str, str] = {"synthetic_ctr": card}
    cell = StudyCell(str(root), str(root / "data"), RULES, cards, {}, SETTINGS, StudyGrid((1.0,), (1.0,)))
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

    cell = StudyCell(str(root), "", RULES, {"synthetic_ctr": card}, {}, SETTINGS, StudyGrid((1.0,), (1.0,)))
    study, folder = Study("whole", (DATASET,), RULES, 2), root / "studies" / "whole"
    again = run_study(study, cell, folder, never, Silent())
    assert again["rows"] == results["rows"]
    text = Path(card).read_text()
    Path(card).write_text(f"{text}\n# changed\n")
    try:
        with pytest.raises(AssertionError, match="all is there"):
            run_study(study, cell, folder, never, Silent())
    finally:
        Path(card).write_text(text)


def test_other_rows_under_the_same_name_are_another_table(tmp_path: Path) -> None:
    card, file = tmp_path / "rows.yaml", tmp_path / "rows.csv"
    card.write_text(
        "name: rows\nformat: {kind: csv}\nlabel: {column: y, classes: ['0', '1']}\ncolumns: {numeric: [x]}\n"
        "splits: {kind: hash, salt: s, parts: {teacher: 0.4, train: 0.2, outer: 0.1, valid: 0.1, test: 0.2}}\n"
    )
    place = StudyCell(str(tmp_path), "", (), {"rows": str(card)}, {"rows": (str(file),)}).place(Cell("rows.whole", 0))
    with pytest.raises(DataError, match=r"rows.csv: no such file"):
        place.identity(lambda _: [])
    file.write_text("x,y\n1,0\n2,1\n")
    first = place.identity(lambda _: [])
    assert place.identity(lambda _: []) == first
    file.write_text("x,y\n1,0\n2,1\n3,1\n")
    assert place.identity(lambda _: []) != first


def test_a_teacher_from_elsewhere_takes_the_place_of_one_of_ours(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, odds = random.normal(size=(2, 1200))
    card, file, told = tmp_path / "rows.yaml", tmp_path / "rows.parquet", tmp_path / "told.parquet"
    label = np.where(x + odds > 0, "1", "0")
    pq.write_table(pa.table({"id": range(1200), "x": x, "y": label}), file)
    pq.write_table(pa.table({"row_id": range(1200), "logit_0": np.zeros(1200), "logit_1": 3 * x}), told)
    card.write_text(
        "name: rows\nformat: {kind: parquet}\nrow_id: {kind: column, column: id}\n"
        "label: {column: y, classes: ['0', '1']}\ncolumns: {numeric: [x]}\n"
        "splits: {kind: hash, salt: s, parts: {train: 0.5, outer: 0.15, valid: 0.15, test: 0.2}}\n"
    )
    settings = (*SETTINGS, f"teacher.imported.file={told}", "teacher.imported.name=theirs")
    cell = StudyCell(
        str(tmp_path), "", ("tgeo",), {"rows": str(card)}, {"rows": (str(file),)}, settings, StudyGrid((1.0,), (1.0,))
    )
    results = run_study(Study("s", ("rows.whole",), ("tgeo",), 2), cell, tmp_path / "s", local, Silent())
    assert results["warnings"] == []
    assert {row["rule"]: row["seeds"] for row in results["rows"]}["tgeo"] == 2
    assert {path.name for path in (tmp_path / "logits").iterdir()} == {"rows.whole-seed0", "rows.whole-seed1"}
    assert not (tmp_path / "teachers").exists()
    assert results["extra"]["teachers"]["rows.whole"][0]["auc"] > 0.7


def test_the_pages_of_results_show_it_too(done: tuple[dict[str, Any], Path, str]) -> None:
    results, root, _ = done
    told = results_page.read(root / "studies" / "whole" / "study.parquet")
    assert told["rows"] == results["rows"]
    text = results_page.part(told)
    assert f"`{DATASET}`" in text
    assert "| `reference` | 0 |  |  |  |  |  |  | refused: no ratio is known" in text
    assert f"figures/whole-{DATASET}-differences.svg" in {*results_page.drawings(told)}


def test_whole_tables_are_families_of_their_own() -> None:
    names = ["nsl_kdd.whole", "nsl_kdd.both", "nsl_kdd.both.20000", "clicks.2024.whole", "clicks.2025.whole", "criteo"]
    found = [family(name) for name in names]
    assert found[0] == "nsl_kdd.whole"
    assert found[1] == found[2] == "nsl_kdd.both"
    assert found[3:] == names[3:]
    assert all((one == name) for one, name in zip(found, names, strict=True) if whole_of(name) is not None)


def test_a_table_needs_its_card_and_its_files(tmp_path: Path) -> None:
    cards = {name: str(DATASETS / f"{name}.yaml") for name in ("criteo", "gas")}
    study = Study("s", ("criteo.whole", "crito.whole"), ("ada",), 1)
    with pytest.raises(ConfigError) as caught:
        study.check(["gass"], cards)
    text = str(caught.value)
    assert "data: no table 'gass'; did you mean 'gas'?" in text
    assert "criteo.whole is made of the table criteo; expected --data criteo=FILE" in text
    assert "no dataset 'crito.whole'; did you mean 'criteo.whole'?" in text
    study = Study("s", ("criteo.whole",), ("ada",), 1)
    study.check(["criteo"], cards)
    with pytest.raises(ConfigError, match=r"no dataset 'criteo.whole'"):
        study.check(["criteo"])
    named = tmp_path / "criteo.yaml"
    named.write_text(f"files: [train.txt]\n{Path(cards['criteo']).read_text()}")
    study.check([], {"criteo": str(named)})
