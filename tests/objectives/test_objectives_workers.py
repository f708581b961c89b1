"""Several workers with unequal shards give the numbers of one process."""

from __future__ import annotations

import threading

import pytest
import torch
from objectives_pack import CLIPPED_ADAM, ROWS, Batch, bilevel_step, make_bilevel, step_on_workers
from worker_threads import Threads

from tgeokd_ray.objectives.geometry import FEATURES, standardise
from tgeokd_ray.objectives.optimizers import OptimizerSpec
from tgeokd_ray.objectives.points import Context, batch_mean
from tgeokd_ray.objectives.rules import TGeoOneStep


@pytest.fixture(autouse=True)
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward mode has one level for all threads of a process; workers are processes."""
    lock, jvp = threading.Lock(), torch.func.jvp

    def locked(*arguments: object) -> object:
        with lock:
            return jvp(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.func, "jvp", locked)


def shards(batch: Batch, sizes: list[int]) -> list[Batch]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [batch.part(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize(
    ("way", "look_ahead", "centred"),
    [("split", 1, True), ("split", 1, False), ("split", 5, True), ("forward", 1, True), ("forward", 5, True)],
)
@pytest.mark.parametrize(
    ("inner", "outer"),
    [([5, 7], [2, 7]), ([1, 3, 8], [4, 1, 4]), ([4, 0, 8], [9, 0, 0])],
    ids=["two", "three", "n7 empty"],
)
def test_workers_equal_one_process(
    inner: list[int], outer: list[int], way: str, look_ahead: int, centred: bool
) -> None:
    rule = TGeoOneStep(centred=centred, level=0.4)
    problem = make_bilevel(CLIPPED_ADAM, seeds=(0, 1), rule=rule)
    how = {"way": way, "look_ahead": look_ahead}
    alone = bilevel_step(problem, problem.inner, problem.outer, Context(0.5), **how)
    outcomes = step_on_workers(problem, shards(problem.inner, inner), shards(problem.outer, outer), **how)
    assert (alone.terms > look_ahead / 2).all()
    ratio = torch.cat([outcome.ratio for outcome in outcomes], 1)
    torch.testing.assert_close(ratio, alone.ratio, rtol=1e-12, atol=1e-12)
    shares = [part.row_weights.sum() / problem.inner.row_weights.sum() for part in shards(problem.inner, inner)]
    slope = torch.cat([share * outcome.slope for share, outcome in zip(shares, outcomes, strict=True)], 1)
    torch.testing.assert_close(slope, alone.slope, rtol=1e-12, atol=1e-12)
    for outcome in outcomes:
        torch.testing.assert_close(outcome.theta, alone.theta, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(outcome.fusion, alone.fusion, rtol=1e-12, atol=1e-12)
        assert torch.equal(outcome.terms, alone.terms)


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
