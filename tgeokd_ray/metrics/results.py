"""From the counts of an evaluation to its measures, each of them or the reason why it is undefined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.metrics.ranking import Ranking

FALSE_ALARMS = (0.01, 0.001)


@dataclass(frozen=True)
class Counts:
    """What an evaluation has counted.

    confusion [label, prediction]; bins [2, B] of confidence: rows, and rows predicted right; totals [1 + C + B]: NLL,
    probability of each class, confidence in each bin; rankings of the ranked classes, exact if scores were not binned.
    """

    num_rows: int
    negative_class: int
    confusion: NDArray[np.float64]
    bins: NDArray[np.float64]
    totals: NDArray[np.float64]
    rankings: list[Ranking]
    exact: bool

    @property
    def num_classes(self) -> int:
        return len(self.confusion)


def summarise(counts: Counts) -> dict[str, Any]:
    """The measures that `Evaluation.results` documents."""
    undefined: dict[str, str] = {}
    results: dict[str, Any] = {"rows": counts.num_rows}
    results |= _order(counts, undefined)
    results |= _decisions(counts, undefined)
    results |= _probabilities(counts, undefined)
    results["undefined"] = undefined
    return results


def _order(counts: Counts, undefined: dict[str, str]) -> dict[str, Any]:
    defined = [ranking for ranking in counts.rankings if ranking.defined]
    attack = _attack(counts)
    results: dict[str, Any] = {"auc": None, "auc_bound": None, "average_precision": None}
    if defined:
        results["auc"] = float(np.mean([ranking.auc() for ranking in defined]))
        results["auc_bound"] = 0.0 if counts.exact else float(np.mean([ranking.tied() for ranking in defined])) / 2
        results["average_precision"] = float(np.mean([ranking.average_precision() for ranking in defined]))
    else:
        undefined |= dict.fromkeys(results, _one_sided(counts))
    rates = {str(rate): attack.detection_rate(rate) if attack.defined else None for rate in FALSE_ALARMS}
    if not attack.defined:
        undefined["detection_rate"] = _one_sided(counts)
    return results | {"detection_rate": rates}


def _attack(counts: Counts) -> Ranking:
    rankings = counts.rankings
    if counts.num_classes == 2:
        return rankings[0] if counts.negative_class == 0 else rankings[0].flipped()
    return rankings[counts.negative_class].flipped()


def _one_sided(counts: Counts) -> str:
    present = np.flatnonzero(counts.confusion.sum(axis=1)).tolist()
    if not present:
        return "no rows"
    if len(present) == 1:
        return f"every row is of class {present[0]}"
    return f"no row of class {counts.negative_class}, the negative one"


def _decisions(counts: Counts, undefined: dict[str, str]) -> dict[str, Any]:
    right, actual, predicted = np.diag(counts.confusion), counts.confusion.sum(axis=1), counts.confusion.sum(axis=0)
    total = actual.sum()
    recall: dict[str, float | None] = {}
    for c in range(counts.num_classes):
        recall[str(c)] = float(right[c] / actual[c]) if actual[c] else None
        if not actual[c]:
            undefined[f"recall.{c}"] = f"no row of class {c}"
    if not total:
        undefined |= dict.fromkeys(("accuracy", "macro_f1", "positive_rate"), "no rows")
        return {"accuracy": None, "macro_f1": None, "recall": recall, "positive_rate": None}
    present = actual > 0
    return {
        "accuracy": float(right.sum() / total),
        "macro_f1": float(np.mean(2 * right[present] / (actual + predicted)[present])),
        "recall": recall,
        "positive_rate": float(np.delete(actual, counts.negative_class).sum() / total),
    }


def _probabilities(counts: Counts, undefined: dict[str, str]) -> dict[str, Any]:
    nll, *sums = counts.totals.tolist()
    predicted, confidence = sums[: counts.num_classes], np.array(sums[counts.num_classes :])
    observed = counts.confusion.sum(axis=1)
    total, (rows, right) = observed.sum(), counts.bins
    ratios = {str(c): predicted[c] / float(observed[c]) if observed[c] else None for c in range(counts.num_classes)}
    two = counts.num_classes == 2
    for c in [1] if two else range(counts.num_classes):
        if not observed[c]:
            undefined["predicted_over_observed" if two else f"predicted_over_observed.{c}"] = f"no row of class {c}"
    if not total:
        undefined |= dict.fromkeys(("nll", "ece"), "no rows")
    filled = np.flatnonzero(rows)
    columns = zip(rows[filled], confidence[filled] / rows[filled], right[filled] / rows[filled], strict=True)
    return {
        "nll": nll / float(total) if total else None,
        "ece": float(np.abs(right - confidence).sum() / total) if total else None,
        "predicted_over_observed": ratios["1"] if two else ratios,
        "calibration": [{"rows": float(n), "confidence": float(p), "accuracy": float(a)} for n, p, a in columns],
    }
