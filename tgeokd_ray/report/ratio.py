"""What the fusion ratio does: the section of a report that shows it from every side that the results know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgeokd_ray.report import heat, plots, svg
from tgeokd_ray.report.markup import Markup, grid, tag
from tgeokd_ray.report.plots import plot
from tgeokd_ray.report.wording import MISSING, contenders, count, fixed, point, title

LEARNED = 1  # its colour on the whole page
NOTE = "The weight of the teacher in a row's loss, by row: 0 learns from the label only, 1 from the teacher only."

Results = Mapping[str, Any]


def section(results: Results) -> Markup | None:
    """Whether a ratio per sample pays and what was chosen from; how the ratio of every model of the comparison that has
    one is distributed; and of the learned one its course, and its means by geometry, column and region."""
    told = (results.get("extra") or {}).get("ratio") or {}
    effect = told.get("effect") or {}
    learned = next((model for model in contenders(results) if model["name"] == "tgeo"), {})
    drawn = [
        *_distributions(results, told),
        *_training(told),
        *heat.geometry(effect),
        *(heat.choices(results, learned) if learned else []),
        *_columns(effect),
    ]
    if not drawn:
        return None
    content = [
        tag("p", told["verdict"], class_="verdict") if told.get("verdict") else None,
        tag("p", _described(told), class_="note") if effect else None,
        tag("div", drawn, class_="plots"),
        _known(effect),
    ]
    return plots.section("What the ratio does", content, NOTE)


def _described(told: Results) -> str:
    """Which ratio the plots of the learned one tell of, and on which rows."""
    whose = "The learned ratio" if told["pays"] else "The best learned ratio, which was not used,"
    rows = count(told["effect"]["rows"])
    medians = ", ".join(fixed(one["median_distance"], 3) for one in told["effect"]["geometry"])
    near = f" The student is near its teacher where |S - T| is at most its median, {medians}; " if medians else ""
    right = "a teacher is right where its first choice is the label." if medians else ""
    return f"{whose} has {point(told)}; it is shown on the {rows} labelled rows that it was learned on.{near}{right}"


def _distributions(results: Results, told: Results) -> list[Markup]:
    drawn = []
    for model in contenders(results):
        learned = model["name"] == "tgeo" and bool(told.get("effect"))
        ratio = told["effect"] if learned else model.get("ratio") or {}
        histogram, by_class = ratio.get("histogram"), ratio.get("by_class") or {}
        kind = str((model.get("rule") or {}).get("kind"))
        if not histogram or not histogram["counts"] or kind in ("labels", "constant"):
            continue
        unused = ", not used" if learned and not told["pays"] else ""
        name = f"{title(model)}{unused}: weight of the teacher by row, mean {fixed(ratio.get('mean'), 3)}"
        shade = plots.colour(results, model)
        bars = svg.histogram(histogram["edges"], histogram["counts"], name=name, x_name="fusion ratio", colour=shade)
        drawn.append(plot(name, bars))
        present = [key for key, mean in by_class.items() if mean is not None]
        told_of = ""
        if len(present) > plots.MOST_CLASSES:
            half = plots.MOST_CLASSES // 2
            told_of = f", the {half} lowest and the {half} highest of {count(len(present))}"
            by_mean = sorted(present, key=by_class.__getitem__)
            present = by_mean[:half] + by_mean[-half:]
        names = plots.class_names(results, present)
        rows = [svg.Row(n, float(by_class[key]), None, shade) for key, n in zip(present, names, strict=True)]
        if rows:
            name = f"{title(model)}{unused}: mean weight of the teacher by class{told_of}"
            drawn.append(plot(name, svg.intervals(rows, name=name, digits=3, span=(0.0, 1.0))))
    return drawn


def _training(told: Results) -> list[Markup]:
    """The median ratio over the epochs of the first phase, within the 10 % and 90 % points."""
    entries = [entry for entry in told.get("training") or [] if entry.get("ratio_p50") is not None]
    if not entries:
        return []
    xs, low, middle, high = (
        [float(entry[key]) for entry in entries] for key in ("epoch", "ratio_p10", "ratio_p50", "ratio_p90")
    )
    name = "While it was learned, at level 1/2: median, and 10 % to 90 % of the rows"
    median = svg.Series("fusion ratio", list(zip(xs, middle, strict=True)), LEARNED)
    return [plot(name, svg.band(xs, low, median, high, name=name, x_name="epoch"))]


def _columns(effect: Results) -> list[Markup]:
    """A dot per value of a column, beside the mean over all rows."""
    drawn = []
    for segment in effect.get("segments") or []:
        rows = [
            svg.Row(f"{_short(one['value'])}, {count(one['rows'])}", one["mean"], None, LEARNED)
            for one in segment["values"]
        ]
        rest = segment["rest"]
        if rest is not None:
            rows.append(svg.Row(f"{rest['values']} others, {count(rest['rows'])}", rest["mean"], None, 0))
        if rows:
            name = f"Mean weight of the teacher by {segment['column']}, with rows"
            drawn.append(plot(name, svg.intervals(rows, name=name, digits=3, mark=effect["mean"])))
    return drawn


def _short(value: str) -> str:
    return value if len(value) <= 13 else f"{value[:12]}…"


def _known(effect: Results) -> Markup | None:
    """Beside the ratio that is known to be good, by region."""
    truth = effect.get("truth")
    if not truth:
        return None
    rows = [
        [one["region"], fixed(one["mean"], 3), fixed(one["known"], 3), count(one["rows"])] for one in truth["regions"]
    ]
    found = ", ".join(MISSING if one is None else f"{one:.3f}" for one in truth["correlation"])
    told = f"Beside the known ratio, by region: the correlation over {count(truth['rows'])} rows is {found}."
    return tag(
        "div", tag("p", told), grid("By region", ["region", "mean ratio", "known ratio", "rows"], rows), class_="known"
    )
