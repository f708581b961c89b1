"""A ladder of sizes on a terminal: one line for the teacher and one for each size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgeokd_ray.report.terminal import wide
from tgeokd_ray.report.wording import MISSING, count, fixed, measure, printable

HEADINGS = ("parameters", "ms / 1000 rows", "on labels", "distilled", "kept", "gain", "95 % interval")


def ladder_table(ladder: Mapping[str, Any], console: Console) -> None:
    """The job's metric on test of the student on labels and of the one with the constant that was best on valid, the
    share of the teacher's figure that the latter keeps, and what it gains on the former; means over seeds. Bold: the
    knee. CPU time of one thread. Below stand the knee in a sentence, what makes it the card's, and the warnings."""
    metric = ladder["metric"]
    title = f"{measure(metric)} on test by size of the student, {ladder['card']}, {ladder['seeds']} seeds"
    table = Table(box=box.SIMPLE_HEAD, title=Text(printable(title, console.encoding)), title_justify="left")
    table.add_column("size")
    table.add_column("model")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    teacher = ladder["teacher"]
    figures = [count(teacher["parameters"]), fixed(teacher["latency_ms"], 3), fixed(teacher["test"][metric]), MISSING]
    table.add_row("teacher", "", *figures, *[MISSING] * 3)
    for rung in ladder["rungs"]:
        if rung["model"] is None:
            continue
        style = "bold" if rung["size"] == ladder["knee"] else ""
        cells = [rung["size"], described(rung["model"]), count(rung["parameters"]), fixed(rung["latency_ms"], 3)]
        cells += [fixed(rung["labels"][metric]), fixed(rung["distilled"][metric]), kept(rung, metric)]
        cells += [signed(rung["gain"]), interval_of(rung)]
        table.add_row(*(printable(cell, console.encoding) for cell in cells), style=style)
    with wide(console):
        console.print(table)
    below = [("knee", knee_told(ladder)), ("card", for_the_card(ladder))]
    for kind, text in [*below, *(("warning", text) for text in ladder["warnings"])]:
        if text is None:
            continue
        line = Text.assemble((f"{kind}: ", "yellow"), printable(text, console.encoding))
        console.print(line, soft_wrap=True, highlight=False)


def knee_told(ladder: Mapping[str, Any]) -> str:
    """Which size is enough, and by which rule."""
    rung = _knee(ladder)
    if rung is None:
        return f"none: {measure(ladder['metric'])} is undefined on valid"
    rule = "the best on valid; several seeds would say which smaller one is as good"
    if ladder["seeds"] > 1:
        rule = "the smallest that is on valid within a standard error of the best"
    return f"{rung['size']} ({count(rung['parameters'])} parameters, {described(rung['model'])}), {rule}"


def for_the_card(ladder: Mapping[str, Any]) -> str | None:
    """What makes the knee a student of the card, None where one seed alone has said which it is."""
    rung = _knee(ladder)
    if rung is None or ladder["seeds"] < 2:
        return None
    model = rung["model"]
    told = f"kind: {model['kind']}, hidden: {list(model['hidden'])}, embedding: {model['embedding']}"
    return f"students: {{recommended: {{{told}}}}}, trained by --set student.model=recommended"


def _knee(ladder: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((one for one in ladder["rungs"] if one["size"] == ladder["knee"]), None)


def described(model: Mapping[str, Any]) -> str:
    """`mlp 16-8, embedding 4`."""
    hidden = "-".join(str(units) for units in model["hidden"]) or "linear"
    return f"{model['kind']} {hidden}, embedding {model['embedding']}"


def kept(rung: Mapping[str, Any], metric: str) -> str:
    """The share of the teacher's figure, of AUC where the metric is one that is better when smaller."""
    share = (rung["kept"] or {}).get(metric, (rung["kept"] or {}).get("auc"))
    return MISSING if share is None else f"{share:.1%}"


def signed(value: float | None) -> str:
    """`+0.0123`, or a dash."""
    return MISSING if value is None else f"{value:+.4f}"


def interval_of(rung: Mapping[str, Any]) -> str:
    """`+0.0100 to +0.0150`, or a dash for one seed."""
    return MISSING if rung["low"] is None else f"{rung['low']:+.4f} to {rung['high']:+.4f}"
