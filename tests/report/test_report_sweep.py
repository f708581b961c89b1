"""The sections of a sweep: every trial is there, whatever became of it, and nothing else of the page changes."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from tgeokd_ray.report import svg, sweep, sweep_slices, sweep_wording
from tgeokd_ray.report.html import render

RATE = "student.training.optimizer.learning_rate"
HOSTILE = "<script>alert(1)</script>\"'&amp;\x1b]0;x\n\x00\udc80."


class Page(HTMLParser):
    """Visible text, headings of sections and elements; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.names, self._open = "", [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        assert not [key for key, _ in attributes if key.startswith("on")]
        self.names.append(name)
        if name != "meta":
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data + " "


def told(results: dict[str, Any]) -> dict[str, Any]:
    return results["extra"]["sweep"]


def headings(text: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", text)


def dots(drawing: str) -> list[tuple[float, float, str, str]]:
    """x, y, class and title of every dot."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4.5" class="([^"]+)"><title>(.*?)</title>', drawing)
    return [(float(x), float(y), kind, title) for x, y, kind, title in found]


def test_the_sections_stand_first_and_change_nothing_else(swept: dict[str, Any]) -> None:
    shown = render(swept)
    assert headings(shown)[:8] == [
        "Warnings", "Sweep lr", "Trials", "Parameter by parameter", "Learning curves of the best 3", "Importance",
        "Failed trials", "Results",
    ]  # fmt: skip
    css = files("tgeokd_ray.report").joinpath("sweep.css").read_text(encoding="utf-8")
    assert css in shown
    bare = shown.replace(css, "").replace("".join(sweep.sections(swept)), "")
    del swept["extra"]["sweep"]
    assert render(swept) == bare
    assert sweep.sections(swept) == []


def test_the_page_tells_the_whole_sweep(swept: dict[str, Any]) -> None:
    text = Page(render(swept)).text
    for shown in (
        "random search; asynchronous successive halving", "AUC on valid of one student, higher is better",
        "3 trials finished, 1 stopped early, 2 failed", "3 min 51 s; 0.12 CPU hours, 0 GPU hours", "6 min 52 s",
        "0.0001 to 0.1, on a log scale", "one of labels, constant, tgeo", "0 to 1; where rule is constant",
        "one of [16], [32, 16]", "t-a, AUC 0.7312", "reaches AUC 0.7291, NLL 0.4772", "the teacher AUC 0.7862",
        "numeric: the loss is not finite; next: lower the rate", "t-e, t-f", RATE, "0.71",
    ):  # fmt: skip
        assert shown in text, shown


def test_every_trial_is_in_the_table(swept: dict[str, Any]) -> None:
    (table,) = re.findall('<div class="leaderboard">(.*?)</table>', "".join(sweep.sections(swept)))
    rows = [re.sub("<[^>]+>", "|", row).split("||") for row in re.findall("<tr>(.*?)</tr>", table)]
    cells = [[cell.strip("|") for cell in row] for row in rows]
    assert cells[0][6:] == ["learning_rate", "rule", "constant", "hidden", "status"]
    assert cells[1] == ["1", "t-a", "0.7312", "3", "3.10 s", "1,234", "0.003", "tgeo", "-", "[32, 16]", "finished"]
    assert cells[4][:3] + cells[4][-1:] == ["-", "t-d", "0.7003", "stopped early"]
    assert cells[5][1:3] + cells[5][-1:] == [
        "t-e",
        "-",
        "failed: numeric: the loss is not finite; next: lower the rate",
    ]
    assert [row[1] for row in cells[1:]] == [trial["name"] for trial in told(swept)["trials"]]


def test_the_table_ends_after_fifty_and_says_so(swept: dict[str, Any]) -> None:
    trials = told(swept)["trials"]
    trials[:1] = [trials[0] | {"name": f"t-{k}", "rank": k + 1} for k in range(60)]
    text = Page("".join(sweep.sections(swept))).text
    assert "15 more are in the leaderboard file" in text
    assert all(f"t-{k} " in text for k in range(50))
    assert "t-e, t-f" in text, "failed ones are told all the same"


def test_slices_show_each_trial_with_a_value_where_it_lies(swept: dict[str, Any]) -> None:
    rate, rule, constant, hidden = sweep_slices.slices(told(swept))
    assert {title.split(":")[0] for *_, title in dots(rate)} == {"t-a", "t-b", "t-c", "t-d"}
    assert [title.split(":")[0] for *_, title in dots(constant)] == ["t-b"]
    assert len(dots(rule)) == len(dots(hidden)) == 4
    found = {title.split(":")[0]: (x, y, kind) for x, y, kind, title in dots(rate)}
    assert [found[name][2] for name in ("t-a", "t-b", "t-d")] == ["dot c2", "dot c1", "dot hollow c0"]
    scale = [
        (found[f"t-{name}"][0] - found["t-d"][0]) / math.log(value / 1e-4)
        for name, value in (("b", 0.03), ("a", 0.003))
    ]
    assert scale[0] == pytest.approx(scale[1], rel=0.01), "x goes by the logarithm"
    assert found["t-a"][1] < found["t-b"][1] < found["t-c"][1], "higher values lie higher"
    places = {title.split(":")[0]: x for x, _, _, title in dots(rule)}
    assert places["t-c"] < places["t-b"] < min(places["t-a"], places["t-d"]), "categories in the order of the space"


@pytest.mark.parametrize("higher", [True, False])
def test_one_collapse_does_not_flatten_the_rest(swept: dict[str, Any], higher: bool) -> None:
    sign = 1 if higher else -1
    told(swept)["higher_is_better"] = higher
    for trial, value in zip(told(swept)["trials"], (0.73, 0.72, 0.71, 0.1), strict=False):
        trial["value"] = sign * value
    (low, high), beyond = sweep_slices.reach(told(swept))
    assert (min(abs(low), abs(high)) > 0.6, beyond) == (True, 1)
    edge = [y for _, y, _, title in dots(sweep_slices.slices(told(swept))[0]) if title.startswith("t-d")]
    assert edge == [204.0 if higher else 12.0]
    assert "1 trial is far worse, and drawn at the edge" in Page(render(swept)).text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-4, -1, ["0.0001", "0.001", "0.01", "0.1"]),
        (-2.1, -0.9, ["0.01", "0.02", "0.05", "0.1"]),
        (-12, 0, ["1e-12", "1e-09", "1e-06", "0.001", "1"]),
        (0.32, 0.38, ["2.1", "2.2", "2.3"]),
    ],
)
def test_log_ticks_are_round(low: float, high: float, expected: list[str]) -> None:
    ticks = svg.log_ticks(low, high)
    assert list(ticks.values()) == expected
    assert [10**place for place in ticks] == pytest.approx([float(text) for text in expected])


def test_curves_are_of_the_best_eight_in_eight_colours(swept: dict[str, Any]) -> None:
    first = told(swept)["trials"][0]
    told(swept)["trials"] = [first | {"name": f"t-{k}", "rank": k + 1} for k in range(10)]
    drawn = "".join(sweep.sections(swept))
    assert "Learning curves of the best 8" in drawn
    assert sorted(re.findall(r'class="curve (c\d)"', drawn)) == [f"c{k}" for k in range(8)]


def test_bars_are_as_long_as_their_shares(swept: dict[str, Any]) -> None:
    bars = re.findall(
        r'<rect class="bar c1"[^>]* width="([\d.]+)"[^>]*><title>(.*?)</title>', "".join(sweep.sections(swept))
    )
    assert [title for _, title in bars] == ["learning_rate: 0.71", "rule: 0.20", "hidden: 0.09"]
    widths = [float(width) for width, _ in bars]
    assert widths[1] / widths[0] == pytest.approx(0.2 / 0.71, rel=0.01)


def nothing(found: dict[str, Any]) -> None:
    found |= {"trials": [], "best": None, "importance": None, "importance_note": "no trial finished"}


def only_failed(found: dict[str, Any]) -> None:
    found |= {"trials": found["trials"][4:], "best": None, "importance": None}


def one_trial(found: dict[str, Any]) -> None:
    found |= {"trials": found["trials"][:1], "importance": {}, "importance_note": "one trial"}


def nulls(found: dict[str, Any]) -> None:
    for trial in found["trials"]:
        trial |= {"value": None, "curve": [None, None], "parameters": None}
    found["importance"] = {RATE: None}


def gaps(found: dict[str, Any]) -> None:
    found["trials"][0]["curve"] = [None, 0.7, None]
    found["trials"][1] |= {"value": float("nan"), "curve": [float("inf")]}


def never_varies(found: dict[str, Any]) -> None:
    for trial in found["trials"]:
        trial |= {"point": trial["point"] | {RATE: 0.01, "rule": "tgeo", "constant": 0}, "epochs": 1, "curve": [0.7]}
        trial["value"] = 0.7 if trial["value"] else None


def outside(found: dict[str, Any]) -> None:
    found["space"] = {}
    points = [{"x": 10**30, RATE: None}, {"x": True}, {"x": {"a": [1.0]}}, {}, {"y" * 300: "z" * 3000}, {"x": 0}]
    for trial, point in zip(found["trials"], points, strict=True):
        trial["point"] = point


def not_positive(found: dict[str, Any]) -> None:
    found["trials"][0]["point"][RATE] = 0
    found["trials"][1]["point"][RATE] = "0.1"


def many_values(found: dict[str, Any]) -> None:
    found["space"]["rule"] = {"grid": [f"a rule of a long name {k}" for k in range(90)]}


@pytest.mark.parametrize(
    "change", [nothing, only_failed, one_trial, nulls, gaps, never_varies, outside, not_positive, many_values]
)
@pytest.mark.parametrize("student", [True, False])
def test_degenerate_sweeps_are_shown(swept: dict[str, Any], change: Callable[[Any], None], student: bool) -> None:
    swept["extra"]["sweep"] = copy.deepcopy(told(swept))
    change(told(swept))
    swept["models"] = swept["models"][: 2 if student else 1]
    text = Page(render(swept)).text
    assert all(trial["name"] in text for trial in told(swept)["trials"])
    assert not re.search(r"\b(nan|inf|None)\b", text)


def hostile(value: Any) -> Any:
    if isinstance(value, dict):
        outside = {RATE, "rule", "constant", "student.model.hidden"}
        return {(HOSTILE + k if k in outside else k): hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) and value not in ("finished", "stopped", "failed") else value


def test_x7_names_of_a_sweep_are_escaped_everywhere(swept: dict[str, Any]) -> None:
    """X7 of the fault list."""
    harmless = set(Page(render(swept)).names)
    swept["extra"]["sweep"] = hostile(told(swept))
    text = render(swept)
    page = Page(text)
    assert set(page.names) <= harmless
    assert page.text.count("<script>alert(1)") > 40
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)


def test_parameters_are_told_apart_by_the_end_of_their_path() -> None:
    names = ["student.training.epochs", "teacher.training.epochs", "student.model.hidden", "rule", "a.rule"]
    assert list(sweep_wording.short(names).values()) == [
        "student.training.epochs", "teacher.training.epochs", "hidden", "rule", "a.rule",
    ]  # fmt: skip
    values = [0.000123456, 3, True, None, "tgeo", [32, 0.5], 1.0]
    assert [sweep_wording.written(v) for v in values] == ["0.0001235", "3", "true", "null", "tgeo", "[32, 0.5]", "1"]


def test_a_sweep_with_seeds_a_budget_and_an_earlier_part_says_so(swept: dict[str, Any]) -> None:
    told(swept).update(seeds=3, budget_minutes=10, resumed=True, scheduler="none", search="tpe", importance=None)
    told(swept)["importance_note"] = "fewer than 4 trials finished"
    text = Page(render(swept)).text
    for shown in ("mean of 3 students", "3 min 51 s, of at most 10 minutes", "where an earlier run had ended"):
        assert shown in text
    for shown in ("(TPE); no trial is stopped early", "No importance is known: fewer than 4 trials finished."):
        assert shown in text
