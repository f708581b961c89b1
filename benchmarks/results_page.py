"""The tables and plots of studies in a document, written from their Parquet files: nothing is copied by hand.

python benchmarks/results_page.py ROOT/studies/NAME/{study,ladder}.parquet ... [--page docs/results.md] [--check]

What stands between the two markers of the page is replaced, one part for each file in the order given; the rest stays
as it is. Plots are SVG files in `figures/` beside the page; those that no part shows any more are removed. The same
files give the same text. --check writes nothing, and exits with 1 where page or plots differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tgeokd_ray.pipeline import ladder, study
from tgeokd_ray.report.ladder import described, interval_of, kept, knee_told, signed
from tgeokd_ray.report.ladder_page import pictures as ladder_pictures
from tgeokd_ray.report.picture import picture
from tgeokd_ray.report.study_page import pictures as study_pictures
from tgeokd_ray.report.wording import count, measure

FIGURES = "figures"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
BEGIN = "<!-- studies: from here on written by benchmarks/results_page.py -->"
END = "<!-- studies: to here -->"
HEADINGS = ("rule", "seeds", "NLL", "AUC", "accuracy", "against the constant", "all together", "p (Holm)", "chosen")
READING = """\
Differences of test NLL from the constant chosen on valid, paired by seed, with 95 % intervals; below 0 is better. One
with a star survives Holm's correction for all differences of its study at 5 %; intervals under *all together* hold at
once (Bonferroni); in the plots they are the thin lines. Curves of calibration: grey is the teacher, green the student
on labels, orange the best constant, purple the reference, blue `tgeo.each`. [How a study is
read](regimes.md#how-a-study-is-read)."""


def read(path: Path) -> dict[str, Any]:
    """What study.json or ladder.json holds, from the Parquet file alone. SystemExit for a file of anything else."""
    table = pq.read_table(path)
    found = table.schema.metadata or {}
    if study.METADATA in found:
        return {**json.loads(found[study.METADATA]), "rows": table.to_pylist()}
    if ladder.METADATA in found:
        return {**json.loads(found[ladder.METADATA]), "rungs": ladder.read_rungs(table)}
    sys.exit(f"{path}: no study of this version: run jobs/benchmark.py again, finished cells are taken over")


def part(told: Mapping[str, Any]) -> str:
    """The part of one study or ladder: its command, what it cost, its tables and plots."""
    extra, ladder_ = told["extra"], "rungs" in told
    versions = ", ".join(f"{name} {number}" for name, number in sorted(extra["versions"].items()))
    command = extra["command"] or f"(not started by jobs/{'size_ladder' if ladder_ else 'benchmark'}.py)"
    heading, items = ("Sizes", "seeds") if ladder_ else ("Study", "cells")
    lines = [f"### {heading} `{told['name']}`", "", "```", command, "```", ""]
    lines += [f"{extra['cell_seconds']:,.0f} s for its {items}, one after another; {versions}.", ""]
    return "\n".join([*lines, *(_of_ladder(told) if ladder_ else _of_study(told))])


def drawings(told: Mapping[str, Any]) -> dict[str, str]:
    """The SVG files of a study or ladder, by the path from the page."""
    found = ladder_pictures(told) if "rungs" in told else study_pictures(told)
    return {_path(told, name): picture(drawing) for name, drawing in found.items()}


def _path(told: Mapping[str, Any], name: str) -> str:
    return f"{FIGURES}/{told['name']}-{name}.svg".replace(" ", "-")


def _shown(told: Mapping[str, Any], names: Sequence[str]) -> str:
    return " ".join(f"![{name}]({_path(told, name)})" for name in names)


def _of_study(told: Mapping[str, Any]) -> list[str]:
    lines, drawn = [], study_pictures(told)
    for dataset in dict.fromkeys(row["dataset"] for row in told["rows"]):
        own = [row for row in told["rows"] if row["dataset"] == dataset]
        lines += [f"`{dataset}`", "", _line(HEADINGS), _line(["---"] * len(HEADINGS)), *map(_row, own), ""]
        names = [name for name in (f"{dataset}-differences", f"{dataset}-calibration") if name in drawn]
        lines += [_shown(told, names), ""] if names else []
    notes = [*told["notes"], *(f"warning: {text}" for text in told["warnings"])]
    return [*lines, *(f"- {_escaped(note)}" for note in notes), *([""] if notes else [])]


def _of_ladder(told: Mapping[str, Any]) -> list[str]:
    metric, teacher = told["metric"], told["teacher"]
    name = measure(metric)
    headings = (
        "size",
        "model",
        "parameters",
        "ms / 1000 rows",
        f"{name} on labels",
        f"{name} distilled",
        "kept",
        "gain",
    )
    size, milliseconds = count(teacher["parameters"]), _fixed(teacher["latency_ms"])
    lines = [f"`{told['card']}`, {told['seeds']} seeds, means on test.", "", _line(headings)]
    lines += [_line(["---"] * len(headings))]
    lines += [_line(["teacher", "", size, milliseconds, _fixed(teacher["test"][metric]), "", "", ""])]
    for rung in (rung for rung in told["rungs"] if rung["model"] is not None):
        knee = " (knee)" if rung["size"] == told["knee"] else ""
        cells = [rung["size"] + knee, described(rung["model"]), count(rung["parameters"]), _fixed(rung["latency_ms"])]
        gain = signed(rung["gain"]) + ("" if rung["low"] is None else f" [{interval_of(rung).replace(' to ', ', ')}]")
        distilled = f"{_fixed(rung['distilled'][metric])} ({rung['constant']})"
        lines.append(_line([*cells, _fixed(rung["labels"][metric]), distilled, kept(rung, metric), gain]))
    lines += [
        "",
        _shown(told, [*ladder_pictures(told)]),
        "",
        "Orange: distilled, green: on labels, grey: the teacher.",
    ]
    notes = [f"knee: {knee_told(told)}", *(f"warning: {text}" for text in told["warnings"])]
    return [*lines, "", *(f"- {_escaped(note)}" for note in notes), ""]


def generated(page: str, studies: Sequence[Mapping[str, Any]]) -> str:
    """The page with these studies between its markers, which stay. SystemExit unless each is there once, in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        sys.exit(f"the page needs these two lines, once each and in this order:\n{BEGIN}\n{END}")
    return "\n".join([f"{before}{BEGIN}", "", READING, "", *map(part, studies), f"{END}{after}"])


def _row(row: Mapping[str, Any]) -> str:
    cells = [f"`{row['rule']}`", str(row["seeds"]), *(_fixed(row[name]) for name in ("nll", "auc", "accuracy"))]
    difference = _signed(row["nll_vs_constant"]) + ("\\*" if row["survives"] else "")
    holm = "" if row["p_holm"] is None else f"{row['p_holm']:.2g}"
    chosen = row["chosen"] if row["refused"] is None else f"refused: {row['refused']}"
    together = _interval(row["low_all"], row["high_all"])
    interval = _interval(row["low"], row["high"])
    return _line([*cells, f"{difference} {interval}".strip(), together, holm, _escaped(chosen)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None else f"[{_signed(low)}, {_signed(high)}]"


def _escaped(text: str) -> str:
    """Text of a study as text of a table, on one line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with --check compare it; returns the exit status."""
    parser = argparse.ArgumentParser(description="Tables and plots of studies in a document, from their files.")
    parser.add_argument("studies", nargs="+", type=Path, metavar="FILE.parquet")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page differs")
    options = parser.parse_args(argv)
    told = [read(path) for path in options.studies]
    text = generated(options.page.read_text(encoding="utf-8"), told)
    files = {options.page: text} | {options.page.parent / p: t for one in told for p, t in drawings(one).items()}
    folder = options.page.parent / FIGURES
    gone = [path for path in sorted(folder.glob("*.svg")) if path not in files]
    if options.check:
        same = not gone and all(path.exists() and path.read_text(encoding="utf-8") == t for path, t in files.items())
        print(f"{options.page.name}: {'up to date' if same else 'differs'}")
        return int(not same)
    folder.mkdir(exist_ok=True)
    for path, content in files.items():
        draft = path.with_name(f".{path.name}.tmp")
        draft.write_text(content, encoding="utf-8")
        draft.replace(path)
    for path in gone:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
