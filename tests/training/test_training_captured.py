"""A recorded step is the step: on a processor the recording is the work itself, done again into the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_training_bilevel import INNER, OUTER, make_state, make_step
from test_training_window import FEW, KINDS, OTHERS, agree, copied, row_wise
from torch import Tensor
from training_runs import StopsAt, run
from worker_ranks import parameters

from tgeokd_ray.feed.rows import Rows, concatenate
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import build_rule
from tgeokd_ray.training import captured as recording
from tgeokd_ray.training import run as runs
from tgeokd_ray.training.captured import Captured, Outcome, captured
from tgeokd_ray.training.dropout import Dropout
from tgeokd_ray.training.spec import Fusion
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Schedule, Step


class Again:
    """Records as a graph does: what is replayed reads and writes where it did the first time. What was said of a side
    before is then overwritten, as the memory of its graphs is one."""

    def __init__(self) -> None:
        self.outcomes: dict[int, list[Outcome]] = {0: [], 1: []}

    def __call__(self, work: Callable[[], Outcome], side: int) -> tuple[Callable[[], None], Outcome]:
        outcome = work()
        self.outcomes[side].append(outcome)

        def replay() -> None:
            for value in (value for one in self.outcomes[side] for value in tensors(one)):
                value.fill_(float("nan") if value.is_floating_point() else 0)
            for there, value in zip(tensors(outcome), tensors(work()), strict=True):
                there.copy_(value)

        return replay, outcome


def tensors(of: Outcome) -> list[Tensor]:
    patch = [] if of.patch is None else [of.patch.rows, of.patch.own, *of.patch.values.values()]
    return [*patch, *of.measures.values()]  # type: ignore[list-item]


def recorded(step: Step, warned: Callable[[str], None] = pytest.fail) -> Captured:
    return Captured(step, warned, Again)


def compared(step: Step, state: State, batches: list[tuple[Rows, Rows | None]], bound: float = 0.0) -> State:
    """Both ways through the batches, from the same state; the last state of the recorded one."""
    plain, expected = replace(step, fixed_window=True), copied(state)
    quick, found = recorded(step), copied(state)
    for inner, outer in batches:
        expected, measures = plain(expected, inner, outer, 0.5)
        found, seen = quick(found, inner, outer, 0.5)
        torch.testing.assert_close(seen, measures, rtol=bound, atol=bound)
        assert found.step == expected.step
    agree(found, expected, bound)
    return found


def eight(rows: Rows) -> Rows:
    """As many rows as a buffer holds, so that nothing is filled up."""
    return concatenate([rows] * 8)[:8]


@pytest.mark.parametrize(
    ("rows", "room"), [(1, 8), (8, 8), (9, 16), (511, 512), (513, 520), (4083, 4096), (4096, 4096), (4097, 4160)]
)
def test_sizes_that_differ_by_a_few_have_one_room(rows: int, room: int) -> None:
    """Filled up by less than a 64th, or by less than eight rows."""
    assert recording._size(concatenate([FEW] * -(-rows // len(FEW)))[:rows]) == room
    assert room - rows < max(rows / 64, 8)


@pytest.mark.parametrize("look_ahead", [1, 5])
@pytest.mark.parametrize("kind", [*KINDS, "dense"])
def test_a_recorded_step_is_the_step_bit_for_bit(kind: str, look_ahead: int) -> None:
    """Outer batches now and then, a table that moves row by row or as a whole, clipping, decay, two students."""
    step, state = row_wise(kind, look_ahead)
    inner, outer, other = eight(FEW), eight(OTHERS), eight(INNER)
    compared(step, state, [(inner, outer), (other, None), (other, outer), (inner, None), (inner, outer)])


def test_without_a_table_of_its_own() -> None:
    step = make_step()
    state = make_state(step)
    compared(step, state, [(eight(INNER), eight(OUTER)), (eight(INNER), None), (eight(OUTER), eight(OUTER))])


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_filled_up_with_rows_that_count_for_nothing(kind: str) -> None:
    """Sizes below a buffer's, larger and smaller in turn: sums have zeros in them, and end elsewhere in rounding."""
    step, state = row_wise(kind)
    sizes = [(FEW, OTHERS), (FEW[:3], None), (FEW, OTHERS[:2]), (FEW[:2], OTHERS), (FEW, None)]
    compared(step, state, sizes, 1e-12)


def test_masks_and_rates_are_read_at_every_step() -> None:
    step, state = row_wise("adagrad")
    step = replace(
        step,
        learning_rate=Schedule(step.learning_rate.rates, warm_up=9, lowered=(10,)),
        fusion_learning_rate=Schedule(step.fusion_learning_rate.rates, changes=((9, 0.5),)),
    )
    dropout = Dropout(0.5, 6, [1, 2])
    plain, quick = replace(step, fixed_window=True), recorded(step)
    expected, found = copied(state), copied(state)
    for number in range(5):
        masks = dropout.masks(number, ((0, len(FEW)),), step.problem.class_means)
        expected, _ = plain(expected, FEW, OTHERS, 0.5, masks)
        found, _ = quick(found, FEW, OTHERS, 0.5, masks)
    agree(found, expected)


def test_the_state_before_is_whole_until_the_next_step_is_over() -> None:
    """An interruption saves the state that the loop has, while the next step may be anywhere."""
    step, state = row_wise("rowwise_adagrad")
    quick = recorded(step)
    first, _ = quick(copied(state), FEW, OTHERS, 0.5)
    expected = copied(first)
    quick(first, FEW, OTHERS, 0.5)
    agree(first, expected)
    second, _ = quick(first, FEW, OTHERS, 0.5)  # and from it the step can be taken again
    agree(second, replace(step, fixed_window=True)(copied(expected), FEW, OTHERS, 0.5)[0])
    expected = copied(second)
    for outer in (None, OTHERS):  # whatever is recorded or replayed beside
        quick(second, FEW, outer, 0.5)
        agree(second, expected)


def test_a_state_from_elsewhere_is_taken_over() -> None:
    step, state = row_wise("lazy_adam")
    quick, plain = recorded(step), replace(step, fixed_window=True)
    quick(copied(state), FEW, OTHERS, 0.5)[0].settled()  # its tables move, and those of the next state are others
    agree(quick(copied(state), FEW, OTHERS, 0.5)[0], plain(copied(state), FEW, OTHERS, 0.5)[0])
    seen, _ = quick(copied(state), FEW, OTHERS, 0.5)
    own = replace(seen, omega={name: value + 1 for name, value in seen.omega.items()})
    expected = copied(own)
    agree(quick(own, FEW, OTHERS, 0.5)[0], plain(expected, FEW, OTHERS, 0.5)[0])


def test_more_sizes_than_graphs_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_GRAPHS", 1)
    step, state = row_wise("sgd")
    compared(step, state, [(eight(FEW), None), (eight(INNER), None), (eight(FEW), eight(OTHERS)), (eight(FEW), None)])


def test_what_can_not_be_recorded_is_said_once_and_taken_as_it_is() -> None:
    def refused(work: Callable[[], Outcome], side: int) -> Any:
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("the capture ended with an error")

    said: list[str] = []
    step, state = row_wise("sgd")
    quick, found, expected = Captured(step, said.append, lambda: refused), copied(state), copied(state)
    for _ in range(3):
        found, _ = quick(found, FEW, OTHERS, 0.5)
        expected, _ = step(expected, FEW, OTHERS, 0.5)
    agree(found, expected)
    assert len(said) == 1
    assert "one by one" in said[0]
    assert "not permitted when stream is capturing" in said[0]
    assert "more" not in said[0].splitlines()[-1].split("(")[1]
    assert not quick._sides
    assert not quick._rooms


@pytest.mark.parametrize("place", ["_buffers", "_copy"])
def test_memory_that_is_too_small_for_two_states_is_given_back(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def full(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    said: list[str] = []
    step, state = row_wise("adagrad")
    quick, expected = recorded(step, said.append), step(copied(state), FEW, OTHERS, 0.5)[0]
    monkeypatch.setattr(recording, place, full)
    found, _ = quick(copied(state), FEW, OTHERS, 0.5)
    agree(found, expected)
    assert ["out of memory" in one for one in said] == [True]
    assert not quick._sides


def test_tables_that_move_row_by_row_without_a_window() -> None:
    step, state = row_wise("sgd")
    step = replace(step, windowed=False)
    agree(recorded(step)(copied(state), FEW, OTHERS, 0.5)[0], step(copied(state), FEW, OTHERS, 0.5)[0], 1e-12)


def test_only_what_can_be_recorded_is() -> None:
    """Not on a processor, with several workers, in chunks, and for rules that ask for more than the points."""
    step, _ = row_wise("sgd")
    assert captured(step, pytest.fail) is step
    there = copy.copy(step.worker)
    there.device = torch.device("cuda")
    step = replace(step, worker=there)
    assert isinstance(captured(step, pytest.fail), Captured)
    assert not isinstance(captured(replace(step, micro_rows=2), pytest.fail), Captured)
    for kind in ("mgda", "rw", "anl"):
        rules = RulePack.of([build_rule(kind)] * 2)
        assert not isinstance(captured(replace(step, problem=replace(step.problem, rule=rules)), pytest.fail), Captured)
    two = copy.copy(there)
    two.size = 2
    assert not isinstance(captured(replace(step, worker=two), pytest.fail), Captured)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("embedding", ["dense", "rowwise_adagrad"])
def test_a_run_with_recorded_steps_ends_where_one_without_does(  # type: ignore[no-untyped-def]
    small, monkeypatch: pytest.MonkeyPatch, embedding: str
) -> None:
    """Through the loop: epochs, early stops of a pack, an interruption and a resumption; filled up, so not all bits."""
    optimizer = replace(small.spec().optimizer, embedding=embedding)
    spec = small.spec(
        epochs=3,
        optimizer=optimizer,
        batch_rows=90,
        precision="fp64",
        fusion=Fusion(every=2, batch_rows=90, warm_up=0.0),
    )
    (plain,) = run(spec)
    monkeypatch.setattr(runs, "captured", lambda step, warned: recorded(step, warned))
    again_spec = replace(spec, root=f"{spec.root}/again", folder=f"{spec.folder}/again")
    with pytest.raises(KeyboardInterrupt):
        run(again_spec, progress=StopsAt(11, KeyboardInterrupt()))
    (found,) = run(again_spec)
    for name, value in parameters(plain).items():
        torch.testing.assert_close(parameters(found)[name], value, rtol=1e-12, atol=1e-12, msg=name)
