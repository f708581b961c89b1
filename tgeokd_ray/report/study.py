"""A study on a terminal: one line for each rule on each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgeokd_ray.report.terminal import wide
from tgeokd_ray.report.wording import MISSING, fixed, printable

LEGEND = "* differs from the constant at 5 %, corrected for all differences of the study (Holm)"


def study_table(study: Mapping[str, Any], console: Console) -> None:
    """NLL, AUC and accuracy on test, and the NLL minus that of the constant chosen on the same seeds, with its 95 %
    interval over them; bold where it excludes 0 and is better, with a star where it survives the correction for all
    differences of the study. Of each dataset, the reference ratio comes first: what there is to win. A rule that is
    undefined there has the reason in its line. Below stand the notes, on datasets where there is nothing to win and on
    what survives, and the warnings."""
    table = Table(box=box.SIMPLE_HEAD, title=Text("NLL against the best constant"), title_justify="left")
    for heading in ("dataset", "rule"):
        table.add_column(heading)
    for heading in ("seeds", "NLL", "AUC", "accuracy", "against constant", "95 % interval", "of the reference"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("chosen on valid")
    # Of nothing there is no share.
    nothing = {row["dataset"] for row in study["rows"] if row["rule"] == "reference" and (row["high"] or -1) >= 0}
    starred = any(row.get("survives") for row in study["rows"])
    before = None
    for row in study["rows"]:
        if before not in (None, row["dataset"]):
            table.add_section()
        shown = "" if row["dataset"] == before else row["dataset"]
        before = row["dataset"]
        cells = [printable(text, console.encoding) for text in (shown, row["rule"])]
        figures = [str(row["seeds"]), *(fixed(row[name]) for name in ("nll", "auc", "accuracy"))]
        star = "" if not starred else "*" if row.get("survives") else " "
        difference = Text(_signed(row["nll_vs_constant"]) + star, style="bold" if (row["high"] or 0) < 0 else "")
        share = MISSING if row["dataset"] in nothing else _share(row)
        last = str(row["chosen"]) if row.get("refused") is None else f"refused: {row['refused']}"
        table.add_row(*cells, *figures, difference, _interval(row), share, printable(last, console.encoding))
    with wide(console):
        console.print(table)
    if starred:
        console.print(LEGEND, soft_wrap=True, highlight=False)
    for kind, text in [*(("note", n) for n in study["notes"]), *(("warning", w) for w in study["warnings"])]:
        line = Text.assemble((f"{kind}: ", "yellow"), printable(text, console.encoding))
        console.print(line, soft_wrap=True, highlight=False)


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.4f}"


def _interval(row: Mapping[str, Any]) -> str:
    return MISSING if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}"


def _share(row: Mapping[str, Any]) -> str:
    """What part of the reference's gain a rule has, where the reference has one."""
    gain, best = row["nll_vs_constant"], row.get("oracle_vs_constant")
    return f"{gain / best:.0%}" if gain is not None and best is not None and best < -1e-4 else MISSING
