"""A batch in chunks: the same step, with the graph of a few rows at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_training_bilevel import INNER, OUTER, ROWS, make_state, make_step, part
from training_runs import run
from worker_ranks import parameters

from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.spec import Fusion
from tgeokd_ray.training.state import State


def agree(found: State, expected: State) -> None:
    left, right = found.flat(), expected.flat()
    for name, value in right.items():
        torch.testing.assert_close(left[name], value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("micro_rows", [1, 7, 24, 100])
@pytest.mark.parametrize(("way", "look_ahead"), [("split", 1), ("split", 4), ("forward", 4)])
def test_chunks_change_nothing(way: str, look_ahead: int, micro_rows: int) -> None:
    """A bilevel step in float64 with dropout, row weights, clipping and centring over the whole batch."""
    masks = (torch.rand(2, ROWS, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64) > 0.4) / 0.6
    step = make_step(way, look_ahead)
    state = make_state(step)
    whole, expected = step(state, INNER, OUTER, 0.5, masks.double())
    found, measures = replace(step, micro_rows=micro_rows)(state, INNER, OUTER, 0.5, masks.double())
    agree(found, whole)
    torch.testing.assert_close(measures, expected, rtol=1e-12, atol=1e-12)


def test_plain_steps_and_rows_without_weight() -> None:
    """Whole chunks of rows that do not count, and a worker without rows."""
    step = make_step()
    state = make_state(step)
    silent = replace(INNER, weights=INNER.weights.index_fill(0, torch.arange(12), 0.0))
    for rows in (INNER, silent, part(INNER, slice(0, 0)), replace(INNER, weights=torch.zeros(ROWS).double())):
        whole, expected = step(state, rows, None, 0.5)
        found, measures = replace(step, micro_rows=5)(state, rows, None, 0.5)
        agree(found, whole)
        torch.testing.assert_close(measures, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outer", [None, OUTER])
def test_no_graph_holds_more_rows(outer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    step = replace(make_step(look_ahead=3), micro_rows=5)
    state = make_state(step)
    seen, logits = [], Problem.logits

    def watched(self, theta, rows, *arguments, **options):  # type: ignore[no-untyped-def]
        seen.append((len(rows), torch.is_grad_enabled()))
        return logits(self, theta, rows, *arguments, **options)

    monkeypatch.setattr(Problem, "logits", watched)
    step(state, INNER, outer, 0.5)
    assert max(rows for rows, _ in seen) == 5
    assert sum(rows for rows, graph in seen if not graph) == ROWS, "one pass without a graph, for the ratios"


@pytest.mark.timeout(120)
def test_a_run_in_chunks_has_the_same_bits(small) -> None:  # type: ignore[no-untyped-def]
    """With exact sums the order of a sum is lost in the rounding; the digest is of its own."""
    spec = small.spec(epochs=2, exact_sums=True, fusion=Fusion(every=2, batch_rows=100, warm_up=0.0, look_ahead=3))
    whole, chunks = run(spec, replace(spec, name="chunks", micro_rows=30))
    assert whole.digest != chunks.digest
    expected = parameters(whole)
    for name, value in parameters(chunks).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-8, msg=name)
