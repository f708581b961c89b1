"""Which plots a report shows, and from which keys of the results; those without data are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tgeokd_ray.report import svg
from tgeokd_ray.report.markup import Child, Markup, tag
from tgeokd_ray.report.wording import contenders, displayed, title

NUM_COLOURS = 7
MOST_CLASSES = 60  # that a table or a plot shows one by one
CURVES = (("valid_auc", "AUC on valid"), ("valid_nll", "NLL on valid"), ("loss", "training loss"))

Results = Mapping[str, Any]


def section(heading: str, content: Child, note: str | None = None) -> Markup:
    """A titled part of the page."""
    return tag("section", tag("h2", heading), tag("p", note, class_="note") if note else None, content)


def colour(results: Results, model: Results) -> int:
    """The model's colour on the whole page: 0 grey for the teacher, then one after another, 1 for the learned ratio."""
    names = [m["name"] for m in results["models"] if m.get("role") != "teacher" and m["name"] != "tgeo"]
    if model.get("role") == "teacher":
        return 0
    return 1 if model["name"] == "tgeo" else 2 + names.index(model["name"]) % (NUM_COLOURS - 2)


def class_names(results: Results, classes: Sequence[str]) -> list[str]:
    """What a report calls these classes: by the names for reports that the card gives some, else by their own."""
    return displayed((results.get("table") or {}).get("display") or {}, classes)


def figures(results: Results) -> Markup | None:
    """AUC and NLL of every model of the comparison, with intervals."""
    shown = [_figure(results, "auc", "AUC", "higher is better"), _figure(results, "nll", "NLL", "lower is better")]
    plots = [plot for plot in shown if plot is not None]
    return section("AUC and NLL", tag("div", plots, class_="plots")) if plots else None


def _figure(results: Results, key: str, name: str, better: str) -> Markup | None:
    rows = []
    for model in contenders(results):
        if model.get(key) is not None:
            bounds = model.get(f"{key}_interval")
            ends = (float(bounds[0]), float(bounds[1])) if bounds else None
            rows.append(svg.Row(title(model), float(model[key]), ends, colour(results, model)))
    return plot(f"{name}, {better}", svg.intervals(rows, name=f"{name} on test, {better}")) if rows else None


def learning(results: Results) -> Markup | None:
    """Curves over epochs of every model of the comparison that has a history."""
    plots, seen = [], {}
    for key, name in CURVES:
        series = []
        for model in contenders(results):
            points = [(float(e["epoch"]), float(e[key])) for e in model.get("history") or [] if e.get(key) is not None]
            if points:
                series.append(svg.Series(title(model), points, colour(results, model)))
                seen[title(model)] = colour(results, model)
        if series:
            plots.append(plot(name, svg.curves(series, name=name, x_name="epoch", y_name=name)))
    return section("Learning curves", [legend(seen), tag("div", plots, class_="plots")]) if plots else None


def calibrated(results: Results) -> Markup | None:
    """Confidence against the share predicted right, for each model of the comparison that has bins."""
    series, seen = [], {}
    for model in contenders(results):
        bins = model.get("calibration") or []
        if bins:
            points = [(float(b["confidence"]), float(b["accuracy"])) for b in bins]
            series.append(svg.Series(title(model), points, colour(results, model)))
            seen[title(model)] = colour(results, model)
    if not series:
        return None
    drawn = plot("Share predicted right by confidence", svg.calibration(series, name="Calibration on test"))
    note = "On the dashed line confidence is what it says; below it the model is too sure."
    return section("Calibration", [legend(seen), tag("div", drawn, class_="plots")], note)


def plot(caption: str, drawing: Markup) -> Markup:
    """A drawing under its caption."""
    return tag("figure", tag("figcaption", caption), drawing)


def legend(colours: Mapping[str, int]) -> Markup:
    """Names beside their colours."""
    items = [tag("span", tag("i", class_=f"swatch c{number}"), name) for name, number in colours.items()]
    return tag("p", items, class_="legend")
