"""Bar g: what train rows without a label are worth, on Criteo with the labels of a fixed two thirds of them hidden.

Three arms of one encoded table and, for a seed, one teacher: the hidden rows are distilled without their labels
(`distilled`, what `missing: distill` does), they are left out (`left_out`), or their labels are known (`known`). Outer,
valid, test and teacher rows keep their labels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure
from quality import absent, data

from tgeokd_ray.artifacts import Artifact, FileEntry, staging
from tgeokd_ray.config.job import Imported
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.hashing import key, shares
from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.export_logits import export_logits
from tgeokd_ray.pipeline.import_logits import Importing, import_logits
from tgeokd_ray.pipeline.plans import chosen, students_plan
from tgeokd_ray.tables.cards import UNLABELLED

CARD = Path(__file__).resolve().parent.parent / "datasets" / "criteo.yaml"
SEEDS, HIDDEN = range(5), 2 / 3
ARMS = ("distilled", "left_out", "known")
# Close to each other where the best one lies: it differs between the arms, and a coarse grid would favour one of them.
SETTINGS = ("distill.constants=[0.25, 0.5, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]",)
QUICK = ("teacher.training.epochs=2", "student.training.epochs=3", "distill.fusion.look_ahead=2")
Figures = Mapping[str, Mapping[str, float]]  # of a role, on test


def arm_table(root: Path, table: Artifact, arm: str) -> Artifact:
    """The table of an arm; encoders and all shards but those of train are the same files."""
    if arm == "known":
        return table
    with staging(root, "tables", f"criteo-{arm}", arguments={"of": table.digest, "arm": arm}, parents={}) as stage:
        rows = unlabelled = 0
        for entry in table.manifest.files:
            if entry.extra.get("split") != "train":
                stage.take_over(table, entry)
                continue
            shard, size = _armed(pq.read_table(table.file(entry.path)), arm), max(entry.extra["groups"])
            write = partial(pq.write_table, shard, row_group_size=size, write_page_checksum=True)
            facts = _facts(entry, shard, size)
            rows, unlabelled = rows + len(shard), unlabelled + sum(facts["unlabelled"])
            stage.write(entry.path, write, rows=len(shard), extra=facts)
        schema = {**table.manifest.schema, "rows": {**table.manifest.schema["rows"], "train": rows}}
        return stage.commit(schema | ({"unlabelled": {"train": unlabelled}} if unlabelled else {}))


def _armed(shard: pa.Table, arm: str) -> pa.Table:
    """A train shard whose hidden rows have no label, or are gone. Which rows those are depends on their ids alone."""
    hidden = shares(shard["row_id"].to_numpy().astype(np.uint64), key("hidden label")) < HIDDEN
    if arm == "left_out":
        return shard.filter(pa.array(~hidden))
    labels = np.where(hidden, UNLABELLED, shard["label"].to_numpy()).astype(np.int32)
    return shard.set_column(shard.column_names.index("label"), "label", pa.array(labels))


def _facts(entry: FileEntry, shard: pa.Table, size: int) -> dict[str, Any]:
    """What the manifest says of a shard, of its rows as they are now."""
    labels = shard["label"].to_numpy()
    groups = [labels[first : first + size] for first in range(0, len(labels), size)]
    return {
        **entry.extra,
        "groups": [len(group) for group in groups],
        "labels": [np.bincount(group[group != UNLABELLED], minlength=2).tolist() for group in groups],
        "unlabelled": [int((group == UNLABELLED).sum()) for group in groups],
        "row_ids": hashlib.sha256(shard["row_id"].to_numpy().astype("<i8").tobytes()).hexdigest(),
    }


def compare(root: Path, files: Sequence[str], seed: int, quick: bool) -> dict[str, Figures]:
    """{arm: {role: figures on test}} of one seed; roles are labels, the constant that won on valid, and tgeo."""
    settings = [*SETTINGS, *(QUICK if quick else ())]
    job, card = resolve({"card": str(CARD), "data": files, "seed": seed}, settings=settings)
    engine = LocalEngine("cpu", job.threads)
    chain = Chain(job, card, root, root / "runs" / f"teacher-{seed}", lambda: engine, Silent())
    table = chain.encode(job.data)
    said = root / f"teacher-{seed}.parquet"
    export_logits(chain.precompute(table, chain.teachers(table)), said, (), probabilities=False)
    found = {}
    for arm in ARMS:
        own, name = arm_table(root, table, arm), f"criteo-{arm}"
        logits, _ = import_logits(root, name, own, Importing(Imported(file=str(said))), Silent())
        plan = students_plan(job, name, own, [logits], root, root / "runs" / f"{arm}-{seed}")
        done = engine.train(plan, Silent())
        failed = next((run.error for run in done if run.error is not None), None)
        if failed is not None:
            raise failed
        best = chosen(done, [spec.name for spec in plan.constants], job.metric)
        named = {"labels": "labels", best: "constant", "tgeo": "tgeo"}
        found[arm] = {named[run.name]: run.metrics["test"] for run in done if run.name in named}
    return found


def unlabelled(quick: bool) -> Iterator[Figure]:
    """Paired differences on test over the seeds; a gain is more AUC, or less NLL."""
    files = data("criteo/criteo_first80k.tsv.gz")
    if files is None:
        yield absent("method.unlabelled")
        return
    kept = os.environ.get("TGEOKD_ROOT")
    with nullcontext(f"{kept}/unlabelled") if kept else tempfile.TemporaryDirectory() as root:
        seeds = [compare(Path(root), files, seed, quick) for seed in (SEEDS[:1] if quick else SEEDS)]
    for role in ("labels", "constant", "tgeo"):
        for metric, sign in (("auc", 1), ("nll", -1)):
            of = {arm: [sign * seed[arm][role][metric] for seed in seeds] for arm in ARMS}
            yield from _gains(f"method.unlabelled.{role}.{metric}", metric, of, learns=role != "labels")


def _gains(name: str, metric: str, of: Mapping[str, Sequence[float]], *, learns: bool) -> Iterator[Figure]:
    """What the hidden rows gain distilled, what their labels would, and the share; `learns`: from rows without one."""
    context: dict[str, Any] = {arm: round(abs(mean(values)), 6) for arm, values in of.items()}
    context["seeds"] = len(of["known"])
    gains = {}
    for arm in ("distilled", "known"):
        if context["seeds"] > 1:
            gains[arm], *interval = paired_difference(of[arm], of["left_out"])
        else:
            gains[arm], interval = of[arm][0] - of["left_out"][0], []
        held = arm == "distilled" and learns and interval
        bar, told = ("interval above 0", {}) if held else ("", {"reason": "no bar"})
        ok = interval[0] > 0 if held else None
        yield Figure(f"{name}.{arm}_over_left_out", gains[arm], metric, bar, ok, interval, context | told)
    if learns:
        each = [(a - b) / (c - b) if c != b else 0.0 for a, b, c in zip(*(of[arm] for arm in ARMS), strict=True)]
        share = gains["distilled"] / gains["known"]
        yield Figure(f"{name}.share", share, "of the gain", "", None, each, context | {"reason": "no bar"})
