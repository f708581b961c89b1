"""The CPU hours that studies of whole tables take, computed from their files, their cards and measured rates.

python benchmarks/study_cost.py datasets/studies/criteo.yaml ... [--periods 8,1,1] [--teacher 9600] [--student 17000]

Rows are those of the published copy (`checks.rows` and `checks.total` of the card), students those of the study's own
plan. The rates are of docs/performance.md, for networks of 400-400-400 on 39 columns in fp32, one at a time: smaller
ones take less, and so do packs and runs that stop early. Images have networks of their own, whose rates must be named
(`images.py pace encode`). A rule with outer steps of its own counts as one run, which it is not. For a card whose
splits are by time, --periods says how the rows are spread over its periods.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.job import Job
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.config.study_file import StudyFile, read_study_file
from tgeokd_ray.pipeline.plans import students_plan
from tgeokd_ray.pipeline.study_cell import StudyCell
from tgeokd_ray.pipeline.study_grid import at_rates, read_grid
from tgeokd_ray.pipeline.study_start import whole_of
from tgeokd_ray.tables.cards import Card, load_card

DATASETS = Path(__file__).resolve().parent.parent / "datasets"
# A run that learns a ratio over one on labels: `method.py phases`, an outer step every 4.
SHAPE = 3.34
HEADINGS = ("study", "rows", "teacher / student / valid / test rows", "students", "CPU hours a cell", "all seeds")


@dataclass(frozen=True)
class Rates:
    """Rows per CPU-second: of encoding (`spine.py encode`, through Ray), of training teacher and student (`train.py
    bound`), and of scoring (`evaluate.py peers`)."""

    encode: float = 104_000
    teacher: float = 9_600
    student: float = 17_000
    score: float = 57_000


@dataclass(frozen=True)
class Cost:
    """What a study of one whole table is made of; `students` counts a run that learns a ratio as `SHAPE`."""

    name: str
    seeds: int
    rows: Mapping[str, float]
    total: int
    students: float
    job: Job
    images: bool = False

    def cell(self, rates: Rates) -> float:
        """CPU hours of one seed: the teacher, its logits, and every student, evaluated on valid in each epoch."""
        rows, teacher, student = self.rows, self.job.teacher, self.job.student.training
        learned = rows["train"] + rows["outer"]
        members = teacher.model.members
        seconds = rows["teacher"] * teacher.training.epochs * members / rates.teacher
        seconds += (learned + rows["valid"] + rows["test"]) * members / rates.score
        scored = rows["valid"] * student.epochs + rows["test"]
        seconds += self.students * (learned * student.epochs / rates.student + scored / rates.score)
        return seconds / 3600

    def hours(self, rates: Rates) -> float:
        """CPU hours of all seeds and of the encoding, which they share."""
        return self.total / rates.encode / 3600 + self.seeds * self.cell(rates)


def cost_of(path: Path, periods: Sequence[float] = ()) -> Cost:
    """What the study in the file comes to. SystemExit unless it is of one whole table with published counts."""
    study = read_study_file(path)
    (table,) = [whole_of(name) for name in study.datasets or ()] if len(study.datasets or ()) == 1 else [None]
    if table is None:
        sys.exit(f"{path}: not a study of one whole table")
    card = load_card(DATASETS / f"{table}.yaml")
    cell = StudyCell("", "", study.rules or (), settings=study.set, grid=read_grid(study.grid or "full"))
    options = {"card": str(DATASETS / f"{table}.yaml"), "data": ["file"]}
    job, _ = resolve(options, settings=cell.settings_for(len(card.label.classes)))
    if not published(card):
        sys.exit(f"{path}: the card {table} does not say how many rows a published copy has (checks.rows)")
    rows = rows_of(card, periods)
    seeds = study.seeds or 3
    total = sum(published(card).values())
    return Cost(
        study.name or path.stem, seeds, rows, total, _students(study, cell, job, card), job, card.image is not None
    )


def published(card: Card) -> dict[str, int]:
    """Rows of the published copy by pattern: of all files together where the card says so, else of each."""
    return {**card.checks.rows, **card.checks.total}


def rows_of(card: Card, periods: Sequence[float] = ()) -> dict[str, float]:
    """Rows of each split of the published copy. SystemExit for splits by time without `periods`."""
    rules, found = card.split_rules, Counter[str]()

    def add(rows: float, target: Any) -> None:
        for split, share in ({target: 1.0} if isinstance(target, str) else target).items():
            found[split] += rows * share  # type: ignore[assignment]

    total = sum(published(card).values())
    if rules["kind"] == "hash":
        add(total, rules["parts"])
    elif rules["kind"] == "file":
        for file, rows in published(card).items():
            name = file.removesuffix("*")
            add(rows, next(target for pattern, target in rules["files"] if fnmatchcase(name, pattern)))
    elif len(periods) == len(rules.get("periods", ())):
        for (_, target), weight in zip(rules["periods"], periods, strict=True):
            add(total * weight / sum(periods), target)
    else:
        sys.exit(f"{card.name}: --periods with the weight of each of its {len(rules.get('periods', ()))} periods")
    return {split: float(found[split]) for split in ("teacher", "train", "outer", "valid", "test")}


def _students(study: StudyFile, cell: StudyCell, job: Job, card: Card) -> float:
    schema = SimpleNamespace(schema={"classes": list(card.label.classes)})
    table = cast(Artifact, SimpleNamespace(path=Path("table"), label=card.name, manifest=schema))
    count = 0.0
    for _, one in at_rates(job, cell.grid):
        plan = students_plan(one, card.name, table, [table], Path("root"), Path("folder"))
        shapes = len(plan.shapes) if "tgeo" in (study.rules or ()) else 0
        count += len(plan.controls) + shapes * (SHAPE + len(plan.grid.points))
    return count


def line(cost: Cost, rates: Rates) -> str:
    """The line of a table."""
    rows = cost.rows
    parts = (rows["teacher"], rows["train"] + rows["outer"], rows["valid"], rows["test"])
    shown = " / ".join(f"{part:,.0f}" for part in parts)
    hours = [f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in (cost.cell(rates), cost.hours(rates))]
    return f"| `{cost.name}` | {cost.total:,} | {shown} | {cost.students:.0f} | {hours[0]} | {hours[1]} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="CPU hours of studies of whole tables, computed from measured rates.")
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY.yaml")
    parser.add_argument("--periods", default="", help="Weights of the periods of a card that splits by time: 8,1,1.")
    for name, value in vars(Rates()).items():
        parser.add_argument(f"--{name}", type=float, help=f"Rows per CPU-second. [default for tables: {value:,}]")
    options = parser.parse_args(argv)
    named = {name: given for name in vars(Rates()) if (given := getattr(options, name)) is not None}
    periods = [float(part) for part in options.periods.split(",") if part]
    lines = []
    for path in options.studies:
        cost = cost_of(path, periods)
        if cost.images and len(named) < len(vars(Rates())):
            sys.exit(f"{path}: networks of images have other rates; name all of {', '.join(vars(Rates()))}")
        lines.append(line(cost, Rates(**named)))
    print("\n".join([f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}", *lines]))


if __name__ == "__main__":
    main()
