"""A step on the rows that its batches name is the step on the whole table."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training_bilevel import IDS, INNER, OUTER, make_state, make_step, part
from torch import Tensor
from training_runs import Killed, StopsAt, run
from worker_ranks import on_ranks, parameters, train
from worker_threads import Threads

from tgeokd_ray.objectives.optimizers import Optimizer
from tgeokd_ray.objectives.settings import EMBEDDING_KINDS, OptimizerSpec
from tgeokd_ray.training import run as runs
from tgeokd_ray.training import steps
from tgeokd_ray.training import window as windows
from tgeokd_ray.training.spec import Fusion
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Step
from tgeokd_ray.training.worker import LocalWorker

KINDS = [kind for kind in EMBEDDING_KINDS if kind != "dense"]
TABLE = "embedding.weight"
# The inner batch names ids 0 .. 4, the outer one 2 .. 5: some rows are named by one of them alone, row 6 by none.
FEW, OTHERS = (
    replace(INNER, categorical=INNER.categorical.clamp(max=4)),
    replace(OUTER, categorical=OUTER.categorical.clamp(min=2, max=5)),
)


def row_wise(kind: str, look_ahead: int = 1) -> tuple[Step, State]:
    """A bilevel step with clipping and decay whose table moves by `kind`, and a state after seven steps."""
    step = make_step(look_ahead=look_ahead)
    spec = OptimizerSpec("adam", 0.02, weight_decay=0.01, clip_norm=0.05, embedding=kind, embedding_rate=3.0)
    step = replace(step, optimizer=Optimizer(spec, [TABLE]), windowed=True)
    return step, copied(make_state(step).settled())


def copied(state: State) -> State:
    """The state in memory of its own: a step writes into the tables that it is given."""
    return State.from_flat(
        {name: value.clone() for name, value in state.flat().items()},
        epoch=state.epoch,
        step=state.step,
        history=state.history,
        device=torch.device("cpu"),
    )


def agree(found: State, expected: State, bound: float = 1e-12) -> None:
    left, right = found.flat(), expected.flat()
    assert left.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(left[name], value, rtol=bound, atol=bound, msg=name)


@pytest.mark.parametrize("look_ahead", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_window_changes_nothing(kind: str, look_ahead: int) -> None:
    """Against the same optimizer on the whole table in float64, two students, three steps with an outer batch each."""
    step, state = row_wise(kind, look_ahead)
    whole, started = copied(state), copied(state)
    for _ in range(3):
        whole, expected = step._taken(whole, FEW, OTHERS, 0.5, None)
        state, measures = step(state, FEW, OTHERS, 0.5)
        torch.testing.assert_close(measures, expected, rtol=1e-12, atol=1e-12)
        assert state.patch is not None
        assert state.patch.rows.tolist() == [0, 1, 2, 3, 4, 5]
    agree(state, whole)
    moved = (state.settled().theta[TABLE] != started.theta[TABLE]).any(-1).all(0)
    assert moved.tolist() == [True] * 5 + [False] * (IDS - 5), "rows that only the outer batch names do not move"


@pytest.mark.parametrize("kind", KINDS)
def test_without_an_outer_batch(kind: str) -> None:
    step, state = row_wise(kind)
    whole, _ = step._taken(copied(state), FEW, None, 0.5, None)
    agree(step(state, FEW, None, 0.5)[0], whole)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_ids_and_of_rows_is_irrelevant(kind: str) -> None:
    """Ids renamed: the table's rows change places. Rows shuffled: sums in another order. The same again: every bit."""
    step, state = row_wise(kind)
    reference, again = (step(copied(state), FEW, OTHERS, 0.5)[0].flat() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in reference.items())
    order = torch.randperm(IDS, generator=torch.Generator().manual_seed(1))
    renamed = State.from_flat(
        {n: v[:, order.argsort()] if n.endswith(TABLE) else v for n, v in copied(state).flat().items()},
        epoch=0,
        step=state.step,
        history=(),
        device=torch.device("cpu"),
    )
    # row i of the old table is row order[i] of the new one
    batches = [replace(rows, categorical=order[rows.categorical]) for rows in (FEW, OTHERS)]
    found = step(renamed, *batches, 0.5)[0].flat()
    shuffled = torch.randperm(len(FEW), generator=torch.Generator().manual_seed(2))
    other = step(copied(state), part(FEW, shuffled), OTHERS, 0.5)[0].flat()  # type: ignore[arg-type]
    for name, value in reference.items():
        there = found[name][:, order] if name.endswith(TABLE) else found[name]
        torch.testing.assert_close(there, value, rtol=1e-12, atol=1e-12, msg=name)
        torch.testing.assert_close(other[name], value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("outer", [None, OTHERS])
@pytest.mark.parametrize("look_ahead", [1, 5])
def test_a_window_of_a_dense_table(look_ahead: int, outer) -> None:  # type: ignore[no-untyped-def]
    """Adam with clipping and decay: every row moves, and every other part of the step is of the window."""
    step, state = row_wise("dense", look_ahead)
    whole, found = copied(state), copied(state)
    for _ in range(3):
        whole, expected = replace(step, windowed=False)(whole, FEW, outer, 0.5)
        found, measures = step(found, FEW, outer, 0.5)
        torch.testing.assert_close(measures, expected, rtol=1e-12, atol=1e-12)
        assert found.patch is None
    agree(found, whole)
    assert (found.theta[TABLE] != state.theta[TABLE]).all(), "rows that no batch names decay"


@pytest.mark.timeout(120)
def test_a_run_takes_a_window_where_its_table_is_large(small, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """12 ids and two columns: batches of five rows cannot name them all. Bits stay without clipping."""
    taken = []
    monkeypatch.setattr(steps, "window", lambda *a, **k: taken.append(a) or windows.window(*a, **k))
    spec = small.spec(epochs=1, batch_rows=5, fusion=Fusion(every=2, batch_rows=5, warm_up=0.0))
    (found,) = run(spec)
    assert len(taken) == 120
    monkeypatch.setattr(runs, "_pays", lambda *a: False)
    (whole,) = run(replace(spec, root=f"{spec.root}/whole", folder=f"{spec.folder}/whole"))
    assert len(taken) == 120
    for name, value in parameters(whole).items():
        assert torch.equal(parameters(found)[name], value), name


def test_both_ways_to_find_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [torch.randint(5_000, (40, 3)), torch.randint(5_000, (7, 3), dtype=torch.int32)]
    rows = [replace(part(INNER, slice(0, 0)), categorical=value) for value in ids]
    optimizer = Optimizer(OptimizerSpec("sgd", 0.1, embedding="sgd"), [TABLE])
    found = []
    for limit in (1, 10**9):
        monkeypatch.setattr(windows, "SORTED_FROM", limit)
        seen, there = windows.window(optimizer, 5_000, rows, LocalWorker())
        found.append([seen.rows, *(batch.categorical for batch in there)])
        for batch, own in zip(there, ids, strict=True):
            assert torch.equal(seen.rows[batch.categorical], own.long())
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert torch.equal(found[0][0], torch.cat([one.flatten() for one in ids]).unique())


@pytest.mark.parametrize(
    ("inner", "outer"), [([9, 15], [4, 11]), ([1, 0, 23], [15, 0, 0])], ids=["two", "three, one empty"]
)
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "lazy_adam"])
def test_workers_share_one_window(kind: str, inner: list[int], outer: list[int]) -> None:
    step, state = row_wise(kind, look_ahead=3)
    alone, measures = step(copied(state), FEW, OTHERS, 0.5)
    threads = Threads(len(inner))
    states, module = [copied(state) for _ in inner], step.problem.module

    def work(rank: int) -> tuple[State, dict[str, Tensor]]:
        mine = replace(step, worker=threads, problem=replace(step.problem, module=copy.deepcopy(module)))
        shards = (
            part(rows, slice(sum(sizes[:rank]), sum(sizes[: rank + 1])))
            for rows, sizes in ((FEW, inner), (OTHERS, outer))
        )
        return mine(states[rank], *shards, 0.5)

    for new, found in threads.run(work):  # type: ignore[misc]
        agree(new, alone)
        torch.testing.assert_close(found, measures, rtol=1e-12, atol=1e-12)


def test_a_state_is_whole_at_every_moment() -> None:
    """Written twice, a patch changes nothing more; what a state held before its patch is no longer to be had."""
    step, state = row_wise("lazy_adam")
    after, _ = step(state, FEW, OTHERS, 0.5)
    expected = {name: value.clone() for name, value in copied(after).flat().items()}
    step(after, INNER, OTHERS, 0.5)  # an interruption may leave `after` to be saved once the next step has begun
    assert all(torch.equal(value, expected[name]) for name, value in after.flat().items())
    kept = after.with_snapshot()
    step(kept, INNER, OTHERS, 0.5)[0].settled()
    assert torch.equal(kept.snapshots[f"{kept.step:09d}/theta/{TABLE}"], expected[f"theta/{TABLE}"])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "lazy_adam"])
def test_a_run_ends_with_the_same_bits_after_a_stop(small, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    """With dropout, an outer step every second one, and a checkpoint after each step; killed and interrupted."""

    def spec(name: str):  # type: ignore[no-untyped-def]
        places = {"root": str(tmp_path / name), "folder": str(tmp_path / name / "run")}
        optimizer = OptimizerSpec("adam", 1e-2, embedding=kind, embedding_rate=4.0)
        return replace(small.spec(epochs=3, optimizer=optimizer, checkpoint_seconds=0.0), **places)

    (whole,) = run(spec("whole"))
    with pytest.raises(Killed):
        run(spec("killed"), progress=StopsAt(9, Killed()))
    with pytest.raises(KeyboardInterrupt):
        run(replace(spec("stopped"), checkpoint_seconds=1e9), progress=StopsAt(10, KeyboardInterrupt()))
    for name in ("killed", "stopped"):
        (again,) = run(spec(name))
        expected = parameters(whole)
        assert all(torch.equal(value, expected[key]) for key, value in parameters(again).items())
    assert whole.metrics["test"]["auc"] > 0.6
    assert len(whole.metrics["history"]) == 3


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "lazy_adam"])
def test_two_and_three_ranks_end_where_one_does(small, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    optimizer = OptimizerSpec("adam", 1e-3, clip_norm=0.5, embedding=kind, embedding_rate=4.0)
    spec = small.spec(precision="fp64", epochs=2, optimizer=optimizer)
    runs = {}
    for world in (1, 2, 3):
        places = {"root": str(tmp_path / str(world)), "folder": str(tmp_path / str(world) / "run")}
        runs[world] = on_ranks(world, train, replace(spec, **places))[0][0]
    expected = parameters(runs[1])
    for world in (2, 3):
        for name, value in parameters(runs[world]).items():
            assert (value - expected[name]).abs().max() <= 1e-10, (world, name)


@pytest.mark.parametrize("way", ["split", "forward", "finite"])
@pytest.mark.parametrize("kind", [*KINDS, "dense"])
def test_a_window_of_a_fixed_size_changes_nothing(kind: str, way: str) -> None:
    """Its last rows, which no id names, are neither of the gradient nor of the length of theta."""
    step, state = row_wise(kind, 5)
    step = replace(step, hypergradient=way)
    expected, found = copied(state), copied(state)
    for _ in range(3):
        expected, measures = step(expected, FEW, OTHERS, 0.5)
        found, seen = replace(step, fixed_window=True)(found, FEW, OTHERS, 0.5)
        torch.testing.assert_close(seen, measures, rtol=1e-12, atol=1e-12)
    agree(found, expected)


def test_a_window_of_a_fixed_size_has_no_more_places_than_the_table_rows() -> None:
    ids = torch.randint(0, 7, (50, 4), generator=torch.Generator().manual_seed(0))
    for num_rows, size in ((7, 7), (1000, 200)):
        rows, own, (places,) = windows.sorted_window([ids], num_rows)
        distinct = ids.unique()
        assert len(rows) == len(own) == size
        assert torch.equal(rows[: len(distinct)], distinct)
        assert torch.equal(rows[places], ids)
        assert torch.equal(rows[own], rows)
        assert own.tolist() == [*range(len(distinct)), *[len(distinct) - 1] * (size - len(distinct))]
