"""The page: whole, alone, escaped, the same every time."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tgeokd_ray.report import svg, wording
from tgeokd_ray.report.html import render, write_report
from tgeokd_ray.report.markup import Markup, tag

HOSTILE = "<script>alert(1)</script>\"'&amp;<img src=x onerror=alert(2)>\x1b]0;x\n\x00\udc80"


SHOWN = """demo|synthetic_ctr|TGeo-KD|best constant 0.75|constant 0.25|0.7791|0.7761 to 0.7831|1,842,371|188,000
best possible (Bayes)|0.8011|found at 0.1%|0.0156|no click|6.21 s|reused|180,000|tables/synthetic_ctr/v000001
3f2a91bc3f2a91bc|never seen in train|"hidden"|fusion ratio|AUC on valid|NLL on valid|training loss|0.610
Share predicted right by confidence""".replace("\n", "|").split("|")


class Page(HTMLParser):
    """Elements with their attributes and the visible text; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name != "meta":
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data + " "


def hostile(value: Any, key: str = "") -> Any:
    """The same structure with every text replaced, and with it the keys that come from outside."""
    if isinstance(value, dict):
        outside = key in ("config", "recall") or (key == "rows" and isinstance(value, dict))
        return {HOSTILE + k if outside else k: hostile(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_the_page_shows_the_run(results: dict[str, Any], tmp_path: Path) -> None:
    path = write_report(results, tmp_path / "runs" / "demo" / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    for shown in SHOWN:
        assert shown in page.text, shown
    assert [child.name for child in path.parent.iterdir()] == ["report.html"]
    drawings = [attributes for name, attributes in page.elements if name == "svg"]
    assert len(drawings) == 8
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)


def test_the_page_needs_nothing_and_runs_nothing(results: dict[str, Any]) -> None:
    page, text = Page(render(results)), render(results)
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image"}
    attributes = {key for _, pairs in page.elements for key in pairs}
    assert not {key for key in attributes if key.startswith("on")} | attributes & {"src", "href", "xlink:href", "style"}
    assert not re.search(r"https?://|@import|url\(", text)
    assert (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"},
    ) in (page.elements)


def test_x7_names_are_escaped_everywhere(results: dict[str, Any], tmp_path: Path) -> None:
    """X7 of the fault list."""
    bad = hostile(results)
    for model, good in zip(bad["models"], results["models"], strict=True):
        model["role"] = good["role"]
        model["detection_rate"] = good["detection_rate"]
    text = write_report(bad, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    harmless = {name for name, _ in Page(render(results)).elements}
    assert {name for name, _ in page.elements} <= harmless
    assert not {key for _, pairs in page.elements for key in pairs if key.startswith("on")}
    assert "<script>alert(1)" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)


def test_the_same_results_give_the_same_bytes(results: dict[str, Any], tmp_path: Path) -> None:
    first = write_report(results, tmp_path / "a.html").read_bytes()
    assert write_report(copy.deepcopy(results), tmp_path / "b.html").read_bytes() == first
    results["seed"] = 1
    assert write_report(results, tmp_path / "a.html").read_bytes() != first


def test_results_with_the_fixed_keys_only(results: dict[str, Any]) -> None:
    keys = ("name", "role", "rule", "parameters", "auc", "nll", "accuracy", "macro_f1", "rows", "artifact")
    results["models"] = [{key: model[key] for key in keys} for model in results["models"]]
    for key in ("config", "metric"):
        del results[key]
    results["extra"], results["warnings"] = {}, []
    page = Page(render(results))
    assert "0.7791" in page.text
    for absent in ("Warnings", "Learning curves", "Fusion ratio", "Calibration", "Configuration", "Recall", "Bayes"):
        assert absent not in page.text


def test_undefined_measures_are_dashes(results: dict[str, Any]) -> None:
    for model in results["models"]:
        model |= {"auc": None, "nll": None, "auc_interval": None, "average_precision": None, "detection_rate": None}
    page = Page(render(results))
    assert "nan" not in page.text.lower()
    assert "higher is better" not in page.text


def test_a_run_whose_models_all_failed(results: dict[str, Any]) -> None:
    results["models"] = []
    assert "never seen in train" in Page(render(results)).text


def test_macro_f1_is_shown_beyond_two_classes(results: dict[str, Any]) -> None:
    assert "macro-F1" not in Page(render(results)).text
    for model in results["models"]:
        model["recall"]["flood"] = None
    assert "macro-F1" in Page(render(results)).text


def test_x7_text_is_escaped_unless_it_is_markup() -> None:
    assert tag("b", "<&>", Markup("<i></i>"), None, ["x", ["y"]], class_='a"b', http_equiv="c", id=None) == (
        '<b class="a&quot;b" http-equiv="c">&lt;&amp;&gt;<i></i>xy</b>'
    )


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.771, 0.789, 4, ["0.775", "0.780", "0.785"]),
        (0, 12_000, 5, ["0", "5,000", "10,000"]),
        (-1, 1, 4, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, most: int, expected: list[str]) -> None:
    assert list(svg.ticks(low, high, most).values()) == expected


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, 6e38])
def test_plots_of_one_point_or_equal_values_are_drawn(value: float) -> None:
    one = svg.Series("one", [(1.0, value)], 0)
    Page(svg.curves([one, one], name="n", x_name="x", y_name="y"))
    Page(svg.intervals([svg.Row("one", value, None, 0)] * 2, name="n"))
    Page(svg.calibration([svg.Series("one", [(1.0, 1.0)], 0)], name="n"))
    Page(svg.histogram([0.0, 1.0], [0], name="n", x_name="x", colour=0))


def test_a_curve_runs_from_the_lower_left_to_the_upper_right() -> None:
    drawing = svg.curves([svg.Series("one", [(1, 0.0), (2, 1.0)], 0)], name="n", x_name="x", y_name="y")
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in re.search(r'points="([^"]+)"', drawing)[1].split())
    assert x1 == svg.LEFT < x2 == svg.WIDTH - svg.RIGHT
    assert svg.TOP < y2 < y1 < svg.PLOT_HEIGHT - svg.BOTTOM


def test_bars_are_as_high_as_their_counts() -> None:
    drawing = svg.histogram([0, 0.5, 1], [30, 60], name="n", x_name="x", colour=0)
    low, high = (float(height) for height in re.findall(r'height="([\d.]+)"', drawing))
    assert high == pytest.approx(2 * low, abs=0.11)


def test_models_have_distinct_titles() -> None:
    labels, constant = {"kind": "labels"}, {"kind": "constant", "value": 0.5}
    models = [
        ({"name": "teacher", "role": "teacher", "rule": None}, "teacher"),
        ({"name": "gbdt", "role": "teacher", "rule": None}, "teacher gbdt"),
        ({"name": "labels", "rule": labels}, "student on labels"),
        ({"name": "labels-2", "rule": labels}, "labels-2"),
        ({"name": "constant-0.5", "rule": constant}, "constant 0.5"),
        ({"name": "constant-0.5", "rule": constant, "chosen": True}, "best constant 0.5"),
        ({"name": "tgeo", "rule": {"kind": "tgeo_one_step"}}, "TGeo-KD"),
        ({"name": "frozen", "rule": {"kind": "frozen"}}, "frozen"),
    ]
    assert [wording.title(model) for model, _ in models] == [expected for _, expected in models]


def test_classes_go_by_their_names_for_reports(results: dict[str, Any]) -> None:
    results["table"] |= {"display": {"click": "Click!", "0": "never"}, "classes": ["no click", "click"]}
    text = Page(render(results)).text
    assert "Click!" in text
    assert "no click" in text
    for model in results["models"]:
        model["recall"] = {"1": 0.25, "0": 0.75}
    results["table"] |= {"display": {}, "classes": ["1", "0"]}
    page = render(results)
    assert re.search(r'<th scope="row">1</th><td>0.2500', page), "a class whose name is a number is no other class"
    assert wording.displayed({"a": "same", "b": "same", "c": "C"}, "abcd") == ["same (a)", "same (b)", "C", "d"]


def test_figures_are_written_for_people() -> None:
    assert [wording.fixed(v) for v in (0.73125, None, float("nan"))] == ["0.7312", "-", "-"]
    assert [wording.count(v) for v in (1234567.4, 0, None)] == ["1,234,567", "0", "-"]
    durations = [0.4, 9.994, 9.996, 12.34, 59.94, 59.96, 125, 3599.6, 3720, None]
    assert [wording.duration(v) for v in durations] == [
        "0.40 s", "9.99 s", "10.0 s", "12.3 s", "59.9 s", "1 min 00 s", "2 min 05 s", "1 h 00 min", "1 h 02 min", "-",
    ]  # fmt: skip
    assert wording.plain("ä\n\x1b\u202e😀") == r"ä\n\x1b\u202e😀"


def test_of_a_thousand_classes_the_lowest_recalls_are_shown(results: dict[str, Any]) -> None:
    for model in results["models"]:
        model["recall"] = {f"class-{k}": (k * 7919 % 1000) / 1000 if k % 10 else None for k in range(1000)}
    text = Page(render(results)).text
    assert "The 60 lowest of 900; results.json has all." in text, "of a class without test rows nothing is known"
    lowest = sorted((k for k in range(1000) if k % 10), key=lambda k: k * 7919 % 1000)[:60]
    assert re.findall(r"class-(\d+)", text) == [str(k) for k in lowest]
