"""`report.html` of a ladder: the metric against parameters and against CPU time, and a table of the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tgeokd_ray.report import svg
from tgeokd_ray.report.html import shell, write_page
from tgeokd_ray.report.ladder import described, interval_of, kept, knee_told, signed
from tgeokd_ray.report.markup import Child, Markup, grid, tag
from tgeokd_ray.report.plots import legend, plot, section
from tgeokd_ray.report.wording import MISSING, count, duration, fixed, measure

Ladder = Mapping[str, Any]

COLOURS = {"teacher": 0, "distilled, best constant": 2, "on labels": 3}
AXES = {
    "parameters": ("parameters", "parameters"),
    "latency_ms": ("seconds of CPU for a million rows, one thread", "CPU time"),
}
HEADINGS = ("size", "parameters", "ms / 1000 rows", "on labels", "distilled", "kept", "gain", "95%", "AUC", "NLL")
NOTE = (
    "Means over seeds on test; constants were chosen on valid. Kept: the share of the teacher's figure. Gain: what is "
    "distilled less what is on labels, paired by seed. Time is that of the CPU on a thousand encoded rows in memory: "
    "as many milliseconds for a thousand are as many seconds for a million."
)


def write_ladder_report(ladder: Ladder, path: str | Path) -> Path:
    """Write what ladder.json holds as one HTML page, as `write_report` does a run's."""
    return write_page(render_ladder(ladder), Path(path))


def render_ladder(ladder: Ladder) -> str:
    """The page as text; the same ladder gives the same text."""
    warnings = [tag("li", str(line)) for line in ladder["warnings"]]
    drawn = [plot(f"{measure(ladder['metric'])} against {axis}", one) for axis, one in pictures(ladder).items()]
    sections: list[Child] = [
        tag("section", tag("h2", "Warnings"), tag("ul", warnings), class_="warnings") if warnings else None,
        section("Sizes", [legend(COLOURS), tag("div", drawn, class_="plots")], f"Knee: {knee_told(ladder)}."),
        section("Figures", _figures(ladder), NOTE),
        _origin(ladder),
    ]
    return shell(str(ladder["name"]), tag("body", _header(ladder), tag("main", sections)))


def pictures(ladder: Ladder) -> dict[str, Markup]:
    """The metric against each axis, both models of every size and the teacher, by what the axis is."""
    name = measure(ladder["metric"])
    found = {}
    for key, (axis, short) in AXES.items():
        series = _series(ladder, key)
        if series:
            found[short] = svg.curves(
                series, name=f"{name} by {short}", x_name=axis, y_name=f"{name} on test", log=True
            )
    return found


def _series(ladder: Ladder, key: str) -> list[svg.Series]:
    metric, teacher = ladder["metric"], ladder["teacher"]
    found = []
    for model, title in (("distilled", "distilled, best constant"), ("labels", "on labels")):
        points = sorted(
            (float(rung[key]), float(rung[model][metric]))
            for rung in ladder["rungs"]
            if rung[key] is not None and rung[model] is not None and rung[model][metric] is not None
        )
        found += [svg.Series(title, points, COLOURS[title])] if points else []
    if found and teacher[key] is not None and teacher["test"][metric] is not None:
        found.append(svg.Series("teacher", [(float(teacher[key]), float(teacher["test"][metric]))], COLOURS["teacher"]))
    return found


def _header(ladder: Ladder) -> Markup:
    facts = [("card", ladder["card"]), ("seeds", ladder["seeds"]), ("knee", ladder["knee"] or MISSING)]
    shown = [tag("span", f"{key} ", tag("b", str(value))) for key, value in facts]
    return tag(
        "header",
        tag("p", "Sizes of the student", class_="kicker"),
        tag("h1", str(ladder["name"])),
        tag("p", shown, class_="facts"),
    )


def _figures(ladder: Ladder) -> Markup:
    metric, teacher = ladder["metric"], ladder["teacher"]
    first = [count(teacher["parameters"]), fixed(teacher["latency_ms"], 3), fixed(teacher["test"][metric]), MISSING]
    last = [fixed(teacher["test"][name]) for name in ("auc", "nll")]
    cells: list[list[Child]] = [["teacher", *first, MISSING, MISSING, MISSING, *last]]
    for rung in ladder["rungs"]:
        if rung["model"] is None:
            continue
        name: list[Child] = [rung["size"], tag("small", described(rung["model"]), class_="under")]
        figures = [count(rung["parameters"]), fixed(rung["latency_ms"], 3)]
        figures += [fixed(rung["labels"][metric]), f"{fixed(rung['distilled'][metric])} ({rung['constant']})"]
        more = [kept(rung, metric), signed(rung["gain"]), interval_of(rung)]
        cells.append([name, *figures, *more, *(fixed(rung["distilled"][key]) for key in ("auc", "nll"))])
    return grid("Sizes", list(HEADINGS), cells)


def _origin(ladder: Ladder) -> Markup:
    extra = ladder["extra"]
    versions = ", ".join(f"{name} {number}" for name, number in sorted(extra["versions"].items()))
    spent = f"{duration(extra['cell_seconds'])} for all seeds, one after another"
    shown = tag("pre", extra["command"]) if extra.get("command") else None
    return section("Where it comes from", shown, f"{spent}; {versions}; {extra['table']}")
