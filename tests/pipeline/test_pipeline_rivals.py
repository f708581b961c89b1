"""Rivals in jobs and studies: what their students have otherwise, and where a rule is refused with its reason."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tgeokd_ray.config.job import Rival
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.objectives.rules import RULES as KINDS
from tgeokd_ray.pipeline import rivals
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.plans import students_plan
from tgeokd_ray.pipeline.rivals import RIVALS, refused
from tgeokd_ray.pipeline.study import RULES, Study, run_study
from tgeokd_ray.pipeline.study_cell import Cell, StudyCell
from tgeokd_ray.report.study import study_table
from tgeokd_ray.training.pack import packed
from tgeokd_ray.training.spec import RunSpec

SETTINGS = ("student.training.epochs=2", "distill.more_temperatures=[]", "distill.constants=[0.5]")


def controls(num_classes: int, *settings: str) -> dict[str, RunSpec]:
    job, _ = resolve({}, settings=[f"distill.rivals={list(RIVALS)}", *settings])
    schema = {"classes": [str(c) for c in range(num_classes)]}
    artifact = SimpleNamespace(path=Path("there"), label="tables/t/v1", manifest=SimpleNamespace(schema=schema))
    plan = students_plan(job, "small", artifact, [artifact], Path("root"), Path("folder"))  # type: ignore[arg-type, list-item]
    return {spec.name: spec for spec in plan.controls}


def test_a_job_knows_the_rivals_that_there_are() -> None:
    assert set(get_args(Rival)) == set(RIVALS)
    assert set(RIVALS) < set(KINDS)
    assert set(RIVALS) < set(RULES)


def test_rules_that_learn_from_outer_rows_do_not_train_on_them() -> None:
    found = controls(3, "distill.fusion.every=5", "distill.fusion.warm_up=0.1", "distill.fusion.batch_rows=77")
    for rule in ("dkd", "dist"):
        assert {name for name in found if name.startswith(rule)} == {f"{rule}-{v:g}" for v in (0.25, 0.5, 0.75, 0.9, 1)}
        assert found[f"{rule}-0.25"].rule == {"kind": rule, "value": 0.25}
    for rule in (one for one in RIVALS if one in found):
        assert found[rule].splits == (("train",) if rule in ("rw", "bikd") else ("train", "outer")), rule
    rw, bikd = found["rw"].fusion, found["bikd"].fusion
    assert (rw.every, rw.warm_up, rw.look_ahead, rw.batch_rows) == (1, 0.0, 1, 77), "a virtual step at every step"
    assert (bikd.every, bikd.warm_up, bikd.look_ahead, bikd.batch_rows) == (5, 0.1, 1, 77)
    together = [{spec.name for spec in pack.specs} for pack in packed(list(found.values()))]
    assert {"rw"} in together
    assert {"mgda"} in together
    assert {"bikd"} in together
    assert {"constant-0.5", "anl", "dkd-1", "dist-0.9"} < max(together, key=len)


def test_a_job_refuses_what_is_undefined_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError) as caught:
        controls(2, "student.training.micro_rows=10")
    text = str(caught.value)
    assert "dkd on tables/t/v1: its term of the other classes is 0 for 2 classes" in text
    assert "dist compares the rows of a batch" in text
    assert "leave the rule out of distill.rivals" in text
    assert list(refused(RIVALS, 2)) == ["dkd"]
    assert refused(RIVALS, 3) == {}


def study(folder: Path, rules: tuple[str, ...]) -> dict[str, Any]:
    task = StudyCell(str(folder), str(folder / "data"), rules, settings=SETTINGS)
    engine = LocalEngine("cpu", 1)
    return run_study(Study("s", ("synth.soft",), rules, 1), task, folder / "s", lambda: engine, Silent())


@pytest.mark.timeout(180)
def test_a_study_of_all_rivals_has_a_row_for_each_and_the_reason_where_one_says_nothing(  # type: ignore[no-untyped-def]
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(rivals, "undefined", lambda rule, _: "it says nothing here" if rule == "ada" else None)
    results = study(tmp_path, RIVALS)
    rows = {row["rule"]: row for row in results["rows"]}
    assert set(rows) == {"labels", "constant", "reference", *RIVALS}
    assert results["warnings"] == []
    for rule, row in rows.items():
        if rule == "ada":
            assert (row["seeds"], row["nll"], row["refused"]) == (0, None, "it says nothing here")
            continue
        assert 0.3 < row["nll"] < 3, rule
        assert row["refused"] is None
    assert len({row["nll"] for row in rows.values()}) == len(rows), "no two rules are one"
    assert rows["dkd"]["chosen"] == "0.5"
    stored = pq.read_table(tmp_path / "s" / "study.parquet").to_pylist()
    assert [row["refused"] for row in stored if row["rule"] == "ada"] == ["it says nothing here"]
    study_table(results, Console(width=220))
    assert "refused: it says nothing here" in capsys.readouterr().out


def test_outer_rows_are_meta_rows_of_a_study_too(tmp_path: Path) -> None:
    told = StudyCell(str(tmp_path), str(tmp_path / "data"), ("rw",), settings=SETTINGS)(Cell("synth.soft", 0))
    (rw,) = [one for one in told["students"] if one["name"] == "rw"]
    assert rw["rule"] == {"kind": "rw"}
    assert told["refused"] == {}
