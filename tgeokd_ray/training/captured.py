"""A step as CUDA graphs: its few hundred kernels recorded once and launched together.

Launched one by one they keep a fast device waiting: at 4,096 rows it is busy for a sixteenth of the time. A graph has
fixed shapes and addresses, so batches are copied into buffers of their own, filled up with rows of weight 0, and a
state into one of two sets, from which a step leads to the other. Until the next step is over the one before is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.feed.sampler import LANES
from tgeokd_ray.training.state import Patch, State, Tensors
from tgeokd_ray.training.steps import Measures, Schedule, Step, Taken

MOVED = ("theta", "moments", "omega", "omega_moments")
FINENESS = 64  # a batch is filled up by less than a 64th, or by less than eight rows
MOST_GRAPHS = 24
WARM_UPS = 2

Key = tuple[str, str]


class Outcome(NamedTuple):
    """What a recorded step gives beside the state: the tables' patch and the measures."""

    patch: Patch | None
    measures: Measures


class Recorder:
    """Records work on a CUDA device: `record(work, side)` gives what repeats it, and its outputs, which are written
    again. A replay may write over the outputs of every graph of its own side, for these share their memory."""

    def __init__(self) -> None:
        self._pools: dict[int, Any] = {}
        self._ahead: torch.cuda.Stream | None = None

    def __call__(self, work: Callable[[], Outcome], side: int) -> tuple[Callable[[], None], Outcome]:
        now, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        # One stream for all: libraries keep a workspace for each.
        self._ahead = self._ahead or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._ahead.wait_stream(now)
        with torch.cuda.stream(self._ahead):  # libraries set themselves up, compilers compile
            for _ in range(WARM_UPS):
                work()
        now.wait_stream(self._ahead)
        try:
            # Others' threads go on with calls that this one may not make.
            with torch.cuda.graph(graph, pool=self._pools.get(side), capture_error_mode="thread_local"):
                outcome = work()
        finally:
            torch.cuda.set_stream(now)  # a capture that fails leaves its own behind
        self._pools[side] = graph.pool()
        return graph.replay, outcome


@dataclass
class Room:
    """Buffers for batches of up to `rows` rows; where there are fewer, the others have weight 0."""

    rows: Rows
    filled: int = -1

    def fill(self, rows: Rows) -> None:
        """Copy a batch, whose weights come to the rest as 0."""
        there = self.rows[slice(len(rows))]
        pairs = [(ours, given) for ours, given in zip(there.tensors(), rows.tensors(), strict=True) if ours.numel()]
        torch._foreach_copy_([ours for ours, _ in pairs], [given for _, given in pairs])
        if self.filled != len(rows):
            self.rows.weights[len(rows) :].zero_()
            self.filled = len(rows)


Record = Callable[[Callable[[], Outcome], int], tuple[Callable[[], None], Outcome]]


@dataclass
class Graph:
    """A step from one set of buffers to the other, for batches of one size."""

    replay: Callable[[], None]
    outcome: Outcome


@dataclass
class Captured:
    """`step` with its signature, recorded; of one worker, for rules that ask for no more than the points of a batch.

    Sizes of batches that come and go are taken as they are once MOST_GRAPHS are recorded, and so is every step from
    the first that can not be recorded on, which `warned` tells. Numbers are those of the step, but for the order in
    which rows are added up where a batch is filled up. What a state was is overwritten by the second step after it.
    """

    step: Step
    warned: Callable[[str], None]
    recorder: Callable[[], Record] = Recorder
    _sides: list[dict[str, Tensors]] = field(default_factory=list)
    _graphs: dict[Any, Graph] = field(default_factory=dict)
    _rooms: dict[Any, Room] = field(default_factory=dict)
    _masks: dict[Any, Tensor] = field(default_factory=dict)
    _places: dict[Any, Tensor] = field(default_factory=dict)
    _rates: list[Tensor] = field(default_factory=list)
    _rated: list[Any] = field(default_factory=lambda: [None, None])
    _record: Record | None = None
    _failed: bool = False

    def __call__(
        self,
        state: State,
        inner: Rows,
        outer: Rows | None,
        progress: float,
        masks: Tensor | None = None,
        parts: Tensor | None = None,
    ) -> tuple[State, Measures]:
        if self._failed or len(inner) == 0:
            return self.step(state, inner, outer, progress, masks, parts)
        outer = outer if self.step.problem.rule.learned else None
        state = state.settled()
        try:
            side = self._side(state)
            graph = self._filled(state, side, inner, outer, masks, None if outer is None else parts)
        except RuntimeError as error:
            self._give_up(error)
            graph = None
        if graph is None:
            return self.step(state, inner, outer, progress, masks, parts)
        graph.replay()
        patch, measures = graph.outcome
        moved: dict[str, Any] = dict(self._sides[1 - side])
        return replace(state, **moved, patch=patch, step=state.step + 1), measures

    def _filled(
        self,
        state: State,
        side: int,
        inner: Rows,
        outer: Rows | None,
        masks: Tensor | None,
        parts: Tensor | None,
    ) -> Graph | None:
        """The graph for batches of these sizes with everything that it reads in place; None where there are enough."""
        key = (side, _size(inner), None if outer is None else _size(outer), masks is None, parts is None)
        if key not in self._graphs and len(self._graphs) >= MOST_GRAPHS:
            return None
        self._set_rates(state.step)
        given = [self._room("inner", inner), *([] if outer is None else [self._room("outer", outer)])]
        own = self._mask(masks, key[1]), self._placed(parts, key[1])
        return self._graphs.get(key) or self._recorded(key, state, given, *own)

    def _give_up(self, error: RuntimeError) -> None:
        """From now on steps are taken as they are, and nothing is kept for others."""
        self._failed = True
        self._sides, self._graphs, self._rooms, self._record = [], {}, {}, None
        self._masks, self._places = {}, {}
        reason = str(error.__context__ or error).splitlines()[0]  # a capture's end tells less than what ended it
        self.warned(f"steps are launched one by one, which is slower: they can not be recorded ({reason})")

    def _side(self, state: State) -> int:
        """Which set of buffers the state lies in; into the first one it is copied where it lies in neither."""
        for side, parts in enumerate(self._sides):
            if all(getattr(state, part) is parts[part] for part in MOVED):
                return side
        tables = self._tables
        if self._sides and not _same(self._sides[0], state, tables):
            self._sides, self._graphs, self._record = [], {}, None
        if not self._sides:
            self._sides = [_buffers(state, tables) for _ in range(2)]
        _copy(self._sides[0], {part: getattr(state, part) for part in MOVED}, tables)
        return 0

    @cached_property
    def _tables(self) -> set[Key]:
        """What moves where it lies, row by row: the same tensors for both sides."""
        optimizer = self.step.optimizer
        if not self.step.windowed:
            return set()
        names = {("moments", moment) for name in optimizer.tables for moment in optimizer.moments_of(name)}
        return names | {("theta", name) for name in optimizer.tables}

    def _set_rates(self, step: int) -> None:
        schedules = (self.step.learning_rate, self.step.fusion_learning_rate)
        if not self._rates:
            self._rates = [schedule.rates.clone() for schedule in schedules]
        for place, schedule in enumerate(schedules):
            if self._rated[place] != (now := schedule.stage(step)):
                self._rates[place].copy_(schedule(step))
                self._rated[place] = now

    def _room(self, name: str, rows: Rows) -> Room:
        key = (name, _size(rows))
        if key not in self._rooms:
            blank = rows.take(torch.zeros(_size(rows), dtype=torch.int64, device=rows.labels.device))
            self._rooms[key] = Room(blank)
        self._rooms[key].fill(rows)
        return self._rooms[key]

    def _mask(self, masks: Tensor | None, size: int) -> Tensor | None:
        if masks is None:
            return None
        if size not in self._masks:
            self._masks[size] = masks.new_zeros(masks.shape[0], size, masks.shape[2])
        self._masks[size][:, : masks.shape[1]].copy_(masks)
        return self._masks[size]

    def _placed(self, parts: Tensor | None, size: int) -> Tensor | None:
        """The parts of a look-ahead, filled up to what those of a batch of `size` rows have at most."""
        if parts is None:
            return None
        if size not in self._places:
            self._places[size] = parts.new_empty(len(parts), -(-size // len(parts)) + LANES)
        self._places[size].fill_(-1)[:, : parts.shape[1]].copy_(parts)
        return self._places[size]

    def _recorded(self, key: Any, state: State, given: list[Room], masks: Tensor | None, parts: Tensor | None) -> Graph:
        here: dict[str, Any] = dict(self._sides[key[0]])
        there, tables, start = self._sides[1 - key[0]], self._tables, replace(state, **here)
        rates = [Schedule(rates) for rates in self._rates]
        step = replace(self.step, learning_rate=rates[0], fusion_learning_rate=rates[1], fixed_window=True)
        inner, outer = given[0].rows, given[1].rows if len(given) > 1 else None

        def work() -> Outcome:
            new, measures = step(start, inner, outer, 0.0, masks, parts)
            _copy(there, {part: getattr(new, part) for part in MOVED}, tables)
            return Outcome(new.patch, measures)

        self._record = self._record or self.recorder()
        self._graphs[key] = Graph(*self._record(work, key[0]))
        return self._graphs[key]


def captured(step: Step, warned: Callable[[str], None]) -> Taken:
    """The step recorded, where it can be: on a CUDA device and one worker; else as it is."""
    rule = step.problem.rule
    alone = step.worker.size == 1 and step.micro_rows is None
    fits = alone and not rule.needs and not rule.annealed
    return Captured(step, warned) if fits and step.worker.device.type == "cuda" else step


def _size(rows: Rows) -> int:
    """The rows of a batch, filled up so that sizes that differ by a few are one."""
    grain = max(8, 1 << max(len(rows).bit_length() - FINENESS.bit_length(), 0))
    return -(-len(rows) // grain) * grain


def _buffers(state: State, tables: set[Key]) -> dict[str, Tensors]:
    """Room for what moves of a state; tables are the state's own."""
    return {
        part: {n: v if (part, n) in tables else torch.empty_like(v) for n, v in getattr(state, part).items()}
        for part in MOVED
    }


def _same(parts: Mapping[str, Tensors], state: State, tables: set[Key]) -> bool:
    """Whether a state fits into these buffers, and its tables are those of them."""
    for part in MOVED:
        ours, theirs = parts[part], getattr(state, part)
        if ours.keys() != theirs.keys() or any(ours[name].shape != value.shape for name, value in theirs.items()):
            return False
        if any(ours[name].data_ptr() != value.data_ptr() for name, value in theirs.items() if (part, name) in tables):
            return False
    return True


def _copy(there: Mapping[str, Tensors], values: Mapping[str, Tensors], tables: set[Key]) -> None:
    """Write what moves, but tables, into buffers."""
    pairs = [
        (there[part][name], value)
        for part in MOVED
        for name, value in values[part].items()
        if (part, name) not in tables
    ]
    torch._foreach_copy_([ours for ours, _ in pairs], [value for _, value in pairs])
