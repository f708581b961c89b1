"""How every benchmark prints its figures: a table on a terminal, with --json one line per figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value against its bar; `ok` is None, with a `reason` in the context, where it was not measured."""

    name: str
    value: float | None
    unit: str
    bar: str
    ok: bool | None
    spread: list[float] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)


Measure = Callable[[bool], Iterator[Figure]]


def main(title: str, measures: dict[str, Measure]) -> None:
    """Run the measures named on the command line (all by default); exit code 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("measures", nargs="*", choices=[*measures, []], help="which figures (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller inputs")
    parser.add_argument("--json", action="store_true", help="one line per figure on stdout")
    arguments = parser.parse_args()
    figures = []
    for name in arguments.measures or measures:
        began = time.monotonic()
        for figure in measures[name](arguments.quick):
            figures.append(_with_context(figure, time.monotonic() - began, arguments.quick))
            if arguments.json:
                print(json.dumps(asdict(figures[-1])), flush=True)
    if not arguments.json:
        print_table(figures)
    sys.exit(any(figure.ok is False for figure in figures))


def _with_context(figure: Figure, seconds: float, quick: bool) -> Figure:
    context = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "quick": quick,
        "seconds": round(seconds, 1),
    }
    return Figure(**{**asdict(figure), "context": {**context, **figure.context}})


def print_table(figures: Iterable[Figure]) -> None:
    """The figures as a table on the terminal; of one that was not measured, or failed, the reason."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("figure", "value", "unit", "bar", "ok", "spread"):
        table.add_column(heading, justify="right" if heading == "value" else "left", overflow="fold")
    for figure in figures:
        reason = str(figure.context.get("reason", "not measured"))
        value = "-" if figure.value is None else f"{figure.value:.6g}"
        spread = " .. ".join(f"{x:.6g}" for x in figure.spread)
        ok = {True: "yes", False: "NO" if figure.value is not None else f"NO: {reason}", None: reason}[figure.ok]
        table.add_row(figure.name, value, figure.unit, figure.bar, ok, spread)
    Console().print(table)
