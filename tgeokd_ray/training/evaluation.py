"""One pass over a split: every worker scores its own units, summaries are merged, all workers hold the same results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.objectives.points import Context, teacher_share
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.spec import sign_of
from tgeokd_ray.training.state import Tensors
from tgeokd_ray.training.worker import Worker

RATIO_BINS = 20
Ints = NDArray[np.int64]


def evaluate(
    problem: Problem,
    theta: Tensors,
    batches: Iterator[Rows],
    worker: Worker,
    negative: int,
    *,
    weighted: bool = False,
    as_one: bool = False,
) -> list[Evaluation]:
    """Summaries of the R students over the rows that `batches` yields on every worker, merged in the order of ranks.

    With `weighted` rows count by their own weights; with `as_one` a single summary, of the mean of probabilities. A row
    whose label is denoised counts once for each class, by what that class has of it.
    """
    num_students = 1 if as_one else next(iter(theta.values())).shape[0]
    num_classes = problem.class_means.shape[-1]
    summaries = [Evaluation(num_classes, negative_class=negative) for _ in range(num_students)]
    with torch.inference_mode():
        for rows in batches:
            if len(rows) == 0:
                continue
            rows = rows.to(worker.device)
            scores = problem.logits(theta, rows)
            logits = (mean_log_probability(scores) if as_one else scores).float().cpu().numpy()
            index, labels, weights = outcomes(rows, weighted=weighted)
            for summary, student in zip(summaries, logits, strict=True):
                summary.add(student[index], labels, weights)
    return [_merge(summary, worker) for summary in summaries]


def outcomes(rows: Rows, *, weighted: bool) -> tuple[Ints, Ints, NDArray[np.float64] | None]:
    """Rows to count as `Evaluation.add` takes them: which row, with which label, by what weight (None: one each)."""
    own = rows.weights.double().cpu().numpy() if weighted else None
    if not rows.targets.shape[1]:
        return np.arange(len(rows)), rows.labels.cpu().numpy(), own
    targets = rows.targets.double().cpu().numpy()
    index, labels = np.nonzero(targets)
    return index, labels, targets[index, labels] * (1.0 if own is None else own[index])


def mean_log_probability(logits: Tensor) -> Tensor:
    """The log of the members' mean probabilities: [R, N, C] to [1, N, C]."""
    return logits.log_softmax(-1).logsumexp(0, keepdim=True) - math.log(logits.shape[0])


def _merge(summary: Evaluation, worker: Worker) -> Evaluation:
    if worker.size == 1:
        return summary
    arrays = summary.to_arrays()
    gathered = {
        name: [part.cpu().numpy() for part in worker.gather(torch.from_numpy(np.array(value)).to(worker.device))]
        for name, value in sorted(arrays.items())
    }
    parts = [Evaluation.from_arrays({name: ranks[r] for name, ranks in gathered.items()}) for r in range(worker.size)]
    return reduce(Evaluation.merge, parts)


def signed(results: dict[str, Any], metric: str) -> float:
    """The metric such that higher is better; minus infinity where it is undefined."""
    value = results.get(metric)
    if value is None:
        return -float("inf")
    return sign_of(metric) * float(value)


@dataclass(frozen=True)
class RatioSummary:
    """What the fusion ratio did on a split: counts [R, bins] over (0, 1), sum and rows per class [R, C]."""

    counts: Tensor
    sums: Tensor
    rows: Tensor

    def together(self) -> RatioSummary:
        """The summary of all students as one, [1, ...]."""
        return RatioSummary(*(value.sum(0, keepdim=True) for value in (self.counts, self.sums, self.rows)))

    def results(self, student: int) -> dict[str, Any]:
        """JSON-ready: mean, histogram with its edges, mean per class index (null for a class without rows)."""
        sums, rows = self.sums[student], self.rows[student]
        by_class = {str(c): (float(s / n) if n else None) for c, (s, n) in enumerate(zip(sums, rows, strict=True))}
        edges = [round(k / RATIO_BINS, 10) for k in range(RATIO_BINS + 1)]
        histogram = {"edges": edges, "counts": [int(count) for count in self.counts[student]]}
        return {"mean": float(sums.sum() / rows.sum().clamp_min(1)), "histogram": histogram, "by_class": by_class}


def summarise_ratio(
    problem: Problem, theta: Tensors, omega: Tensors, batches: Iterator[Rows], worker: Worker
) -> RatioSummary:
    """The teachers' share of every row with a label that `batches` yields, with the statistics of its own global batch.

    Every worker must yield the same number of batches: the rule's batch statistics are collectives.
    """
    num_students, num_classes = next(iter(theta.values())).shape[0], problem.class_means.shape[-1]
    counts = torch.zeros(num_students, RATIO_BINS, dtype=torch.float64)
    sums, seen = (torch.zeros(num_students, num_classes, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        for rows in batches:
            rows = rows.to(worker.device)
            points = problem.points(problem.logits(theta, rows), rows)
            context = Context(progress=1.0, generator=None, mean=worker.global_mean)
            weights = problem.mixture(omega, points, rows, context)
            known = points.labelled.cpu()  # without a label all weight is the teachers', whatever the rule says
            ratio = teacher_share(weights.double()).cpu()[:, known]
            labels = rows.labels.cpu()[known].expand_as(ratio)
            bins = (ratio * RATIO_BINS).long().clamp_(0, RATIO_BINS - 1)
            counts.scatter_add_(1, bins, torch.ones_like(ratio))
            sums.scatter_add_(1, labels, ratio)
            seen.scatter_add_(1, labels, torch.ones_like(ratio))
    merged = [torch.stack(worker.gather(value.to(worker.device))).sum(0).cpu() for value in (counts, sums, seen)]
    return RatioSummary(*merged)
