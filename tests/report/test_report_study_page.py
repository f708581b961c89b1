"""The page of a study: every row and interval, whole, alone, escaped, the same every time."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from test_report_html import HOSTILE, Page

from tgeokd_ray.report import svg
from tgeokd_ray.report.study_page import family, pareto, render_study, write_study_report

BINS = [{"rows": 9.0, "confidence": p, "accuracy": p - 0.02} for p in (0.55, 0.75, 0.95)]
SHOWN = """grid one|synth.soft|synth.null|differences|that survive|1, 2, 4|reference ratio gains nothing|a seed failed
-0.0123*|-0.0200 to -0.0046|-0.0400 to +0.0154|0.012|tau 2|refused: two classes|teacher|0.7311|python jobs/benchmark.py
torch 2.1|survives, better|does not survive|20 min 34 s""".replace("\n", "|").split("|")


def row(dataset: str, rule: str, **more: Any) -> dict[str, Any]:
    known = {"dataset": dataset, "rule": rule, "seeds": 3, "nll": 0.5, "auc": 0.75, "accuracy": 0.7, "chosen": "tau 2"}
    known |= {"nll_vs_constant": -0.0123, "low": -0.02, "high": -0.0046, "low_all": -0.04, "high_all": 0.0154}
    known |= {"p_holm": 0.0123, "survives": True, "refused": None, "parameters": 90, "calibration": BINS}
    return known | more


@pytest.fixture
def study() -> dict[str, Any]:
    figures = ("nll", "auc", "accuracy", "nll_vs_constant", "low", "high", "low_all", "high_all", "p_holm", "survives")
    nothing = dict.fromkeys((*figures, "parameters", "calibration"))
    rows = [row("synth.soft", "tgeo.each"), row("synth.soft", "constant", nll_vs_constant=0.0, survives=None)]
    rows += [row("synth.soft", "dkd", **nothing, refused="two classes"), row("synth.null", "ada", survives=False)]
    teacher = {"name": "teacher", "parameters": 5000, "nll": 0.4, "auc": 0.7311, "accuracy": None, "calibration": BINS}
    extra = {"grid": {"temperatures": [1.0, 2.0, 4.0], "rates": [1.0, 0.3]}, "teachers": {"synth.soft": [teacher]}}
    extra |= {"command": "python jobs/benchmark.py", "versions": {"torch": "2.1"}, "cell_seconds": 1234.0}
    notes, warnings = ["synth.null: the reference ratio gains nothing"], ["a seed failed"]
    return {"name": "grid one", "rows": rows, "notes": notes, "warnings": warnings, "extra": extra}


def drawings(text: str) -> list[str]:
    return re.findall(r'aria-label="([^"]*)"', "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL)))


def test_the_page_shows_the_study(study: dict[str, Any], tmp_path: Path) -> None:
    path = write_study_report(study, tmp_path / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    for shown in SHOWN:
        assert shown in page.text, shown
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    said = drawings(path.read_text(encoding="utf-8"))
    assert [one.partition(".")[0] + "." + one.partition(".")[2].partition(".")[0] for one in said] == [
        "NLL against the constant on synth.soft",
        "Calibration on synth.soft",
        "NLL against the constant on synth.null",
    ]
    assert "tgeo.each -0.0123" in said[0]
    assert "constant 0.0000" not in said[0], "the constant is no comparison"
    assert said[1].endswith("teacher; tgeo.each; constant")


def test_both_intervals_are_drawn_to_scale_and_far_ones_cut_off(study: dict[str, Any]) -> None:
    study["rows"] = [row("d", "tgeo", low_all=-9.0, high_all=9.0)]
    text = render_study(study)
    dot = float(re.search(r'<circle[^>]*cx="([\d.]+)"', text)[1])  # type: ignore[index]
    lines = re.findall(r'x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" class="(whisker|wider) c1"', text)
    thin, thick = (tuple(map(float, line[:2])) for line in lines[:2])
    assert [kind for _, _, kind in lines] == ["wider", "whisker", "whisker", "whisker"]
    unit = (dot - thick[0]) / (0.02 - 0.0123)
    assert thick[1] - dot == pytest.approx(unit * (0.0123 - 0.0046), abs=0.3)
    assert thin[1] - thin[0] == pytest.approx(unit * 5 * 0.02, rel=0.02)
    assert svg.LABEL_WIDTH < thin[0] < thick[0] < dot < thick[1] < thin[1]


def test_survivors_have_the_colour_of_their_side(study: dict[str, Any]) -> None:
    study["rows"] = [row("d", "a"), row("d", "b", nll_vs_constant=0.01), row("d", "c", survives=False)]
    colours = re.findall(r'class="dot (c\d)"><title>([abc]):', render_study(study))
    assert colours == [("c1", "a"), ("c6", "b"), ("c0", "c")]


def test_the_page_needs_nothing_runs_nothing_and_is_the_same_every_time(study: dict[str, Any]) -> None:
    text = render_study(study)
    assert render_study(copy.deepcopy(study)) == text
    page = Page(text)
    assert not {name for name, _ in page.elements} & {"script", "link", "img", "iframe", "object", "embed", "form"}
    assert not re.search(r"https?://|@import|url\(| style=", text)


def test_x7_names_are_escaped_everywhere(study: dict[str, Any]) -> None:
    """X7 of the fault list."""
    harmless = {name for name, _ in Page(render_study(study)).elements}
    study |= {"name": HOSTILE, "notes": [HOSTILE], "warnings": [HOSTILE]}
    study["extra"] |= {"command": HOSTILE, "versions": {HOSTILE: HOSTILE}, "teachers": {}}
    for one in study["rows"]:
        one |= {"dataset": HOSTILE, "chosen": HOSTILE, "refused": HOSTILE if one["refused"] else None}
    page = Page(render_study(study))
    assert {name for name, _ in page.elements} <= harmless
    assert "<script>alert(1)" in page.text


def test_one_seed_has_no_intervals_and_old_rows_no_corrections(study: dict[str, Any]) -> None:
    keys = ("low", "high", "low_all", "high_all", "p_holm", "survives", "calibration", "parameters")
    for one in study["rows"]:
        for key in keys:
            del one[key]
        one |= {"low": None, "high": None, "seeds": 1}
    study["extra"] = {"settings": [], "seconds": 3.0}
    text = render_study(study)
    assert "whisker c" not in text
    assert "survives, better" not in Page(text).text
    assert "-0.0123" in Page(text).text


def test_sizes_are_drawn_where_a_table_has_students_of_several(study: dict[str, Any]) -> None:
    assert "Sizes" not in Page(render_study(study)).text, "a teacher and students of one size"
    small = row("nsl_kdd.both", "ada", auc=0.7, parameters=100)
    large = row("nsl_kdd.both.20000", "ada", auc=0.8, parameters=300)
    study["rows"] += [small, row("nsl_kdd.both", "wls", auc=0.6, parameters=100), large]
    study["extra"]["teachers"]["nsl_kdd.both"] = [
        {"name": "teacher", "parameters": 900, "auc": 0.75, "nll": 1.0, "accuracy": 0.5, "calibration": []}
    ]
    text = render_study(study)
    (said,) = [one for one in drawings(text) if one.startswith("AUC by size")]
    assert said.startswith("AUC by size on nsl_kdd.both. best for its size ends at 0.8000; ")
    assert "teacher (nsl_kdd.both) ends at 0.7500" in said
    assert "ada (nsl_kdd.both.20000) ends at 0.8000" in said


def test_the_front_of_sizes_and_values() -> None:
    points = [(300.0, 0.8), (100.0, 0.6), (100.0, 0.7), (200.0, 0.65), (900.0, 0.8)]
    assert pareto(points) == [(100, 0.7), (300, 0.8)]
    assert [family(name) for name in ("criteo", "gas.both", "gas.both.noisy")] == ["criteo", "gas.both", "gas.both"]
