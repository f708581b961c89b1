"""A look-ahead whose products each read a part of the inner batch."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training_bilevel import INNER, OUTER, ROWS, Tensors, make_state, make_step, part, weighted_mean
from test_training_captured import eight, recorded
from test_training_chunks import agree
from test_training_window import FEW, KINDS, OTHERS, copied, row_wise
from torch import Tensor
from training_runs import run
from worker_ranks import on_ranks, parameters, train
from worker_threads import Threads

from tgeokd_ray.feed.rows import Rows, concatenate
from tgeokd_ray.objectives.hypergradient import InnerStep
from tgeokd_ray.objectives.points import Context
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.objectives.ways import WAYS, Way
from tgeokd_ray.training.parts import places
from tgeokd_ray.training.passes import Passes
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.spec import Fusion
from tgeokd_ray.training.state import State

SHARES = ((0, 9), (4, 0), (6, 8), (9, 7))


def three(rows: int = ROWS) -> Tensor:
    """Three parts of a batch of one lane."""
    found = places([(0, rows)], 3)
    assert found is not None
    return found


def dropped() -> Tensor:
    """Masks of the six hidden units of both students, for every row."""
    kept = torch.rand(2, ROWS, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64) > 0.4
    return kept.double() / 0.6


def test_the_parts_of_a_batch_hold_each_row_once_and_are_alike() -> None:
    found = places(SHARES, 5)
    assert found is not None
    assert sorted(found[found >= 0].tolist()) == list(range(24))
    assert (found >= 0).sum(1).tolist() == [4, 4, 5, 6, 5]
    assert places(SHARES, 1) is None


@pytest.mark.parametrize(
    ("rows", "num_parts", "most"), [(1024, 4, 3), (4096, 16, 4), (1024, 32, 2), (1024, 128, 2), (513, 100, 2)]
)
def test_no_part_has_much_more_than_another(rows: int, num_parts: int, most: int) -> None:
    """Batches of twelve lanes, whose rows are rounded down or up."""
    found = places([(lane, (rows + lane) // 12) for lane in range(12)], num_parts)
    assert found is not None
    sizes = (found >= 0).sum(1)
    assert int(sizes.max() - sizes.min()) <= most


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_part_has_the_same_rows_for_every_number_of_workers(world: int) -> None:
    seen: dict[int, set[tuple[int, int]]] = {number: set() for number in range(3)}
    for rank in range(world):
        own = SHARES[rank::world]
        names = [(lane, place) for lane, rows in own for place in range(rows)]
        found = places(own, 3)
        assert found is not None
        for number, positions in enumerate(found):
            seen[number] |= {names[at] for at in positions.tolist() if at >= 0}
    assert seen == {
        number: {
            (lane, place) for lane, rows in SHARES for place in range(rows) if (place + lane * 3 // 12) % 3 == number
        }
        for number in range(3)
    }


def test_a_worker_without_rows_has_parts_without_any() -> None:
    for shares in ((), ((4, 0),)):
        found = places(shares, 3)
        assert found is not None
        assert found.shape == (3, 0)


def products(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Tensors], Tensors]]:
    """The product with the Hessian that a step gives its look-ahead, before it takes any."""
    given: list[Callable[[Tensors], Tensors]] = []

    def caught(self: InnerStep, v: Tensors, hessian: Callable[[Tensors], Tensors], num_steps: int) -> object:
        given.append(hessian)
        return pulled_back(self, v, lambda direction: direction, num_steps)

    pulled_back = InnerStep.pulled_back
    monkeypatch.setattr(InnerStep, "pulled_back", caught)
    return given


def test_each_product_is_with_the_hessian_of_the_mean_loss_of_the_next_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hessian of each part's weighted mean loss by double differentiation, five products round three parts."""
    step = make_step(look_ahead=6)
    state = make_state(step)
    given = products(monkeypatch)
    step(state, INNER, OUTER, 0.5, None, three())
    ratio = ratio_of(step, state)
    generator = torch.Generator().manual_seed(4)
    for turn in range(5):
        rows = torch.arange(turn % 3, ROWS, 3)
        direction = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in state.theta.items()}
        leaves = {name: value.detach().requires_grad_() for name, value in state.theta.items()}
        own = INNER.take(rows)
        losses = step.problem.losses(step.problem.logits(leaves, own), own)
        loss = weighted_mean((losses * ratio[:, rows]).sum(-1), own).sum()
        slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        along = sum((slope * direction[name]).sum() for name, slope in zip(leaves, slopes, strict=True))
        assert isinstance(along, Tensor)
        expected = dict(zip(leaves, torch.autograd.grad(along, list(leaves.values())), strict=True))
        torch.testing.assert_close(given[0](direction), expected, rtol=1e-12, atol=1e-13)


def ratio_of(step, state: State) -> Tensor:  # type: ignore[no-untyped-def]
    """The ratios that a step gives the rows of the whole batch."""
    theta = {name: value.detach() for name, value in state.theta.items()}
    points = step.problem.points(step.problem.logits(theta, INNER), INNER)
    with torch.no_grad():
        found: Tensor = step.problem.mixture(state.omega, points, INNER, Context(progress=0.5))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_parts_of_the_same_rows_are_the_whole_batch(way: str) -> None:
    """Three times the same rows and masks: each part's mean is the batch's. Other parts give another direction."""
    step = make_step(way, look_ahead=5)
    state = make_state(step)
    again = torch.arange(8).repeat_interleave(3)
    rows, masks = INNER.take(again), dropped().index_select(1, again)
    bound = 1e-6 if way == "finite" else 1e-12
    whole, _ = step(state, rows, OUTER, 0.5, masks)
    found, _ = step(state, rows, OUTER, 0.5, masks, three())
    torch.testing.assert_close(found.omega, whole.omega, rtol=0, atol=bound)
    torch.testing.assert_close(found.theta, whole.theta, rtol=0, atol=0)
    other, _ = step(state, rows, OUTER, 0.5, masks, places([(0, 8), (0, 8), (0, 8)], 3))
    assert max((other.omega[name] - value).abs().max() for name, value in whole.omega.items()) > 1e-4


@pytest.mark.parametrize("shares", [(0, 9, 15), (0, 1, 0, 23)], ids=["two", "three, one empty"])
def test_workers_move_omega_as_one_process_does(shares: tuple[int, ...]) -> None:
    step, sizes = make_step(look_ahead=5), shares[1:]
    state = make_state(step)
    lanes = list(enumerate(sizes))
    alone, measures = step(state, INNER, OUTER, 0.5, None, places(lanes, 4))
    threads = Threads(len(sizes))

    def work(rank: int) -> tuple[State, Tensors]:
        own = replace(step, worker=threads, problem=replace(step.problem, module=copy.deepcopy(step.problem.module)))
        rows = part(INNER, slice(sum(sizes[:rank]), sum(sizes[: rank + 1])))
        outer = OUTER if rank == 0 else part(OUTER, slice(0, 0))
        return own(state, rows, outer, 0.5, None, places(lanes[rank : rank + 1], 4))

    for new, found in threads.run(work):  # type: ignore[misc]
        torch.testing.assert_close(new.theta, alone.theta, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(new.omega, alone.omega, rtol=0, atol=1e-12)
        torch.testing.assert_close(found, measures, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["split", "forward"])
@pytest.mark.parametrize("micro_rows", [1, 3, 8, 100])
def test_chunks_change_nothing(way: str, micro_rows: int) -> None:
    step = make_step(way, look_ahead=5)
    state = make_state(step)
    whole, _ = step(state, INNER, OUTER, 0.5, dropped(), three())
    found, _ = replace(step, micro_rows=micro_rows)(state, INNER, OUTER, 0.5, dropped(), three())
    agree(found, whole)


@pytest.mark.parametrize(("micro_rows", "last"), [(5, 3), (10, 8)])
def test_no_graph_holds_more_rows_and_none_is_kept(monkeypatch: pytest.MonkeyPatch, micro_rows: int, last: int) -> None:
    """Parts of eight rows, in two chunks or in one: for each product the network runs anew."""
    step = replace(make_step(look_ahead=5), micro_rows=micro_rows)
    state = make_state(step)
    seen: Counter[int] = Counter()
    logits = Problem.logits

    def watched(self: Problem, theta: Tensors, rows: Rows, *arguments: object, **options: object) -> Tensor:
        seen[len(rows)] += 1
        return logits(self, theta, rows, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Problem, "logits", watched)
    step(state, INNER, OUTER, 0.5, None, three())
    assert max(seen) == micro_rows
    assert seen[last] == 4, "the last chunk of a part, once for each product"


@pytest.mark.parametrize("kind", KINDS)
def test_the_window_changes_nothing(kind: str) -> None:
    step, state = row_wise(kind, 5)
    whole, parts = copied(state), three(len(FEW))
    for _ in range(3):
        whole, _ = step._taken(whole, FEW, OTHERS, 0.5, None, parts)
        state, _ = step(state, FEW, OTHERS, 0.5, None, parts)
    agree(state, whole)


def test_a_recorded_step_has_the_parts_of_its_own_batch() -> None:
    """Batches of two sizes with one buffer: the parts are filled up with rows of weight 0, and change between steps."""
    step, state = row_wise("rowwise_adagrad", 5)
    plain, quick = replace(step, fixed_window=True), recorded(step)
    expected, found = copied(state), copied(state)
    for inner, outer in [(eight(FEW), OTHERS), (FEW[:5], OTHERS), (eight(FEW), None), (FEW[:7], OTHERS)]:
        for lane in (0, 1):
            parts = places([(lane, 3), (lane + 1, len(inner) - 3)], 3)
            expected, _ = plain(expected, inner, outer, 0.5, None, parts)
            found, _ = quick(found, inner, outer, 0.5, None, parts)
    agree(found, expected)
    assert len(quick._graphs) == 4, "with and without an outer batch, from either side"


def test_parts_without_weight_bend_nothing() -> None:
    """A part all of whose rows count for nothing: its product is zero, not a number divided by none."""
    step = make_step(look_ahead=4)
    state = make_state(step)
    silent = replace(INNER, weights=INNER.weights.index_fill(0, torch.arange(0, ROWS, 3), 0.0))
    found, _ = step(state, silent, OUTER, 0.5, None, three())
    assert all(bool(torch.isfinite(value).all()) for value in found.omega.values())
    rest = concatenate([silent.take(torch.arange(first, ROWS, 3)) for first in (1, 2)])
    assert float(rest.weights.min()) > 0


def test_only_a_batch_of_two_parts_or_more_has_another_digest(small) -> None:  # type: ignore[no-untyped-def]
    """Parts of `hessian_rows` rows or more, where there is a series at all."""

    def spec(batch_rows: int, look_ahead: int, hessian_rows: int):  # type: ignore[no-untyped-def]
        fusion = Fusion(look_ahead=look_ahead, hessian_rows=hessian_rows)
        return small.spec(batch_rows=batch_rows, fusion=fusion)

    parts = [spec(100, 20, rows).hessian_parts(100) for rows in (101, 100, 51, 50, 34, 33, 1)]
    assert parts == [1, 1, 1, 2, 2, 3, 100]
    assert spec(100, 1, 10).hessian_parts(100) == 1
    assert spec(1000, 20, 40).hessian_parts(79.9) == 1, "of a batch as it is, which may be far smaller"
    assert spec(100, 20, 100).arguments() == spec(100, 20, 51).arguments()
    assert "hessian_rows" not in spec(100, 20, 100).arguments()["fusion"]
    assert spec(100, 20, 50).arguments()["fusion"]["hessian_rows"] == 50


def test_a_run_by_finite_differences_says_which(small) -> None:  # type: ignore[no-untyped-def]
    told = {way: small.spec(fusion=Fusion(hypergradient=way)).arguments()["fusion"] for way in ("split", "finite")}
    assert told["finite"]["finite"] == 2
    assert "finite" not in told["split"]


@pytest.mark.timeout(300)
def test_a_run_reads_parts_and_ends_as_with_two_and_three_ranks(small, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec(
        precision="fp64",
        epochs=2,
        fusion=Fusion(every=2, batch_rows=100, warm_up=0.0, look_ahead=6, hessian_rows=30),
        optimizer=OptimizerSpec(kind="adam", learning_rate=1e-3, clip_norm=0.5),
    )
    (alone,) = run(spec)
    (whole,) = run(replace(spec, name="whole", fusion=replace(spec.fusion, hessian_rows=100)))
    expected, others = parameters(alone), parameters(whole)
    assert any(not torch.equal(value, others[name]) for name, value in expected.items() if name.startswith("fusion/"))
    for world in (2, 3):
        places = {"root": str(tmp_path / str(world)), "folder": str(tmp_path / str(world) / "run")}
        found = parameters(on_ranks(world, train, replace(spec, **places))[0][0])
        for name, value in found.items():
            slack = 1e-12 if name.startswith("model/") else 1e-10
            torch.testing.assert_close(value, expected[name], rtol=0, atol=slack, msg=name)


@pytest.mark.parametrize(("num_parts", "built", "most"), [(3, 3, 3), (7, 7, 5), (9, 9, 3), (24, 10, 2)])
def test_a_part_is_kept_only_while_it_comes_again(
    monkeypatch: pytest.MonkeyPatch, num_parts: int, built: int, most: int
) -> None:
    """Ten products: with seven parts three come again, and wait beside the one that is read."""
    step = make_step("finite", look_ahead=11)
    state = make_state(step)
    made: list[weakref.ref[Way]] = []
    alive: list[int] = []
    way = Passes.way

    def watched(self: Passes, *arguments: object, **options: object) -> Way:
        found = way(self, *arguments, **options)  # type: ignore[arg-type]
        if options.get("several"):
            made.append(weakref.ref(found))
            alive.append(sum(one() is not None for one in made))
        return found

    monkeypatch.setattr(Passes, "way", watched)
    step(state, INNER, OUTER, 0.5, None, places([(0, ROWS)], num_parts))
    assert len(made) == built
    assert max(alive) <= most
