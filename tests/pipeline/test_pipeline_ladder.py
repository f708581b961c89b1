"""A ladder of sizes: how sizes are written, what its seeds train, that it goes on, and where the knee is."""

from __future__ import annotations

import json
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from small_card import small_card

from tgeokd_ray.artifacts import open_artifact, read_json
from tgeokd_ray.config.job import Job
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, UserError
from tgeokd_ray.events import Silent
from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.models.sizing import Inputs
from tgeokd_ray.pipeline.engine import Engine, LocalEngine
from tgeokd_ray.pipeline.ladder import METADATA, Ladder, run_ladder
from tgeokd_ray.pipeline.ladder_sizes import Size, read_sizes, students
from tgeokd_ray.pipeline.ladder_summary import summarise
from tgeokd_ray.report.ladder import for_the_card, knee_told, ladder_table
from tgeokd_ray.report.ladder_page import render_ladder
from tgeokd_ray.tables.cards import Card

SIZES = "1/4,1/12,3000,10"
QUICK = (
    "teacher.training.epochs=1",
    "teacher.model.members=1",
    "student.training.epochs=1",
    "distill.constants=[0.5,1.0]",
)


def local() -> Engine:
    return LocalEngine("cpu", 1)


def never() -> Engine:
    raise AssertionError("all is there")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job, Card]:
    folder = tmp_path_factory.mktemp("ladder")
    job, card = resolve({"card": str(small_card(folder, 6000, 6000)), "root": str(folder / "root")}, settings=QUICK)
    return folder / "root", job, card


@pytest.fixture(scope="module")
def ladder(asked: tuple[Path, Job, Card]) -> tuple[dict[str, Any], Path]:
    root, job, card = asked
    (root / "runs").mkdir(parents=True)
    return run_ladder(Ladder("sizes", read_sizes(SIZES), 2), job, card, root, local, Silent(), "python ...")


def test_how_sizes_are_written() -> None:
    assert read_sizes("1/4, 0.01,5000") == (
        Size("1/4", Fraction(1, 4)),
        Size("0.01", Fraction(1, 100)),
        Size("5000", Fraction(5000)),
    )
    quarter, hundredth, number = read_sizes("1/4,0.01,5000")
    assert [one.most(1000) for one in (quarter, hundredth, number)] == [250, 10, 5000]
    assert [one.label for one in (quarter, hundredth, number)] == ["1of4", "0p01", "5000"]
    with pytest.raises(ConfigError) as caught:
        read_sizes("1/4,half,-3,1.5,0.25,1/0,")
    for wrong in ("'half'", "'-3'", "'1.5'", "'1/0'", "''", "'0.25' stands there twice"):
        assert wrong in str(caught.value)
    with pytest.raises(ConfigError, match="numbers of parameters"):
        quarter.most(None)


def test_images_and_what_no_student_fits_are_refused() -> None:
    inputs = Inputs(num_numeric=3, num_ids=1000, num_categorical=2, num_classes=2)
    with pytest.raises(ConfigError, match="the smallest mlp for this table has 1,010 parameters"):
        students(Job(), read_sizes("1/100"), inputs, 5000)
    for changes in ({"kind": "resnet", "depth": 8}, {"members": 2}):
        model = Job().student.model.model_copy(update=changes)
        job = Job(student=Job().student.model_copy(update={"model": model}))
        with pytest.raises(ConfigError, match="single networks for tables"):
            students(job, read_sizes("1/4"), inputs, 5000)


def test_every_size_has_its_students_and_their_figures(
    ladder: tuple[dict[str, Any], Path], asked: tuple[Path, Job, Card]
) -> None:
    results, folder = ladder
    root, teacher = asked[0], results["teacher"]
    assert json.loads((folder / "ladder.json").read_text()) == results
    assert [rung["size"] for rung in results["rungs"]] == ["1/4", "1/12", "3000", "10"]
    assert results["rungs"][3]["model"] is None
    assert results["warnings"] == ["size 10: no student for this table has 10 parameters or fewer"]
    cells = [json.loads((folder / "cells" / f"seed{seed}.json").read_text()) for seed in (0, 1)]
    for rung, label in zip(results["rungs"][:3], ("1of4", "1of12", "3000"), strict=True):
        assert rung["parameters"] <= rung["most"]
        name = f"constant-{rung['constant']}"
        auc = {}
        for arm in (name, "labels"):
            found = [open_artifact(root / "students" / f"sizes-seed{s}-{label}-{arm}" / "v000001") for s in (0, 1)]
            auc[arm] = [read_json(one.file("metrics.json"))["test"]["auc"] for one in found]
            assert {read_json(one.file("model.json"))["model"]["embedding"] for one in found} == {
                rung["model"]["embedding"]
            }
        assert rung["distilled"]["auc"] == pytest.approx(sum(auc[name]) / 2, abs=1e-12)
        assert rung["labels"]["auc"] == pytest.approx(sum(auc["labels"]) / 2, abs=1e-12)
        assert (rung["gain"], rung["low"], rung["high"]) == paired_difference(auc[name], auc["labels"])
        assert rung["kept"]["auc"] == pytest.approx(rung["distilled"]["auc"] / teacher["test"]["auc"])
        assert rung["latency_ms"] > 0
    assert len({cell["teacher"]["test"]["auc"] for cell in cells}) == 2, "a seed has its own teacher"
    assert teacher["parameters"] > results["rungs"][0]["parameters"] * 3.9


def test_the_same_ladder_goes_on_and_another_starts_anew(
    ladder: tuple[dict[str, Any], Path], asked: tuple[Path, Job, Card]
) -> None:
    root, job, card = asked
    again, folder = run_ladder(Ladder("sizes", read_sizes(SIZES), 2), job, card, root, never, Silent(), "python ...")
    assert {**again, "extra": 0} == {**ladder[0], "extra": 0}
    (folder / "cells" / "seed1.json").write_text("{")
    other, _ = run_ladder(Ladder("sizes", read_sizes(SIZES), 2), job, card, root, local, Silent())
    figures = [[rung["distilled"] for rung in one["rungs"]] for one in (other, again)]
    assert figures[0] == figures[1], "from the artifacts that are there"
    with pytest.raises(AssertionError, match="all is there"):
        run_ladder(Ladder("sizes", read_sizes("1/5"), 2), job, card, root, never, Silent())


def test_what_lies_in_the_parquet_file(ladder: tuple[dict[str, Any], Path]) -> None:
    folder = ladder[1]
    results = json.loads((folder / "ladder.json").read_text())
    table = pq.read_table(folder / "ladder.parquet")
    assert table.column("size").to_pylist() == [rung["size"] for rung in results["rungs"]]
    told = json.loads(table.schema.metadata[METADATA])
    assert told == {name: value for name, value in results.items() if name != "rungs"}


def test_a_teacher_of_unknown_size_has_no_shares(asked: tuple[Path, Job, Card]) -> None:
    root, job, card = asked
    imported = job.teacher.imported.model_copy(update={"file": str(root / "teacher.parquet")})
    elsewhere = job.model_copy(update={"teacher": job.teacher.model_copy(update={"imported": imported})})
    with pytest.raises(UserError, match="its size is not known"):
        run_ladder(Ladder("elsewhere", read_sizes("5000,1/4"), 1), elsewhere, card, root, local, Silent())


def cell(valid: dict[str, float], metric: str = "auc") -> dict[str, Any]:
    """A seed whose sizes have these values on valid, by the constant 1, and figures on test that are no better."""
    test = {"auc": 0.7, "nll": 0.5, "accuracy": 0.8, "macro_f1": 0.6}
    rungs = []
    for size, value in valid.items():
        known = [{"name": "labels", "valid": {metric: 0.1}, "test": test}]
        known.append({"name": "constant-1", "valid": {metric: value}, "test": test})
        model = {"kind": "mlp", "hidden": [int(size)], "embedding": 1}
        rungs.append(
            {"size": size, "most": int(size), "model": model, "parameters": int(size), "latency_ms": 1.0}
            | {"students": known}
        )
    teacher = {"parameters": 10_000, "valid": test, "test": test, "latency_ms": 2.0}
    return {"metric": metric, "teacher": teacher, "rungs": rungs}


def test_the_knee_is_the_smallest_within_a_standard_error() -> None:
    noise = (-0.002, 0.0, 0.002)  # of the second size against the first: standard error .00115
    close = [cell({"900": 0.75, "400": 0.749 + e, "100": 0.74}) for e in noise]
    assert summarise(close)["knee"] == "400"
    apart = [cell({"900": 0.75, "400": 0.748 + e, "100": 0.74}) for e in noise]
    assert summarise(apart)["knee"] == "900"
    smaller_is_better = [cell({"900": 0.45, "400": 0.449 + e, "100": 0.46}, "nll") for e in noise]
    assert summarise(smaller_is_better)["knee"] == "400"
    assert summarise([cell({"100": 0.74, "900": 0.7399})])["knee"] == "100", "one seed: the best"


def test_a_seed_that_fails_is_told_and_the_first_error_is_raised_where_all_do(asked: tuple[Path, Job, Card]) -> None:
    root, job, card = asked
    rate = job.teacher.training.optimizer.model_copy(update={"learning_rate": 1e30})
    training = job.teacher.training.model_copy(update={"optimizer": rate})
    wild = job.model_copy(update={"teacher": job.teacher.model_copy(update={"training": training})})
    with pytest.raises(UserError, match="finite"):
        run_ladder(Ladder("wild", read_sizes("1/4"), 1), wild, card, root, local, Silent())


def test_what_the_terminal_and_the_page_show(ladder: tuple[dict[str, Any], Path]) -> None:
    results = ladder[0]
    stream = StringIO()
    ladder_table(results, Console(file=stream, width=150))
    text = stream.getvalue()
    rung = results["rungs"][1]
    for shown in ("teacher", "1/12", f"{rung['parameters']:,}", f"{rung['distilled']['auc']:.4f}", "knee: "):
        assert shown in text
    assert f"{rung['kept']['auc']:.1%}" in text
    assert "warning: size 10" in text
    knee = next(one for one in results["rungs"] if one["size"] == results["knee"])
    told = yaml.safe_load(text.partition("card: ")[2].partition(", trained by")[0])
    assert {"kind", "hidden", "embedding"} == told["students"]["recommended"].keys() <= knee["model"].keys()
    assert list(knee["model"]["hidden"]) == told["students"]["recommended"]["hidden"]
    assert for_the_card({**results, "seeds": 1}) is None
    page = render_ladder(results)
    assert page == render_ladder(json.loads(json.dumps(results)))
    assert page.count("<svg") == 2
    assert "AUC by parameters" in page
    assert "AUC by CPU time" in page
    assert knee_told(results).split(",")[0].split(" ")[0] == results["knee"]
    assert "python ..." in page


def test_no_knee_where_the_metric_is_undefined() -> None:
    undefined = cell({"900": 0.7})
    undefined["rungs"][0]["students"][1]["valid"]["auc"] = None
    results = summarise([undefined])
    assert results["knee"] is None
    assert knee_told({**results, "seeds": 1}).startswith("none: AUC is undefined")
