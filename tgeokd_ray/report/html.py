"""`report.html`: one page that needs nothing but itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tgeokd_ray.report import plots, ratio, sweep
from tgeokd_ray.report.channel import labels
from tgeokd_ray.report.markup import Child, Markup, grid, tag
from tgeokd_ray.report.wording import (
    MISSING,
    best_possible,
    contenders,
    count,
    detail,
    duration,
    fixed,
    interval,
    many_classes,
    title,
)

# Nothing is loaded and nothing runs, whatever a name in the results may hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

Results = Mapping[str, Any]


def write_report(results: Results, path: str | Path) -> Path:
    """Write the results of a run (interface: results.json) as one HTML page without scripts or external requests.

    The same results give the same bytes. Text is escaped, whatever it holds. The page appears whole or not at all.
    """
    return write_page(render(results), Path(path))


def write_page(text: str, path: Path) -> Path:
    """Write the text of a page, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_bytes(text.encode("utf-8"))
    os.replace(draft, path)
    return path


def shell(title: str, body: Markup, styles: Sequence[str] = ()) -> str:
    """A whole page of this body, with the styles in it: those of all pages, and `styles` after them."""
    folder = files("tgeokd_ray.report")
    texts = [folder.joinpath(name).read_text(encoding="utf-8") for name in ("plots.css", "report.css", *styles)]
    style = Markup("".join(texts))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - TGeo-KD report"),
        tag("style", style),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def render(results: Results) -> str:
    """The page as text."""
    sections = [
        _warnings(results),
        sweep.sections(results),
        _models(results),
        plots.figures(results),
        plots.learning(results),
        ratio.section(results),
        plots.calibrated(results),
        labels(results),
        _classes(results),
        tag("div", _stages(results), _table(results), class_="pair"),
        _lineage(results),
        _configuration(results),
    ]
    styles = ["sweep.css"] if sweep.of(results) else []
    return shell(str(results["run"]), tag("body", _header(results), tag("main", sections)), styles)


def _header(results: Results) -> Markup:
    facts = [("card", results.get("card")), ("seed", results.get("seed")), ("chosen by", results.get("metric"))]
    shown = [tag("span", f"{key} ", tag("b", str(value))) for key, value in facts if value is not None]
    cards = [_card(model, results) for model in contenders(results)]
    return tag(
        "header",
        tag("p", "Knowledge distillation report", class_="kicker"),
        tag("h1", str(results["run"])),
        tag("p", shown, class_="facts"),
        tag("div", cards, class_="cards"),
    )


def _card(model: Results, results: Results) -> Markup:
    rate = model.get("rows_per_second")
    facts = [f"NLL {fixed(model.get('nll'))}"]
    facts += [f"{count(model['parameters'])} parameters"] if model.get("parameters") is not None else []
    facts += [f"{count(rate)} rows/s"] if rate is not None else []
    return tag(
        "div",
        tag("p", tag("i", class_=f"swatch c{plots.colour(results, model)}"), title(model), class_="name"),
        tag("p", fixed(model.get("auc")), tag("small", " AUC"), class_="big"),
        [tag("p", fact) for fact in facts],
        class_="card",
    )


def _warnings(results: Results) -> Markup | None:
    warnings = results.get("warnings") or []
    if not warnings:
        return None
    items = [tag("li", str(warning)) for warning in warnings]
    return tag("section", tag("h2", "Warnings"), tag("ul", items), class_="warnings", aria_label="Warnings")


def _models(results: Results) -> Markup:
    rates = sorted({rate for model in results["models"] for rate in model.get("detection_rate") or {}}, reverse=True)
    columns = ["AUC", "NLL", "accuracy", *(["macro-F1"] if many_classes(results) else []), "average precision"]
    columns += [f"found at {float(rate) * 100:g}%" for rate in rates]
    rows = []
    for model in results["models"]:
        cells = [_bounded(model, key) for key in ("auc", "nll", "accuracy")]
        cells += [fixed(model.get("macro_f1"))] if many_classes(results) else []
        cells += [fixed(model.get("average_precision"))]
        cells += [fixed((model.get("detection_rate") or {}).get(rate)) for rate in rates]
        cells += [count(model.get("parameters")), count(model.get("rows_per_second"))]
        mark = tag("i", class_=f"swatch c{plots.colour(results, model)}")
        under = tag("small", detail(model), class_="under") if detail(model) else None
        rows.append([[mark, title(model), under], *cells])
    rows += [[name, fixed(auc), *[MISSING] * (len(columns) + 1)] for name, auc in best_possible(results)]
    resampled = any(f"{name}_interval" in model for model in results["models"] for name in ("auc", "nll", "accuracy"))
    note = "On the test split" + ("; intervals at 95% by resampled rows." if resampled else ".")
    note += " A dash is a measure that is undefined or unknown."
    if rates:
        note += " Found at 1%: the share of other rows found while 1% of the negative class raise a false alarm."
    return plots.section("Results", grid("Models", ["model", *columns, "parameters", "rows/s"], rows), note)


def _bounded(model: Results, key: str) -> Child:
    bounds = interval(model.get(f"{key}_interval"))
    return [fixed(model.get(key)), tag("small", bounds, class_="under") if bounds else None]


def _classes(results: Results) -> Markup | None:
    models = [model for model in contenders(results) if model.get("recall")]
    if not models:
        return None
    classes = list(models[0]["recall"])
    names = dict(zip(classes, plots.class_names(results, classes), strict=True))
    shown, note = classes, None
    if len(classes) > plots.MOST_CLASSES:
        known = {key: [r for model in models if (r := model["recall"].get(key)) is not None] for key in classes}
        means = {key: sum(recalls) / len(recalls) for key, recalls in known.items() if recalls}
        shown = sorted(means, key=means.__getitem__)[: plots.MOST_CLASSES]
        note = f"The {len(shown)} lowest of {len(means)}; results.json has all."
    rows = [[names[key], *(fixed(model["recall"].get(key)) for model in models)] for key in shown]
    return plots.section("Recall by class", grid("Recall by class", ["class", *map(title, models)], rows), note)


def _stages(results: Results) -> Markup | None:
    stages = results.get("stages") or []
    rows: list[list[Child]] = [
        [
            stage["name"],
            "reused" if stage.get("reused") else duration(stage.get("seconds")),
            count(stage.get("rows") or None),
        ]
        for stage in stages
    ]
    return plots.section("Stages", grid("Stages", ["stage", "time", "rows"], rows)) if rows else None


def _table(results: Results) -> Markup | None:
    rows = ((results.get("table") or {}).get("rows") or {}).items()
    listed = grid("Rows by split", ["split", "rows"], [[str(split), count(number)] for split, number in rows])
    return plots.section("Data", listed) if rows else None


def _lineage(results: Results) -> Markup | None:
    table = results.get("table") or {}
    entries = [("table", table.get("artifact"), table.get("digest"))]
    entries += [(title(model), model.get("artifact"), model.get("digest")) for model in results["models"]]
    rows: list[list[Child]] = [
        [name, tag("code", str(label or MISSING)), tag("code", str(digest)[:16] if digest else MISSING)]
        for name, label, digest in entries
        if label or digest
    ]
    listed = grid("Lineage", ["what", "artifact", "digest"], rows, figures=False)
    return (
        plots.section("Lineage", listed, "Each artifact names its parents by digest: tgeokd verify checks them.")
        if rows
        else None
    )


def _configuration(results: Results) -> Markup | None:
    config = results.get("config")
    if not config:
        return None
    lines = json.dumps(config, indent=2, ensure_ascii=False, default=str).split("\n")
    text = [[line, Markup("\n")] for line in lines]
    return plots.section("Configuration", tag("details", tag("summary", "Every option of this run"), tag("pre", text)))
