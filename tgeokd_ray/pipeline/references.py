"""The ratio that a regime holds to be right, as an artifact like a learned one, and how well others agree with it.

N rows, M teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact, open_artifact
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.tables.regimes.regime import Regime
from tgeokd_ray.training.ratios import commit_known
from tgeokd_ray.training.spec import Finished

REFERENCE = "reference"
SPLITS = ("train", "outer")
Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


def reference_weights(regime: Regime, table: Artifact, logits: Sequence[Artifact]) -> tuple[Ids, Floats]:
    """Row ids [N] of the train and outer rows and the regime's mixtures [N, 1 + M]; where the teacher was trained here,
    its label alone has the weight of a row whose class all teachers get wrong."""
    encoded = EncodedTable.open(table.path)
    known = [LogitsTable.open(artifact.path, encoded) for artifact in logits]
    ids, told = [], []
    for shard in sorted({unit.shard for split in SPLITS for unit in encoded.units(split)}):
        rows = encoded.entry(shard).rows or 0
        ids.append(read_shard(table.file(shard), rows, ["row_id"]).column("row_id").to_numpy())
        parts = []
        for one in known:
            path = one.artifact.file(shard)
            stored = read_shard(path, rows, one.storage.columns)
            parts.append(one.storage.decode(stored, path, len(encoded.classes)))
        told.append(np.stack(parts, 1))
    row_ids = np.concatenate(ids)
    if regime.logits is None:
        whole = np.zeros((len(regime.true), len(known), len(regime.classes)))
        whole[row_ids] = np.concatenate(told)
        regime = regime.with_teacher(whole)
    return row_ids, regime.ratios[row_ids]


def commit_reference(root: Path, name: str, table: Artifact, row_ids: Ids, weights: Floats, **told: Any) -> Artifact:
    """`ratios/NAME` of these mixtures [N, 1 + M] of the train and outer rows; `told` says what they are."""
    return commit_known(root, name, table, SPLITS, row_ids, weights, {"known": name, **told})


def read_ratios(ratios: Artifact, splits: Sequence[str] = SPLITS) -> tuple[Ids, Floats]:
    """Row ids [N] and [u_1, ..., u_M, gate] of the rows of these splits."""
    known = RatiosTable(ratios)
    entries = [entry for entry in ratios.manifest.files if entry.extra.get("split") in splits]
    parts = [read_shard(known.artifact.file(e.path), e.rows or 0, ["row_id", "ratio"]) for e in entries]
    ids = np.concatenate([part.column("row_id").to_numpy() for part in parts])
    lists = [part.column("ratio").combine_chunks() for part in parts]
    values = np.concatenate([one.flatten().to_numpy().reshape(len(one), -1) for one in lists])
    return ids, values.astype(np.float64)


def mixtures(ratios: Floats) -> Floats:
    """[u_1, ..., u_M, gate] as mixtures [N, 1 + M] of label and teachers: their softmax times the gate."""
    scores = np.concatenate([np.zeros((len(ratios), 1)), ratios[:, :-1]], axis=1)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True) * ratios[:, -1:])


def agreement(done: Sequence[Finished], row_ids: Ids, weights: Floats, regime: Regime) -> dict[str, Any]:
    """Of every learned shape: the correlation of its teachers' share with the reference over the train rows (null where
    one of them is constant), and the mean share by region."""
    order = np.argsort(row_ids)
    told = {}
    for run in done:
        if run.error is None and "mean_logit" in run.metrics:
            ids, ratios = read_ratios(open_artifact(Path(run.artifact)), ("train",))
            shares = mixtures(ratios)
            share = shares[:, 1:].sum(1) / shares.sum(1)
            right = weights[order[np.searchsorted(row_ids[order], ids)]]
            names = {regime.regions[code]: regime.region[ids] == code for code in np.unique(regime.region[ids])}
            told[run.name] = {
                "correlation": _correlation(share, right[:, 1:].sum(1)),
                "by_region": {name: float(share[rows].mean()) for name, rows in names.items()},
                "reference_by_region": {name: float(right[rows, 1:].sum(1).mean()) for name, rows in names.items()},
            }
    return told


def _correlation(one: Floats, other: Floats) -> float | None:
    varied = one.std() > 1e-9 and other.std() > 1e-9
    return float(np.corrcoef(one, other)[0, 1]) if varied else None
