"""Studies: what a summary says of cells, and one small study through the whole chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tgeokd_ray.errors import ConfigError, DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.metrics.intervals import paired_difference
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.study import Study, run_study
from tgeokd_ray.pipeline.study_cell import Cell, StudyCell
from tgeokd_ray.pipeline.study_start import Place as StartPlace
from tgeokd_ray.pipeline.study_summary import nothing_to_win, summarise
from tgeokd_ray.report.study import study_table

SETTINGS = (
    "student.training.epochs=2",
    "distill.more_temperatures=[]",
    "distill.strengths=[1.0]",
    "distill.shifts=[0.0]",
    "distill.fusion.look_ahead=2",
)


def student(name: str, valid: float, test: float, **more: Any) -> dict[str, Any]:
    figures = {"nll": test, "auc": 1 - test, "accuracy": None}
    return {"name": name, "rule": {}, "valid": {"nll": valid}, "test": figures, **more}


def cell(seed: int, *students: dict[str, Any], **more: Any) -> dict[str, Any]:
    ratio = {"shape": {"correlation": 0.8 - seed / 10}}
    return {"dataset": "d", "seed": seed, "metric": "nll", "students": list(students), "ratio": ratio, **more}


def candidates(*pairs: tuple[float, float]) -> dict[str, Any]:
    listed = [
        {"strength": 1.0, "shift": float(k), "temperature": 1.0, "valid": v, "test": {"nll": t, "auc": 1 - t}}
        for k, (v, t) in enumerate(pairs)
    ]
    return {"choice": {"candidates": listed}}


CELLS = [
    cell(
        0,
        student("labels", 0.9, 0.91),
        student("constant-0.5", 0.5, 0.52),
        student("constant-1", 0.6, 0.40),
        student("reference", 0.3, 0.30),
        student("tgeo", 0.2, 0.33, **candidates((0.2, 0.33), (0.45, 0.42))),
    ),
    cell(
        1,
        student("labels", 0.8, 0.81),
        student("constant-0.5", 0.6, 0.58),
        student("constant-1", 0.55, 0.45),
        student("reference", 0.35, 0.31),
        student("tgeo", 0.44, 0.43, **candidates((0.9, 0.95), (0.44, 0.43))),
    ),
]


def by_rule(cells: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    rows, failed = summarise(cells)
    assert failed == []
    return {row["rule"]: row for row in rows}


def test_every_choice_is_by_the_mean_on_valid_over_the_seeds() -> None:
    found = by_rule(CELLS)
    assert found["constant"]["chosen"] == "0.5", ".55 on valid against .575; 1 is better on test"
    assert found["constant"]["nll"] == pytest.approx(0.55)
    assert found["tgeo"]["chosen"] == "strength 1, shift 1, tau 1", ".445 against .55"
    assert found["tgeo"]["nll"] == pytest.approx(0.425)
    assert found["tgeo.each"]["nll"] == pytest.approx(0.38), "each seed by itself"
    mean, low, high = paired_difference([0.42, 0.43], [0.52, 0.58])
    row = found["tgeo"]
    assert (row["nll_vs_constant"], row["low"], row["high"]) == pytest.approx((mean, low, high))
    assert row["oracle_vs_constant"] == pytest.approx((0.30 - 0.52 + 0.31 - 0.58) / 2)
    assert row["correlation"] == pytest.approx({"mean": 0.75, "worst": 0.7})
    assert found["labels"]["accuracy"] is None


def test_the_learner_falls_back_to_the_constant_that_is_better_on_valid() -> None:
    worse = [
        cell(seed, student("constant-0.5", 0.4, 0.4), student("tgeo", 0.5, 0.3, **candidates((0.5, 0.3))))
        for seed in range(3)
    ]
    found = by_rule(worse)
    assert found["tgeo"]["chosen"] == "strength 0, 0.5"
    assert found["tgeo"]["nll_vs_constant"] == 0.0


def against(reference: tuple[float, float], learned: tuple[float, float]) -> list[str]:
    """The notes on two seeds, of test NLL of the reference and the learner where the constant has .5 and .6."""
    cells = [
        cell(k, student("constant-0.5", 0.9, c), student("reference", 0.5, r), student("ada", 0.5, u))
        for k, (c, r, u) in enumerate(zip((0.5, 0.6), reference, learned, strict=True))
    ]
    rows, _ = summarise(cells)
    assert rows[0]["rule"] == "reference"
    return nothing_to_win(rows)


def test_where_the_reference_gains_nothing_a_win_needs_an_explanation() -> None:
    assert against((0.4, 0.501), (0.3, 0.401)) == [], "there is something to win"
    (note,) = against((0.45, 0.65), (0.4, 0.501))
    mean, low, high = paired_difference((0.45, 0.65), (0.5, 0.6))
    told = f"({mean:+.4f}, {low:+.4f} to {high:+.4f})"
    assert note == f"d: the reference ratio gains nothing that is sure {told}; a win needs an explanation: ada"
    (note,) = against((0.6, 0.701), (0.45, 0.65))
    assert note.endswith("; a win would need an explanation"), "the reference is worse, and nobody wins"
    (alone,) = nothing_to_win(summarise([cell(0, student("constant-0.5", 1, 0.5), student("reference", 1, 0.5))])[0])
    assert alone == "d: the reference ratio gains nothing that is sure (+0.0000); a win would need an explanation"
    assert nothing_to_win(summarise([cell(0, *CELLS[0]["students"])])[0]) == []


def test_a_cell_that_failed_and_a_student_that_failed_are_told() -> None:
    broken = {"dataset": "d", "seed": 2, "error": "data: no rows"}
    half = cell(1, *CELLS[1]["students"][:3], {"name": "tgeo", "error": "not finite"})
    rows, failed = summarise([CELLS[0], half, broken])
    assert failed == ["d, seed 2: data: no rows", "d, seed 1, tgeo: not finite"]
    assert {row["rule"]: row["seeds"] for row in rows} == {"labels": 2, "constant": 2}
    assert summarise([cell(0, *CELLS[0]["students"])])[0][0]["low"] is None, "one seed has no interval"


def test_a_choice_without_a_figure_on_valid_is_never_the_best() -> None:
    undefined = [cell(seed, student("constant-0", 0.0, 0.1), student("constant-1", 0.6, 0.7)) for seed in range(2)]
    undefined[0]["students"][0]["valid"]["nll"] = None
    assert by_rule(undefined)["constant"]["chosen"] == "1"


def test_what_a_study_may_name() -> None:
    with pytest.raises(ConfigError) as caught:
        Study("s", ("synth.softt", "nsl_kdd.both"), ("adaa", "permuted"), 0).check([])
    text = str(caught.value)
    for expected in (
        "did you mean 'synth.soft'",
        "--data nsl_kdd=FILE",
        "did you mean 'ada'",
        "0 seeds",
        "the ratio of tgeo",
    ):
        assert expected in text
    Study("s", ("nsl_kdd.both",), ("ada",), 1).check(["nsl_kdd"], {"nsl_kdd": "nsl_kdd.yaml"})


def study(folder: Path, name: str = "synth.soft") -> dict[str, Any]:
    task = StudyCell(str(folder), str(folder / "data"), ("ada", "permuted", "tgeo"), settings=SETTINGS)
    engine = LocalEngine("cpu", 1)
    return run_study(Study("s", (name,), ("ada", "permuted", "tgeo"), 1), task, folder / "s", lambda: engine, Silent())


def test_a_small_study_writes_its_rows_and_is_not_run_again(tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    results = study(tmp_path)
    assert results == json.loads((tmp_path / "s" / "study.json").read_text())
    rules = [row["rule"] for row in results["rows"]]
    assert sorted(rules) == ["ada", "constant", "labels", "permuted", "reference", "tgeo", "tgeo.each"]
    assert rules[0] == "reference"
    stored = pq.read_table(tmp_path / "s" / "study.parquet").to_pylist()
    assert [(row["rule"], row["oracle_vs_constant"]) for row in stored] == [
        (row["rule"], row["oracle_vs_constant"]) for row in results["rows"]
    ]
    assert all(0 < row["nll"] < 3 and 0 < row["auc"] < 1 for row in results["rows"])
    assert len({row["parameters"] for row in results["rows"]}) == 1, "one student for every rule"
    assert results["rows"][0]["parameters"] > 10
    from rich.console import Console

    study_table(results, Console(width=200))
    shown = capsys.readouterr().out
    assert shown.count("synth.soft") == 1
    assert "against constant" in shown
    assert shown.index("reference") < shown.index("labels")
    assert "note: " not in shown
    study_table(results | {"notes": ["d: nothing to win"]}, Console(width=200))
    shown = capsys.readouterr().out
    assert "note: d: nothing to win" in shown
    assert "%" in shown.partition("chosen on valid")[2]
    nothing = [row | {"low": -0.1, "high": 0.1} for row in results["rows"]]
    study_table(results | {"rows": nothing}, Console(width=200))
    assert "%" not in capsys.readouterr().out.partition("chosen on valid")[2], "no share of nothing"
    monkeypatch.setattr(StudyCell, "__call__", None)
    assert study(tmp_path)["rows"] == results["rows"], "its cells are there"


def test_only_what_was_asked_for_is_learned(tmp_path: Path) -> None:
    task = StudyCell(str(tmp_path), str(tmp_path / "data"), ("tgeo_one_step",), settings=SETTINGS)
    told = task(Cell("synth.soft", 0))
    names = [one["name"] for one in told["students"]]
    assert names[-1] == "tgeo_one_step"
    assert "tgeo" not in names
    assert told["ratio"] == {}, "no shape was learned"
    one_step = told["students"][-1]
    assert one_step["rule"]["kind"] == "tgeo_one_step"
    assert isinstance(one_step["rule"]["level"], float)
    rows, _ = summarise([told])
    assert "tgeo_one_step" in {row["rule"] for row in rows}
    labels = StudyCell(str(tmp_path), str(tmp_path / "data"), ("ada",), settings=SETTINGS)(Cell("synth.soft", 0))
    assert {one["name"].partition("-")[0] for one in labels["students"]} == {"labels", "constant", "ada", "reference"}


def test_a_study_of_which_nothing_ends_says_why(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def fails(self: StartPlace, settings: object) -> None:
        raise DataError("no rows at all")

    monkeypatch.setattr(StartPlace, "start", fails)
    task = StudyCell(str(tmp_path), str(tmp_path / "data"), ("tgeo",))
    assert "no rows at all" in task(Cell("synth.soft", 0))["error"]
    with pytest.raises(Exception, match="no rows at all"):
        study(tmp_path)
