"""What a column that only the teacher sees is worth to a student, on a table whose true log-odds are known.

python benchmarks/privileged.py [few many noise] [--quick] [--json]

Students of one shape on the same rows: on labels; distilled from a teacher that sees what the student sees ("plain");
from a teacher that sees the teacher-only column as well ("privileged"); and from the true log-odds given the student's
columns ("truth"), which is the bound: no other logits that are right on average, given these columns, have less noise.
A gain is AUC on test above the student on labels. All of it runs in this process, as with --local.

few: the packaged card, whose teacher has 12,000 rows. many: 43,000 rows for the teacher. noise: the column tells the
more of the label itself the noisier it is about the match; one seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, main

from tgeokd_ray.artifacts import Artifact, staging
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.plans import chosen, students_plan
from tgeokd_ray.tables import synthetic
from tgeokd_ray.tables.cards import Card, load_card
from tgeokd_ray.training.reuse import load_metrics
from tgeokd_ray.training.spec import Finished, RunSpec

SEEDS = (0, 1, 2)
CARD = "synthetic_privileged"
SETTINGS = [
    "teacher.model.members=1",
    "teacher.training.epochs=10",
    "student.training.epochs=20",
    "distill.constants=[0.5, 1.0]",
]
# The same number of rows in all splits but the teacher's.
MANY_ROWS, MANY = 72_000, {"teacher": 0.6, "train": 0.1333, "outer": 0.05, "valid": 0.05, "test": 0.1556}
NOISES = (0.4, 0.7, 1.0)
Aucs = dict[str, float]


@dataclass(frozen=True)
class Runs:
    """The plan of a few runs that do not depend on each other."""

    specs: tuple[RunSpec, ...]

    def __call__(self, done: Sequence[Finished]) -> Sequence[RunSpec]:
        return () if done else self.specs


def compare(root: Path, seed: int, card: Card, settings: Sequence[str]) -> tuple[Aucs, dict[str, Any]]:
    """(AUC on test by role, what the table knows of itself): teachers and students of one seed, on one card."""
    found: Aucs = {}
    for kind, seen in (("plain", plain(card)), ("privileged", card)):
        job, _ = resolve({"card": CARD, "seed": seed, "root": str(root)}, settings=settings)
        engine = LocalEngine("cpu", job.threads)
        chain = Chain(job, seen, root, root / "runs" / f"{kind}-{seed}", lambda engine=engine: engine, Silent())
        table = chain.encode(())
        (teacher,) = chain.teachers(table)
        logits = chain.precompute(table, [teacher])
        found[f"teacher.{kind}"] = load_metrics(teacher)["test"]["auc"]
        found |= students(chain, table, logits, kind)
    found |= students(chain, table, true_logits(chain, table, logits), "truth")
    return found, dict(table.manifest.schema["extra"])


def plain(card: Card) -> Card:
    """The card without its teacher-only columns: the same rows, splits and columns of the student."""
    numeric = tuple(column for column in card.columns.numeric if column.name not in card.teacher_only)
    columns = card.columns.model_copy(update={"numeric": numeric, "teacher_only": ()})
    return card.model_copy(update={"name": f"{card.name}-plain", "columns": columns})


def sized(card: Card, rows: int, parts: dict[str, float]) -> Card:
    """The same synthetic table with another number of rows, split in another way."""
    form, splits = card.format.model_copy(update={"rows": rows}), card.splits.model_copy(update={"parts": parts})
    return card.model_copy(update={"format": form, "splits": splits})


def students(chain: Chain, table: Artifact, logits: Artifact, source: str) -> Aucs:
    """Test AUC of the student on labels and of the one with the constant that was best on valid, called `source`."""
    plan = students_plan(chain.job, f"{chain.card.name}-{source}", table, [logits], chain.root, chain.folder)
    done = chain.engine().train(Runs(plan.controls), Silent())
    failed = next((run.error for run in done if run.error is not None), None)
    if failed is not None:
        raise failed
    best = chosen(done, [spec.name for spec in plan.constants], chain.job.metric)
    aucs = {run.name: float(run.metrics["test"]["auc"]) for run in done}
    return {f"labels.{source}": aucs["labels"], source: aucs[best or ""]}


def true_logits(chain: Chain, table: Artifact, like: Artifact) -> Artifact:
    """The true log-odds given the student's columns, in the place of a teacher's logits.

    A row id is the row's place in the table. All else is as in the logits `like`, class means too: a constant ratio
    does not use them.
    """
    form = chain.card.format
    log_odds = synthetic.synthetic_rows(form.seed, 0, form.rows or 0)[synthetic.LOG_ODDS].to_numpy()
    manifest = like.manifest
    with staging(chain.root, "logits", "truth", arguments={"of": like.digest}, parents={"table": table}) as stage:
        for entry in manifest.files:
            if "split" in entry.extra:
                write = partial(_with_logits, like.file(entry.path), log_odds)
                stage.write(entry.path, write, rows=entry.rows, extra=entry.extra)
            else:
                stage.take_over(like, entry)
        return stage.commit(schema=manifest.schema)


def _with_logits(source: Path, log_odds: np.ndarray[Any, np.dtype[np.float64]], path: Path) -> None:
    """A shard of logits with two classes, its logits replaced and its row groups kept."""
    with pq.ParquetFile(source) as old, pq.ParquetWriter(path, old.schema_arrow, write_page_checksum=True) as new:
        for group in (old.read_row_group(k) for k in range(old.num_row_groups)):
            positive = log_odds[group["row_id"].to_numpy()]
            values = np.stack([np.zeros_like(positive), positive], axis=1).astype(np.float32)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 2)
            place = group.column_names.index("logits")
            new.write_table(group.set_column(place, "logits", lists), row_group_size=max(len(group), 1))


def share(found: Sequence[Aucs], of: str) -> float:
    """The mean gain of `of` over the seeds, as a share of the mean gain of the student that is taught the truth."""
    gains = {role: mean(one[role] - one["labels.privileged"] for one in found) for role in (of, "truth")}
    return gains[of] / gains["truth"]


def measure(name: str, card: Card, quick: bool) -> Iterator[Figure]:
    """The share of the attainable gain that the student keeps, with a privileged teacher and with a plain one."""
    with tempfile.TemporaryDirectory() as root:
        results = [compare(Path(root), seed, card, SETTINGS) for seed in (SEEDS[:1] if quick else SEEDS)]
    found, known = [aucs for aucs, _ in results], results[0][1]
    shown = {"reason": "no bar", "seeds": len(found)}
    for role, key in (("student", "bayes_auc"), ("teacher", "teacher_bayes_auc")):
        yield Figure(f"{name}.bayes.{role}", known[key], "auc", "", None, context=shown)
    for role in ("teacher.plain", "teacher.privileged", "labels.privileged", "plain", "privileged", "truth"):
        values = sorted(one[role] for one in found)
        yield Figure(f"{name}.{role}", mean(values), "auc", "", None, values, shown)
    each = {role: sorted(share([one], role) for one in found) for role in ("plain", "privileged")}
    yield Figure(f"{name}.share.plain", share(found, "plain"), "of the gain", "", None, each["plain"], shown)
    value, context = share(found, "privileged"), {"seeds": len(found)}
    yield Figure(f"{name}.share", value, "of the gain", ">= 0.5", value >= 0.5, each["privileged"], context)
    pairs = [[one[role] for one in found] for role in ("privileged", "plain")]
    over, *interval = paired_difference(*pairs) if len(found) > 1 else [pairs[0][0] - pairs[1][0]]
    yield Figure(f"{name}.over_plain", float(over), "auc", "", None, [float(end) for end in interval], shown)


def few(quick: bool) -> Iterator[Figure]:
    """The packaged card."""
    yield from measure("privileged.few", load_card(CARD), quick)


def many(quick: bool) -> Iterator[Figure]:
    """As many rows for the teacher as it needs to learn from the student's columns alone."""
    yield from measure("privileged.many", sized(load_card(CARD), MANY_ROWS, MANY), quick)


def noise(quick: bool) -> Iterator[Figure]:
    """The student of the privileged teacher above the one of the plain teacher, by the noise of the column."""
    for deviation in NOISES[1:2] if quick else NOISES:
        for name, card in (("few", load_card(CARD)), ("many", sized(load_card(CARD), MANY_ROWS, MANY))):
            # Each noise has its own root: a table is known by its card, which does not tell the noise.
            with tempfile.TemporaryDirectory() as root, patch.object(synthetic, "DWELL_NOISE", deviation):
                found, known = compare(Path(root), SEEDS[0], card, SETTINGS)
            context = {"reason": "no bar", "teacher_bayes_auc": known["teacher_bayes_auc"], "seeds": 1}
            value = found["privileged"] - found["plain"]
            yield Figure(f"privileged.noise.{deviation}.{name}", value, "auc", "", None, context=context)


if __name__ == "__main__":
    main(__doc__ or "", {"few": few, "many": many, "noise": noise})
