"""`report.html` of a study: paired differences with both kinds of intervals, figures, calibration, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tgeokd_ray.report import svg
from tgeokd_ray.report.html import shell, write_page
from tgeokd_ray.report.markup import Child, Markup, grid, tag
from tgeokd_ray.report.plots import legend, plot, section
from tgeokd_ray.report.wording import MISSING, duration, fixed

Study = Mapping[str, Any]
Row = Mapping[str, Any]

BETTER, WORSE, UNSURE = 1, 6, 0  # colours
MEANING = {"survives, better": BETTER, "survives, worse": WORSE, "does not survive": UNSURE}
ALL = ("low_all", "high_all")
# Whose calibration is drawn, and in which colour; the teachers are grey.
CALIBRATED = {"labels": 3, "constant": 2, "reference": 4, "tgeo.each": 1}
HEADINGS = ("rule", "seeds", "NLL", "AUC", "accuracy", "against constant", "95%", "all together", "p (Holm)")
READING = (
    "Test NLL minus that of the constant chosen on valid, paired by seed; left of the dashed line is better. Thick: "
    "the 95% interval of this difference alone. Thin: intervals of all differences of the study, which hold together "
    "with 95% (Bonferroni), cut off where they are much wider. A difference survives where Holm's p-value, for all of "
    "them, is at most .05; it then has a star in the table."
)
FAR = 2.5  # times the largest of all figures and single intervals: where a thin line is cut off
SIZES = "Means over seeds on test. On the line nothing smaller is better."


def write_study_report(study: Study, path: str | Path) -> Path:
    """Write what study.json holds as one HTML page, as `write_report` does a run's."""
    return write_page(render_study(study), Path(path))


def render_study(study: Study) -> str:
    """The page as text; the same study gives the same text."""
    datasets = list(dict.fromkeys(row["dataset"] for row in study["rows"]))
    sections: list[Child] = [_lines("Warnings", study["warnings"], "warnings"), _lines("Notes", study["notes"])]
    sections += [_dataset(study, name, READING if name == datasets[0] else None) for name in datasets]
    sections += [_sizes(study, datasets), _origin(study)]
    return shell(str(study["name"]), tag("body", _header(study, datasets), tag("main", sections)))


def _header(study: Study, datasets: Sequence[str]) -> Markup:
    counted = [row for row in study["rows"] if row.get("survives") is not None]
    facts = [("datasets", len(datasets)), ("seeds", max((row["seeds"] for row in study["rows"]), default=0))]
    facts += [("differences", len(counted)), ("that survive", sum(row["survives"] for row in counted))]
    points = study["extra"].get("grid")
    shown = [tag("span", f"{key} ", tag("b", str(value))) for key, value in facts]
    if points is not None:
        axes = [", ".join(f"{value:g}" for value in points[key]) for key in ("temperatures", "rates")]
        shown.append(tag("span", "temperatures ", tag("b", axes[0]), ", learning rates times ", tag("b", axes[1])))
    return tag(
        "header",
        tag("p", "Study of distillation rules", class_="kicker"),
        tag("h1", str(study["name"])),
        tag("p", shown, class_="facts"),
    )


def _lines(heading: str, lines: Sequence[str], kind: str | None = None) -> Markup | None:
    items = [tag("li", str(line)) for line in lines]
    return tag("section", tag("h2", heading), tag("ul", items), class_=kind) if items else None


def _dataset(study: Study, dataset: str, note: str | None) -> Markup:
    rows = [row for row in study["rows"] if row["dataset"] == dataset]
    plots = [_forest(rows, dataset), _calibration(study, rows, dataset)]
    drawn = tag("div", [one for one in plots if one is not None], class_="plots")
    colours = MEANING if any(row.get("survives") is not None for row in rows) else {}
    return section(dataset, [legend(colours) if colours else None, drawn, _figures(study, rows, dataset)], note)


def pictures(study: Study) -> dict[str, Markup]:
    """The drawings that a document shows, by a part of a file's name: paired differences and calibration by dataset."""
    found: dict[str, Markup | None] = {}
    for dataset in dict.fromkeys(row["dataset"] for row in study["rows"]):
        rows = [row for row in study["rows"] if row["dataset"] == dataset]
        found[f"{dataset}-differences"] = differences(rows, dataset)
        curves = _calibration_curves(study, rows, dataset)
        found[f"{dataset}-calibration"] = svg.calibration(curves, name=f"Calibration on {dataset}") if curves else None
    return {name: drawing for name, drawing in found.items() if drawing is not None}


def _forest(rows: Sequence[Row], dataset: str) -> Markup | None:
    drawing = differences(rows, dataset)
    return None if drawing is None else plot("NLL against the constant, lower is better", drawing)


def differences(rows: Sequence[Row], dataset: str) -> Markup | None:
    """The paired differences of all rules of a dataset but the constant itself, with both kinds of intervals."""
    shown = [row for row in rows if row["nll_vs_constant"] is not None and row["rule"] != "constant"]
    if not shown:
        return None
    single = [abs(end) for row in shown for end in (row["nll_vs_constant"], *(_ends(row, "low", "high") or ()))]
    far = FAR * max(single)
    drawn = []
    for row in shown:
        low, high = _ends(row, *ALL) or (row["nll_vs_constant"],) * 2
        wider = max(low, -far), min(high, far)
        drawn.append(svg.Row(row["rule"], row["nll_vs_constant"], _ends(row, "low", "high"), _colour(row), wider))
    name = f"NLL against the constant on {dataset}"
    return svg.intervals(drawn, name=name, mark=0.0)


def _ends(row: Row, low: str, high: str) -> tuple[float, float] | None:
    return None if row.get(low) is None else (row[low], row[high])


def _colour(row: Row) -> int:
    if not row.get("survives"):
        return UNSURE
    return BETTER if row["nll_vs_constant"] < 0 else WORSE


def _figures(study: Study, rows: Sequence[Row], dataset: str) -> Markup:
    cells = []
    for one in _teachers(study, dataset):
        figures = [fixed(one[name]) for name in ("nll", "auc", "accuracy")]
        cells.append([one["name"], MISSING, *figures, *[MISSING] * 4])
    for row in rows:
        under = row["chosen"] if row.get("refused") is None else f"refused: {row['refused']}"
        name: list[Child] = [row["rule"], tag("small", str(under), class_="under") if under else None]
        figures = [fixed(row[name]) for name in ("nll", "auc", "accuracy")]
        against = _signed(row["nll_vs_constant"]) + ("*" if row.get("survives") else "")
        holm = MISSING if row.get("p_holm") is None else f"{row['p_holm']:.2g}"
        bounds = [_interval(row, "low", "high"), _interval(row, *ALL)]
        cells.append([name, str(row["seeds"]), *figures, against, *bounds, holm])
    return grid(f"Rules on {dataset}", list(HEADINGS), cells)


def _calibration(study: Study, rows: Sequence[Row], dataset: str) -> Markup | None:
    series = _calibration_curves(study, rows, dataset)
    if not series:
        return None
    drawn = svg.calibration(series, name=f"Calibration on {dataset}")
    caption = "Share predicted right by confidence; below the dashed line a model is too sure"
    return tag("div", plot(caption, drawn), legend({one.name: one.colour for one in series}))


def _calibration_curves(study: Study, rows: Sequence[Row], dataset: str) -> list[svg.Series]:
    """Over the test rows of all seeds, of the teachers and of those rules that every study has."""
    known = [(one["name"], one["calibration"], 0) for one in _teachers(study, dataset)]
    known += [(row["rule"], row.get("calibration"), CALIBRATED.get(row["rule"], -1)) for row in rows]
    return [
        svg.Series(name, [(one["confidence"], one["accuracy"]) for one in bins], colour)
        for name, bins, colour in known
        if bins and colour >= 0
    ]


def _sizes(study: Study, datasets: Sequence[str]) -> Markup | None:
    """AUC against parameters, for each table of which the study has students of several sizes."""
    families: dict[str, list[str]] = {}
    for dataset in datasets:
        families.setdefault(family(dataset), []).append(dataset)
    plots = [_size(study, name, members) for name, members in families.items()]
    drawn = [one for one in plots if one is not None]
    colours = legend({"teachers": 0, "students": 3, "best for its size": 2})
    return section("Sizes", [colours, tag("div", drawn, class_="plots")], SIZES) if drawn else None


def family(dataset: str) -> str:
    """The regime that a dataset is of, `nsl_kdd.both` of `nsl_kdd.both.20000`. A whole table, `CARD.whole`, is a family
    of its own, whatever dots the card's name has."""
    return dataset if dataset.endswith(".whole") else ".".join(dataset.split(".")[:2])


def _size(study: Study, name: str, datasets: Sequence[str]) -> Markup | None:
    rows = [row for row in study["rows"] if row["dataset"] in datasets and row.get("parameters") is not None]
    if len({row["parameters"] for row in rows}) < 2:
        return None
    told = [(f"{row['rule']} ({row['dataset']})", row, 3) for row in rows]
    told += [(f"{one['name']} ({name})", one, 0) for name in datasets for one in _teachers(study, name)]
    known = [
        (title, float(one["parameters"]), float(one["auc"]), colour)
        for title, one, colour in told
        if one["parameters"] is not None and one["auc"] is not None
    ]
    front = svg.Series("best for its size", pareto([(size, auc) for _, size, auc, _ in known]), 2)
    series = [front, *(svg.Series(title, [(size, auc)], colour) for title, size, auc, colour in known)]
    drawn = svg.curves(series, name=f"AUC by size on {name}", x_name="parameters", y_name="AUC")
    return plot(f"{name}: AUC against parameters, higher and further left is better", drawn)


def pareto(points: Sequence[svg.Point]) -> list[svg.Point]:
    """Of (size, value) those than which none is as small and better, from the smallest on."""
    found: list[svg.Point] = []
    for size, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or value > found[-1][1]:
            found.append((size, value))
    return found


def _origin(study: Study) -> Markup | None:
    extra = study["extra"]
    versions = ", ".join(f"{name} {number}" for name, number in sorted((extra.get("versions") or {}).items()))
    spent = f"{duration(extra.get('cell_seconds'))} for all cells, one after another"
    command = extra.get("command")
    shown = tag("pre", command) if command else None
    return section("Where it comes from", shown, "; ".join(part for part in (spent, versions) if part))


def _teachers(study: Study, dataset: str) -> Sequence[Row]:
    found: Sequence[Row] = (study["extra"].get("teachers") or {}).get(dataset, ())
    return found


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.4f}"


def _interval(row: Row, low: str, high: str) -> str:
    ends = _ends(row, low, high)
    return MISSING if ends is None else f"{ends[0]:+.4f} to {ends[1]:+.4f}"
