"""What a study keeps of its models beside their figures: sizes, and how far their confidence is what it says.

Calibration is a list of bins of the largest probability, as `Evaluation.results` has it: {rows, confidence, accuracy}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.teachers import scored
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.metrics.evaluation import NUM_BINS

FIGURES = ("nll", "auc", "accuracy")
Bins = list[dict[str, float]]


def teacher_figures(table: Artifact, logits: Sequence[Artifact], parameters: int | None) -> list[dict[str, Any]]:
    """NLL, AUC, accuracy and calibration on the test rows by the stored logits of each teacher; none of logits that
    leave out the split. `parameters` is the size of the one that was trained here."""
    encoded = EncodedTable.open(table.path)
    found = []
    for number, artifact in enumerate(logits):
        known, evaluation = LogitsTable.open(artifact.path, encoded), Evaluation(len(encoded.classes))
        stored = {entry.path for entry in artifact.manifest.files}
        for shard in sorted({unit.shard for unit in encoded.units("test")} & stored):
            rows, path = encoded.entry(shard).rows or 0, artifact.file(shard)
            told = read_shard(path, rows, [*known.storage.columns, "fold"])
            labels = read_shard(table.file(shard), rows, ["label"]).column("label").to_numpy()
            there = scored(told).astype(bool) & (labels >= 0)
            evaluation.add(known.storage.decode(told, path, len(encoded.classes))[there], labels[there])
        if evaluation.num_rows:
            results = evaluation.results()
            title = "teacher" if len(logits) == 1 else f"teacher {number}"
            figures = {name: results[name] for name in (*FIGURES, "calibration")}
            found.append({"name": title, "parameters": parameters, **figures})
    return found


def teachers(cells: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The teachers of each dataset, means over its seeds; of cells from before they were kept nothing."""
    found: dict[str, list[dict[str, Any]]] = {}
    for dataset in dict.fromkeys(cell["dataset"] for cell in cells):
        own = [cell["teachers"] for cell in cells if cell["dataset"] == dataset and cell.get("teachers")]
        for seeds in zip(*own, strict=False):
            first = seeds[0]
            means = {name: mean([one[name] for one in seeds]) for name in FIGURES}
            pooled_bins = pooled([one["calibration"] for one in seeds])
            entry = {"name": first["name"], "parameters": first["parameters"], **means, "calibration": pooled_bins}
            found.setdefault(dataset, []).append(entry)
    return found


def pooled(parts: Sequence[Sequence[Mapping[str, float]] | None]) -> Bins | None:
    """The bins of several passes as those of one over all their rows; None where one has none."""
    if not parts or any(part is None for part in parts):
        return None
    sums: dict[int, list[float]] = {}
    for part in parts:
        for one in part or ():
            total = sums.setdefault(min(int(one["confidence"] * NUM_BINS), NUM_BINS - 1), [0.0, 0.0, 0.0])
            for k, value in enumerate((1.0, one["confidence"], one["accuracy"])):
                total[k] += one["rows"] * value
    return [{"rows": n, "confidence": p / n, "accuracy": a / n} for _, (n, p, a) in sorted(sums.items())]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one of the values, or all of them, are missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
