"""The tables of studies in a document, written from their Parquet files: nothing is copied by hand.

python benchmarks/results_page.py ROOT/studies/NAME/study.parquet ... [--page docs/results.md] [--check]

What stands between the two markers of the page is replaced, one part for each study in the order given; the rest stays
as it is. The same files give the same text. --check writes nothing, and exits with 1 where the page differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tgeokd_ray.pipeline.study import METADATA

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
BEGIN = "<!-- studies: from here on written by benchmarks/results_page.py -->"
END = "<!-- studies: to here -->"
HEADINGS = ("rule", "seeds", "NLL", "AUC", "accuracy", "against the constant", "all together", "p (Holm)", "chosen")
READING = """\
Differences of test NLL from the constant chosen on valid, paired by seed, with 95 % intervals; below 0 is better. One
with a star survives Holm's correction for all differences of its study at 5 %; intervals under *all together* hold at
once (Bonferroni). [How a study is read](regimes.md#how-a-study-is-read)."""


def read_study(path: Path) -> dict[str, Any]:
    """What study.json holds, from the Parquet file alone. SystemExit for a file that no study has written."""
    table = pq.read_table(path)
    told = (table.schema.metadata or {}).get(METADATA)
    if told is None:
        sys.exit(f"{path}: no study of this version: run jobs/benchmark.py again, finished cells are taken over")
    return {**json.loads(told), "rows": table.to_pylist()}


def part(study: Mapping[str, Any]) -> str:
    """The part of one study: its command, what it cost, a table for each dataset, its notes."""
    extra = study["extra"]
    versions = ", ".join(f"{name} {number}" for name, number in sorted(extra["versions"].items()))
    lines = [
        f"### Study `{study['name']}`",
        "",
        "```",
        extra["command"] or "(not started by jobs/benchmark.py)",
        "```",
        "",
    ]
    lines += [f"{extra['cell_seconds']:,.0f} s for its cells, one after another; {versions}.", ""]
    for dataset in dict.fromkeys(row["dataset"] for row in study["rows"]):
        own = [row for row in study["rows"] if row["dataset"] == dataset]
        lines += [f"`{dataset}`", "", _line(HEADINGS), _line(["---"] * len(HEADINGS)), *map(_row, own), ""]
    notes = [*study["notes"], *(f"warning: {text}" for text in study["warnings"])]
    return "\n".join([*lines, *(f"- {_escaped(note)}" for note in notes), *([""] if notes else [])])


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
    parser = argparse.ArgumentParser(description="The tables of studies in a document, from their Parquet files.")
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY.parquet")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page differs")
    options = parser.parse_args(argv)
    page = options.page.read_text(encoding="utf-8")
    text = generated(page, [read_study(path) for path in options.studies])
    if options.check:
        print(f"{options.page.name}: {'up to date' if text == page else 'differs'}")
        return int(text != page)
    draft = options.page.with_name(f".{options.page.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(options.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
