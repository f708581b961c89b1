"""The section on what the ratio does, and what the terminal says of it."""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import pytest
from rich.console import Console

from tgeokd_ray.report import heat, ratio, svg, wording
from tgeokd_ray.report.html import render
from tgeokd_ray.report.terminal import results_table

VERDICT = "A ratio per sample pays here: NLL on valid is 0.4750 (strength 2, shift -1.5)."
POINT = {"kind": "given", "source": 0, "mean": 0.0, "temperature": 1.0}


def candidate(strength: float, shift: float, valid: float, epochs: int) -> dict[str, Any]:
    return {**POINT, "strength": strength, "shift": shift, "valid": valid, "epochs": epochs}


def part(rows: int, mean: float | None) -> dict[str, Any]:
    return {"rows": rows, "mean": mean}


EFFECT: dict[str, Any] = {
    "rows": 1200,
    "mean": 0.41,
    "histogram": {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [300, 500, 300, 100]},
    "by_class": {"no click": 0.3721, "click": 0.5208},
    "geometry": [
        {
            "median_distance": 0.0593,
            "right_near": part(500, 0.2714),
            "right_far": part(400, 0.7317),
            "wrong_near": part(300, 0.0812),
            "wrong_far": part(0, None),
        }
    ],
    "segments": [
        {
            "column": "device",
            "spread": 0.2,
            "values": [{"value": "phone with a long name", **part(700, 0.6011)}, {"value": "tv", **part(90, 0.2022)}],
            "rest": {"values": 17, **part(410, 0.1357)},
        }
    ],
    "truth": {
        "rows": 1100,
        "correlation": [0.8137],
        "regions": [{"region": "A: teacher wrong", "known": 0.0, **part(500, 0.1619)}],
    },
}


@pytest.fixture
def told(results: dict[str, Any]) -> dict[str, Any]:
    """The results of a job whose learned ratio won."""
    candidates = [candidate(1.0, 0.0, 0.4901, 3), candidate(2.0, -1.5, 0.4750, 9), candidate(1.0, -1.5, 0.4802, 5)]
    tgeo = results["models"][-1]
    tgeo["rule"] = {"kind": "tgeo", "strength": 2.0, "shift": -1.5, "temperature": 1.0}
    tgeo["choice"] = {"metric": "nll", "pays": True, "candidates": candidates, "chosen": candidates[1]}
    for model in results["models"]:
        model["valid"] = {"nll": model["nll"], "auc": None}
    course = [{"epoch": e, "ratio": 0.5, "ratio_p10": 0.4 - e / 9, "ratio_p50": 0.5, "ratio_p90": 0.6} for e in (0, 1)]
    found = {"verdict": VERDICT, "pays": True, "strength": 2.0, "shift": -1.5, "temperature": 1.0}
    results["extra"]["ratio"] = {**found, "artifact": "ratios/x/v000001", "training": course, "effect": EFFECT}
    return results


def visible(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", markup))


def test_every_side_of_the_ratio_is_shown(told: dict[str, Any]) -> None:
    text = visible(ratio.section(told) or "")
    assert text.strip().startswith("What the ratio does")
    for shown in (
        VERDICT,
        "The learned ratio has strength 2, shift -1.5; it is shown on the 1,200 labelled rows",
        "at most its median, 0.059",
        "TGeo-KD: weight of the teacher by row, mean 0.410",
        "TGeo-KD: mean weight of the teacher by class",
        "0.372",
        "median, and 10 % to 90 % of the rows",
        "the teacher right 0.271 500 rows 0.732 400 rows",
        "the teacher wrong 0.081 300 rows",
        "phone with a…, 700",
        "17 others, 410",
        "0.136",
        "the correlation over 1,100 rows is 0.814",
        "A: teacher wrong 0.162 0.000 500",
    ):
        assert shown in text, shown


def test_of_a_thousand_classes_the_ends_are_shown(told: dict[str, Any]) -> None:
    means = {f"class-{k}": (k * 7919 % 1000) / 1000 for k in range(1000)}
    told["extra"]["ratio"]["effect"] = {**EFFECT, "by_class": {**means, "class-0": None}}
    text = visible(ratio.section(told) or "")
    assert "TGeo-KD: mean weight of the teacher by class, the 30 lowest and the 30 highest of 999" in text
    by_mean = sorted(range(1, 1000), key=lambda k: k * 7919 % 1000)
    assert re.findall(r"class-(\d+) ", text) == [str(k) for k in by_mean[:30] + by_mean[-30:]]


def test_what_was_chosen_from_stands_in_one_scale_with_the_constants(told: dict[str, Any]) -> None:
    grid, constants = heat.choices(told, told["models"][-1])
    text = visible(grid)
    assert "shift -1.5 +0" in text
    assert "strength 1 0.4802 5 epochs 0.4901 3 epochs strength 2 0.4750" in text
    assert 'class="t10 chosen">0.4750' in grid, "the best is the deepest"
    assert 'class="t0">0.4901' in grid, "of the NLL the largest is the worst"
    assert "<td></td>" in grid, "strength 2 was not tried at shift 0"
    assert "0.25 0.4817 0.75 0.4796" in visible(constants)
    assert "chosen" not in constants


def test_where_a_constant_won_it_is_marked_and_the_ratio_is_called_unused(told: dict[str, Any]) -> None:
    tgeo = told["models"][-1]
    tgeo["rule"], tgeo["choice"]["pays"] = {"kind": "tgeo", "strength": 0.0, "value": 0.75}, False
    tgeo["choice"]["chosen"] = {"kind": "constant", "value": 0.75, "valid": 0.4796}
    told["extra"]["ratio"]["pays"] = False
    grid, constants = heat.choices(told, tgeo)
    assert "chosen" not in grid
    assert re.findall(r'class="t\d+ chosen">([\d.]+)', constants) == ["0.4796"]
    text = visible(ratio.section(told) or "")
    assert "The best learned ratio, which was not used, has strength 2" in text
    assert "TGeo-KD, not used: weight of the teacher by row" in text


def test_several_temperatures_and_teachers_have_a_table_each(told: dict[str, Any]) -> None:
    tgeo = told["models"][-1]
    tgeo["choice"]["candidates"].append(candidate(1.0, 0.0, 0.4777, 9) | {"temperature": 2.0})
    first, second, _ = (visible(table).strip() for table in heat.choices(told, tgeo))
    assert first.startswith("NLL on valid by strength and shift, temperature 1")
    assert second.startswith("NLL on valid by strength and shift, temperature 2")
    assert "0.4777" in second
    assert "0.4777" not in first
    effect = {"geometry": EFFECT["geometry"] * 2}
    assert ["teacher 2 right" in visible(table) for table in heat.geometry(effect)] == [False, True]


def test_a_rule_that_stores_no_ratio_shows_its_own_distribution(results: dict[str, Any]) -> None:
    text = visible(ratio.section(results) or "")
    assert "TGeo-KD: weight of the teacher by row, mean 0.580" in text
    assert "on valid by strength" not in text
    for model in results["models"]:
        model.pop("ratio", None)
    assert ratio.section(results) is None


def test_x7_names_of_the_ratio_are_escaped_and_nothing_has_a_style(told: dict[str, Any]) -> None:
    bad = "<script>alert(1)</script>"
    effect = copy.deepcopy(EFFECT)
    effect["segments"][0] |= {"column": bad, "values": [{"value": bad, **part(700, 0.6)}]}
    effect["truth"]["regions"][0]["region"] = bad
    told["extra"]["ratio"] |= {"effect": effect, "verdict": bad}
    page = render(told)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    assert "style=" not in page


def test_the_page_holds_the_section_and_the_choice_under_the_name(told: dict[str, Any]) -> None:
    page = visible(render(told))
    assert "What the ratio does" in page
    assert "TGeo-KD strength 2, shift -1.5" in page


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"kind": "tgeo", "strength": 0.5, "shift": 3.0, "temperature": 2.0}, "strength 0.5, shift +3, temperature 2"),
        ({"kind": "tgeo", "strength": 0.0, "value": 0.75}, "the constant 0.75"),
        ({"kind": "tgeo", "strength": 0.0, "value": [0.5, 0.25]}, "the constant 0.5 0.25"),
        ({"kind": "tgeo_one_step"}, ""),
        (None, ""),
    ],
)
def test_what_was_chosen_in_words(rule: dict[str, Any] | None, said: str) -> None:
    assert wording.detail({"name": "tgeo", "rule": rule}) == said


def test_the_terminal_says_below_the_table_whether_it_pays(told: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=60)
    results_table(told, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert VERDICT in lines, "on one line, however narrow the terminal"
    names = [line.split("  ")[1].strip() for line in lines if line.startswith("  ")]
    assert names[names.index("TGeo-KD") + 1] == "strength 2, shift -1.5"
    assert lines.index(VERDICT) > max(k for k, line in enumerate(lines) if "TGeo-KD" in line)


def test_a_band_reaches_from_the_least_to_the_most() -> None:
    middle = svg.Series("fusion ratio", [(0.0, 0.5), (1.0, 0.5)], 1)
    drawn = svg.band([0.0, 1.0], [0.5, 0.25], middle, [0.5, 1.0], name="n", x_name="epoch")
    (points,) = re.findall(r'<polygon points="([^"]*)"', drawn)
    heights = [float(point.split(",")[1]) for point in points.split()]
    top, bottom = svg.TOP, svg.PLOT_HEIGHT - svg.BOTTOM
    shares = [(bottom - height) / (bottom - top) for height in heights]
    assert shares == pytest.approx([0.5, 1.0, 0.25, 0.5], abs=1e-3)
    assert "at the end 0.500, from 0.250 to 1.000" in drawn


def test_a_mark_is_drawn_where_it_is_and_widens_the_axis() -> None:
    rows = [svg.Row("a", 0.2, None, 1), svg.Row("b", 0.4, None, 1)]
    plain, marked = (svg.intervals(rows, name="n", mark=mark) for mark in (None, 0.9))
    assert "diagonal" not in plain
    assert len(re.findall(r'class="diagonal"', marked)) == 1
    (x,) = re.findall(r'<line x1="([\d.]+)"[^>]*class="diagonal"', marked)
    assert svg.LABEL_WIDTH < float(x) < svg.WIDTH - svg.FIGURE_WIDTH
