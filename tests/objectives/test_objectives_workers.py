"""Several workers with unequal shards give the numbers of one process."""

from __future__ import annotations

import pytest
import torch
from objectives_pack import ROWS, Batch, Threads, bilevel_step, make_bilevel, step_on_workers

from tgeokd_ray.objectives.geometry import FEATURES, standardise
from tgeokd_ray.objectives.optimizers import OptimizerSpec
from tgeokd_ray.objectives.points import Context, batch_mean
from tgeokd_ray.objectives.rules import TGeoOneStep


def shards(batch: Batch, sizes: list[int]) -> list[Batch]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [batch.part(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [([5, 7], [2, 7]), ([1, 3, 8], [4, 1, 4]), ([4, 0, 8], [9, 0, 0])],
    ids=["two", "three", "n7 empty"],
)
def test_workers_equal_one_process(inner: list[int], outer: list[int], centred: bool) -> None:
    rule = TGeoOneStep(centred=centred, level=0.4)
    problem = make_bilevel(OptimizerSpec("adam", 0.01, clip_norm=0.05), seeds=(0, 1), rule=rule)
    alone = bilevel_step(problem, problem.inner, problem.outer, Context(0.5))
    outcomes = step_on_workers(problem, shards(problem.inner, inner), shards(problem.outer, outer))
    ratio = torch.cat([outcome.ratio for outcome in outcomes], 1)
    torch.testing.assert_close(ratio, alone.ratio, rtol=1e-12, atol=1e-12)
    shares = [part.row_weights.sum() / problem.inner.row_weights.sum() for part in shards(problem.inner, inner)]
    slope = torch.cat([share * outcome.slope for share, outcome in zip(shares, outcomes, strict=True)], 1)
    torch.testing.assert_close(slope, alone.slope, rtol=1e-12, atol=1e-12)
    for outcome in outcomes:
        torch.testing.assert_close(outcome.theta, alone.theta, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(outcome.fusion, alone.fusion, rtol=1e-12, atol=1e-12)


def test_statistics_are_over_the_global_batch() -> None:
    problem = make_bilevel(OptimizerSpec("sgd", 0.01))
    parts = shards(problem.inner, [2, 0, ROWS - 2])
    threads = Threads(3)

    def work(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        context = Context(0.5, None, threads.global_mean)
        points = problem.points(parts[rank].teachers.transpose(0, 1)[:1], parts[rank])
        features = FEATURES["label_aligned"].compute(points)
        return batch_mean(features, points, context), standardise(features, points, context)

    results = threads.run(work)
    whole = problem.points(problem.inner.teachers.transpose(0, 1)[:1], problem.inner)
    features = FEATURES["label_aligned"].compute(whole)
    shares = problem.inner.row_weights / problem.inner.row_weights.sum()
    mean = torch.einsum("n,rnk->rk", shares, features)
    for found, _ in results:
        torch.testing.assert_close(found, mean, rtol=1e-13, atol=1e-13)
    together = torch.cat([scores for _, scores in results], 1)
    spread = torch.einsum("n,rnk->rk", shares, (features - mean[:, None]) ** 2).sqrt()
    torch.testing.assert_close(together, (features - mean[:, None]) / (spread[:, None] + 1e-3), rtol=1e-12, atol=1e-12)
