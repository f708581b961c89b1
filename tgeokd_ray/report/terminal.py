"""What a user sees of a job: its progress, the final table, the summary of a raw table, an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgeokd_ray.errors import UserError
from tgeokd_ray.report.channel import sentence
from tgeokd_ray.report.progress import TerminalProgress
from tgeokd_ray.report.wording import (
    MISSING,
    best_possible,
    contenders,
    count,
    detail,
    fixed,
    interval,
    many_classes,
    printable,
    title,
)

__all__ = ["TerminalProgress", "error_block", "results_table", "summary_table"]

PLAIN_WIDTH = 200  # rich takes 80 columns where there is no terminal; a log file has no width


def results_table(results: Mapping[str, Any], console: Console, told: Sequence[str] = ()) -> None:
    """The final table: each model of the comparison with AUC, NLL, accuracy, parameters and rows per second.

    The best student by each measure is bold. Macro-F1 is added beyond two classes, intervals where there are some, the
    Bayes AUC where the table knows it. `-` is a measure that is undefined. Below stand whether a ratio per sample pays,
    and the warnings, but those `told`.
    """
    models = contenders(results)
    measures = [("AUC", "auc"), ("NLL", "nll"), ("accuracy", "accuracy")]
    measures += [("macro-F1", "macro_f1")] if many_classes(results) else []
    best = {key: _best(models, key) for _, key in measures}
    table = Table(box=box.SIMPLE_HEAD, title=Text(_heading(results, console), style="bold"), title_justify="left")
    table.add_column("model")
    for heading in [name for name, _ in measures] + ["parameters", "rows/s"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for model in models:
        cells = [_name(model, console)]
        cells += [_measure(model, key, model is best[key]) for _, key in measures]
        cells += [Text(count(model.get("parameters"))), Text(count(model.get("rows_per_second")))]
        table.add_row(*cells)
    for name, auc in best_possible(results):
        row = [Text(name, style="dim"), Text(fixed(auc))]
        table.add_row(*row, *[MISSING] * (len(measures) + 1))
    with wide(console):
        console.print(table)
    said = ((results.get("extra") or {}).get("ratio") or {}).get("verdict")
    if said:
        console.print(Text(printable(said, console.encoding)), soft_wrap=True, highlight=False)
    labels = sentence(results)
    if labels is not None:
        console.print(printable(labels, console.encoding), soft_wrap=True, highlight=False, markup=False)
    write_warnings(results, console, told)


def write_warnings(results: Mapping[str, Any], console: Console, told: Sequence[str] = ()) -> None:
    """A line for each warning of the results, but those `told`."""
    for warning in results.get("warnings") or []:
        if warning not in told:
            line = Text.assemble(("warning: ", "yellow"), printable(warning, console.encoding))
            console.print(line, soft_wrap=True, highlight=False)


def _name(model: Mapping[str, Any], console: Console) -> Text:
    under = printable(detail(model), console.encoding)
    return Text.assemble(printable(title(model), console.encoding), (f"\n{under}" if under else "", "dim"))


def _heading(results: Mapping[str, Any], console: Console) -> str:
    rows = ((results.get("table") or {}).get("rows") or {}).get("test")
    return printable(f"{results['run']}: test split" + (f", {count(rows)} rows" if rows else ""), console.encoding)


def _best(models: list[Mapping[str, Any]], key: str) -> Mapping[str, Any] | None:
    students = [model for model in models if model.get("role") != "teacher" and model.get(key) is not None]
    pick = min if key == "nll" else max
    return pick(students, key=lambda model: float(model[key])) if len(students) > 1 else None


def _measure(model: Mapping[str, Any], key: str, best: bool) -> Text:
    figure, bounds = fixed(model.get(key)), interval(model.get(f"{key}_interval"))
    return Text.assemble((figure, "bold" if best else ""), (f"\n{bounds}" if bounds else "", "dim"))


@contextmanager
def wide(console: Console) -> Iterator[None]:
    """Room for a whole table where there is no terminal to give a width."""
    if console.is_terminal or console.width >= PLAIN_WIDTH:
        yield
        return
    width = console.width
    console.width = PLAIN_WIDTH
    try:
        yield
    finally:
        console.width = width


def summary_table(summary: Mapping[str, Any], console: Console) -> None:
    """Any summary of plain values: one line per figure, one table per list of mappings or mapping of mappings.

    Names from outside are escaped; a value that is a list is joined by commas.
    """
    width = max((len(str(name)) for name in summary), default=0) + 2
    for name, value in summary.items():
        rows = [{"name": key, **row} for key, row in value.items()] if _nested(value) else value
        if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
            with wide(console):
                console.print(_plain_table(str(name), rows, console))
        else:
            line = Text.assemble((f"{printable(name, console.encoding):<{width}}", "bold"), _cell(value, console))
            console.print(line, soft_wrap=True, highlight=False)


def _nested(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(row, Mapping) for row in value.values())


def _plain_table(name: str, rows: Sequence[Mapping[str, Any]], console: Console) -> Table:
    headings = list(dict.fromkeys(key for row in rows for key in row))
    heading = Text(printable(name, console.encoding), style="bold")
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left")
    for key in headings:
        numbers = all(isinstance(row.get(key), int | float) for row in rows)
        table.add_column(Text(printable(key, console.encoding)), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*[_cell(row.get(key), console) for key in headings])
    return table


def _cell(value: object, console: Console) -> Text:
    if value is None:
        return Text(MISSING)
    if isinstance(value, Mapping):
        value = [f"{key} {_cell(item, console)}" for key, item in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(str(_cell(item, console)) for item in value) or "none"
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return Text(printable(value, console.encoding))


def error_block(error: UserError, console: Console) -> None:
    """The error as one block of plain lines: its code and problems, the total, what to do next."""
    for number, text in enumerate(str(error).split("\n")):
        line = Text(printable(text, console.encoding), style="bold red" if number == 0 else "")
        console.print(line, soft_wrap=True, highlight=False)
