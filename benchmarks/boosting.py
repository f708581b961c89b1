"""Figures of a teacher from elsewhere: scikit-learn's gradient boosting, imported, and the students distilled from it.

python benchmarks/boosting.py [criteo nsl_kdd] [--quick] [--json]

Data and roots are found as by quality.py. The boosting model learns from the rows of the split `teacher`, stops early
on `valid`, and says its probabilities of all other rows in a Parquet file. --quick: one seed, fewer trees, no
uncalibrated students.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

# Before scikit-learn loads OpenMP: threads that wait by spinning slow a shared machine down by a factor of five.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, main
from quality import REPOSITORY, SEEDS, Results, absent, averages, data, gap, model
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from tgeokd_ray.artifacts import Artifact, latest
from tgeokd_ray.feed.arrow import unpacked

SCORED = ("train", "outer", "valid", "test")
NATIVE = 255  # categories of one column that the boosting model takes as they are


@dataclass(frozen=True)
class Split:
    """The encoded rows of a split: ids, numbers, categories counted from 0 per column, class indices."""

    row_id: np.ndarray
    numeric: np.ndarray
    categorical: np.ndarray
    label: np.ndarray


def read(table: Artifact, split: str) -> Split:
    """All rows of a split, from the table's shards."""
    shards = [entry.path for entry in table.manifest.files if entry.extra.get("split") == split]
    rows = pa.concat_tables([unpacked(pq.read_table(table.file(shard))) for shard in shards])
    offsets = np.array([column["offset"] for column in table.manifest.schema["categorical"]])
    numeric, categorical = (np.stack(rows[name].to_numpy()) for name in ("numeric", "categorical"))
    return Split(rows["row_id"].to_numpy(), numeric, categorical - offsets, rows["label"].to_numpy())


class Boosting:
    """The teacher. Columns of up to 255 categories are taken as they are, larger ones as the mean label of a category,
    each row's from folds without it. Rates and sizes were the best by NLL on valid, of four on Criteo and of
    two on NSL-KDD."""

    def __init__(self, table: Artifact, trees: int) -> None:
        schema = table.manifest.schema
        self.small = np.array([column["size"] <= NATIVE for column in schema["categorical"]])
        first, rare = len(schema["numeric"]), len(schema["classes"]) > 2
        self.encoder = TargetEncoder(cv=StratifiedKFold(5, shuffle=True, random_state=0))
        self.model = HistGradientBoostingClassifier(
            learning_rate=0.05 if not rare else 0.1,
            max_iter=trees,
            max_leaf_nodes=15,
            min_samples_leaf=50 if not rare else 20,
            l2_regularization=1.0,
            early_stopping=True,
            n_iter_no_change=20 if not rare else 10,
            categorical_features=list(range(first, first + int(self.small.sum()))),
            class_weight="balanced" if rare else None,  # as the card of NSL-KDD has it for our own teacher
            random_state=0,
        )

    def fit(self, rows: Split, valid: Split) -> None:
        learned = self.features(rows, fit=True)
        self.model.fit(learned, rows.label, X_val=self.features(valid), y_val=valid.label)

    def features(self, rows: Split, *, fit: bool = False) -> np.ndarray:
        parts = [rows.numeric, rows.categorical[:, self.small]]
        large = rows.categorical[:, ~self.small]
        if large.shape[1]:
            parts.append(self.encoder.fit_transform(large, rows.label) if fit else self.encoder.transform(large))
        return np.concatenate(parts, axis=1)

    def tell(self, table: Artifact, file: Path) -> None:
        """Write row_id and the probabilities of all rows but those that it learned from."""
        splits = [read(table, split) for split in SCORED]
        shares = np.concatenate([self.model.predict_proba(self.features(rows)) for rows in splits])
        ids = np.concatenate([rows.row_id for rows in splits])
        told = pa.table({"row_id": ids, "probabilities": pa.array(shares.tolist(), pa.list_(pa.float64()))})
        pq.write_table(told.replace_schema_metadata({"classes": ",".join(table.manifest.schema["classes"])}), file)


def call(words: list[str]) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=1800, check=False, cwd=REPOSITORY
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def study(job: str, name: str, files: list[str], quick: bool) -> Iterator[Figure]:
    """Train the boosting model, import what it says, distil from it; the figures are those of quality.py."""
    kept, card = os.environ.get("TGEOKD_ROOT"), f"datasets/{name}.yaml"
    with nullcontext(str(Path(kept) / name)) if kept else tempfile.TemporaryDirectory() as root:
        call(["-m", "tgeokd_ray.cli.main", "encode", "--card", card, *files, "--root", root, "--local"])
        table = latest(root, "tables", name)
        assert table is not None
        told, began = Path(root) / "boosting.parquet", time.monotonic()
        if not told.exists():
            boosting = Boosting(table, 60 if quick else 600)
            boosting.fit(read(table, "teacher"), read(table, "valid"))
            boosting.tell(table, told)
        seconds = time.monotonic() - began
        for calibrate in (True,) if quick else (False, True):
            found = []
            for seed in SEEDS[:1] if quick else SEEDS:
                words = [f"jobs/{job}", "--card", card, "--data", *files, "--root", root, "--seed", str(seed)]
                words += ["--run", f"{name}-{calibrate}-{seed}", "--teacher-logits", str(told), "--local", "--json"]
                words += ["--set", f"teacher.imported.calibrate={str(calibrate).lower()}"]
                found.append(json.loads(call(words)))
            calibration = {} if not calibrate else _calibration(Path(root), found[0])
            yield from figures(f"boosting.{name}.{'calibrated' if calibrate else 'plain'}", found, calibration)
        yield Figure(f"boosting.{name}.seconds_of_training", seconds, "s", "", None, context={"reason": "for context"})


def _calibration(root: Path, results: Results) -> dict[str, Any]:
    artifact = results["models"][0]["artifact"]
    found: dict[str, Any] = json.loads((root / artifact / "manifest.json").read_text())["schema"]["calibration"]
    return {key: round(found[key], 4) for key in ("temperature", "nll_before", "nll_after")}


def figures(name: str, found: list[Results], calibration: dict[str, Any]) -> Iterator[Figure]:
    """Each role's figures on test as means over the seeds, and what distillation gains over labels."""
    many = len(found[0]["table"]["classes"]) > 2
    metric = "macro_f1" if many else "auc"
    for role, value in averages(found, metric).items():
        entries = [model(one, role) for one in found]
        more = {key: round(mean(entry[key] for entry in entries), 4) for key in ("auc", "nll", "accuracy", "macro_f1")}
        chosen = {"chosen": [entry["name"] for entry in entries]} if role == "constant" else {}
        context = {"reason": "for context", "seeds": len(found), **more, **chosen, **calibration}
        yield Figure(f"{name}.{role}", value, metric, "", None, sorted(e[metric] for e in entries), context)
    for above, below, bar in (("tgeo", "labels", 0), ("constant", "labels", 0), ("tgeo", "constant", -0.004)):
        figure = gap(name, found, metric, above, below, bar)
        # Unseen attacks, of which some classes have few rows: nothing is promised there.
        told = {"reason": "for context", **figure.context}
        yield replace(figure, bar="", ok=None, context=told) if many else figure


def criteo(quick: bool) -> Iterator[Figure]:
    """The first 80,000 rows of Criteo."""
    files = data("criteo/criteo_first80k.tsv.gz")
    yield from [absent("boosting.criteo")] if files is None else study("ctr_distill.py", "criteo", files, quick)


def nsl_kdd(quick: bool) -> Iterator[Figure]:
    """Five classes of NSL-KDD."""
    files = data("nsl_kdd/KDDTrain+.txt.gz", "nsl_kdd/KDDTest+.txt.gz")
    yield from [absent("boosting.nsl_kdd")] if files is None else study("attack_distill.py", "nsl_kdd", files, quick)


if __name__ == "__main__":
    main(__doc__ or "", {"criteo": criteo, "nsl_kdd": nsl_kdd})
