"""A small encoded table and a teacher's logits, written through the commit protocol as encode and precompute do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import Artifact, save_tensors, staging, write_json
from tgeokd_ray.feed.class_means import MEANS
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.training.spec import Fusion, RunSpec

ROWS = {"train": 600, "outer": 200, "valid": 200, "test": 200, "teacher": 300}
NUMERIC, IDS, CLASSES = 4, 12, 3


@dataclass(frozen=True)
class Small:
    """Artifacts of the small data set, and the spec of a student on them."""

    root: Path
    table: Artifact
    logits: Artifact

    def spec(self, name: str = "tgeo", **changes: object) -> RunSpec:
        values: dict[str, object] = {
            "name": name,
            "kind": "students",
            "artifact": f"small-{name}",
            "root": str(self.root),
            "folder": str(self.root / "runs" / "small"),
            "table": str(self.table.path),
            "logits": (str(self.logits.path),),
            "model": {"kind": "mlp", "hidden": [8], "embedding": 3, "dropout": 0.1},
            "optimizer": OptimizerSpec(kind="adam", learning_rate=1e-2),
            "rule": {"kind": "tgeo_one_step", "level": 0.5},
            "fusion": Fusion(every=2, batch_rows=100, warm_up=0.0),
            "temperature": 2.0,
            "epochs": 4,
            "batch_rows": 100,
        }
        return RunSpec(**{**values, **changes})  # type: ignore[arg-type]


def _columns(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    total = sum(ROWS.values())
    numeric = rng.normal(size=(total, NUMERIC)).astype(np.float32)
    categorical = np.stack([rng.integers(0, 6, total), rng.integers(6, IDS, total)], axis=1).astype(np.int32)
    weights = rng.normal(size=(NUMERIC, CLASSES)) * 1.5
    scores = numeric @ weights + np.sin(categorical.sum(axis=1, keepdims=True) + np.arange(CLASSES)) + [1.5, 0.0, -1.0]
    labels = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1).astype(np.int32)
    teacher = (scores + rng.normal(scale=0.3, size=scores.shape)).astype(np.float32)
    return {"numeric": numeric, "categorical": categorical, "label": labels, "teacher": teacher}


def _list(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _facts(split: str, ids: np.ndarray, labels: np.ndarray, group: int) -> dict[str, object]:
    pieces = np.split(labels, range(group, len(labels), group))
    return {
        "split": split,
        "shard": 0,
        "groups": [len(piece) for piece in pieces],
        "labels": [np.bincount(piece, minlength=CLASSES).tolist() for piece in pieces],
        "row_ids": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest(),
    }


def true_labels(seed: int = 3) -> np.ndarray:
    """The labels of all rows by id, without flips."""
    return _columns(seed)["label"]


def make_small(root: Path, seed: int = 3, group: int = 20, flip: float = 0.0) -> Small:
    """The data set under `root`; the same seed gives the same bytes. This share of the labels of train, outer and valid
    rows whose first number is positive is wrong."""
    data = _columns(seed)
    if flip:
        rng = np.random.default_rng([seed, 1])
        noisy = sum(ROWS[split] for split in ("train", "outer", "valid"))
        wrong = (data["numeric"][:, 0] > 0) & (rng.random(len(data["label"])) < flip)
        wrong[noisy:] = False
        data["label"] = np.where(wrong, (data["label"] + rng.integers(1, CLASSES, len(wrong))) % CLASSES, data["label"])
    first, logits_parts = 0, {}
    with staging(root, "tables", "small", arguments={"seed": seed, "flip": flip}, parents={}) as stage:
        for split, rows in ROWS.items():
            part = slice(first, first + rows)
            ids = np.arange(first, first + rows, dtype=np.int64)
            facts = _facts(split, ids, data["label"][part], group)
            table = pa.table(
                {
                    "row_id": ids,
                    "label": data["label"][part],
                    "numeric": _list(data["numeric"][part]),
                    "categorical": _list(data["categorical"][part]),
                }
            )
            name = f"{split}-00000.parquet"
            stage.write(name, lambda p, t=table: pq.write_table(t, p, row_group_size=group), rows=rows, extra=facts)
            logits_parts[name] = (ids, data["teacher"][part], facts)
            first += rows
        stage.write("encoder.json", lambda p: write_json(p, {}))
        stage.write("card.json", lambda p: write_json(p, {}))
        schema = {
            "classes": ["a", "b", "c"],
            "negative": 0,
            "numeric": [f"n{k}" for k in range(NUMERIC)],
            "categorical": [{"name": "c0", "offset": 0, "size": 6}, {"name": "c1", "offset": 6, "size": 6}],
            "num_ids": IDS,
            "weight": False,
            "rows": ROWS,
            "extra": {},
        }
        table_artifact = stage.commit(schema=schema, record={})
    return Small(root, table_artifact, _make_logits(root, table_artifact, logits_parts, data, group))


def _make_logits(root, table, parts, data, group) -> Artifact:  # type: ignore[no-untyped-def]
    train = slice(0, ROWS["train"])
    odds = np.exp(data["teacher"][train].astype(np.float64))
    shares = odds / odds.sum(axis=1, keepdims=True)
    counts = np.bincount(data["label"][train], minlength=CLASSES).tolist()
    own = [shares[data["label"][train] == c] for c in range(CLASSES)]
    means = np.array([rows.mean(axis=0) if len(rows) else np.full(CLASSES, 1 / CLASSES) for rows in own])
    with staging(root, "logits", "small", arguments={}, parents={"table": table}) as stage:
        for name, (ids, logits, facts) in parts.items():
            if facts["split"] == "teacher":
                continue
            fold = np.zeros(len(ids), dtype=np.uint8)
            shard = pa.table({"row_id": ids, "logits": _list(logits), "fold": fold})
            extra = {key: facts[key] for key in ("split", "shard", "groups", "row_ids")}
            stage.write(name, lambda p, t=shard: pq.write_table(t, p, row_group_size=group), rows=len(ids), extra=extra)
        stage.write(MEANS, lambda path: save_tensors(path, {"means": means, "counts": np.array(counts)}))
        schema = {
            "num_classes": CLASSES,
            "classes": ["a", "b", "c"],
            "class_counts": counts,
            "storage": Storage().to_json(),
        }
        return stage.commit(schema=schema, record={})
