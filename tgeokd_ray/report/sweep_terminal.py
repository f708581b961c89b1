"""A sweep on a terminal: its best trials, what it cost, why trials failed, what the best student reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tgeokd_ray.report.sweep_wording import confirmed, counted, failures, of_trial, paths, short, spent, winner
from tgeokd_ray.report.terminal import wide, write_warnings
from tgeokd_ray.report.wording import count, duration, fixed, measure, printable

MOST = 10


def sweep_table(results: Mapping[str, Any], console: Console, told: Sequence[str] = ()) -> None:
    """The best trials of a sweep by their metric on valid, a column for each parameter, or all in one where the console
    is narrow; then the counts and the cost, each reason of a failure once, what the best student reaches on test and
    which artifact it is, and the warnings, but those `told`."""
    sweep = results["extra"]["sweep"]
    best = [trial for trial in sweep["trials"] if trial["status"] == "finished"][:MOST]
    with wide(console):
        if best:
            apart = _table(sweep, best, console, apart=True)
            limitless = console.options.update(max_width=10_000)
            fits = Measurement.get(console, limitless, apart).maximum <= console.width
            console.print(apart if fits else _table(sweep, best, console, apart=False))
    lines = [("", f"{counted(sweep)}; {spent(sweep)}")]
    lines += [("failed: ", f"{count(len(group))} x {reason}") for reason, group in failures(sweep).items()]
    lines.append(("", winner(results)))
    lines += [("", told_) for told_ in [confirmed(sweep)] if told_ is not None]
    lines += [
        ("", f"best student: {model['artifact']}")
        for model in results["models"]
        if model["name"] == "best" and model.get("artifact")
    ]
    for kind, text in lines:
        line = Text.assemble((kind, "red"), printable(text, console.encoding))
        console.print(line, soft_wrap=True, highlight=False)
    write_warnings(results, console, told)


def _table(sweep: Mapping[str, Any], best: Sequence[Mapping[str, Any]], console: Console, *, apart: bool) -> Table:
    names = short(paths(sweep))
    heading = f"{sweep['name']}: {measure(sweep['metric'])} on valid"
    heading += f", the best {len(best)} of {count(len(sweep['trials']))} trials" if len(sweep["trials"]) > 1 else ""
    table = Table(
        box=box.SIMPLE_HEAD, title=Text(printable(heading, console.encoding), style="bold"), title_justify="left"
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("trial", no_wrap=True)
    for column in (measure(sweep["metric"]), "epochs", "time"):
        table.add_column(Text(printable(column, console.encoding)), justify="right", no_wrap=True)
    for column in names.values() if apart else ["parameters"]:
        table.add_column(Text(printable(column, console.encoding)))
    for number, trial in enumerate(best):
        cells = [str(trial["rank"] or ""), trial["name"], fixed(trial["value"])]
        cells += [count(trial["epochs"]), duration(trial["seconds"])]
        if apart:
            cells += [of_trial(trial, path) for path in names]
        else:
            cells.append(
                ", ".join(f"{names[path]}={of_trial(trial, path)}" for path in names if path in trial["point"])
            )
        table.add_row(
            *(Text(printable(cell, console.encoding)) for cell in cells), style="bold" if number == 0 else None
        )
    return table
