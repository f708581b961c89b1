"""Ray Data under the stages: one task per item, results in the order of the items, a killed task runs again."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from tgeokd_ray.cluster.failures import RERUN, explain
from tgeokd_ray.errors import ResourceError, UserError
from tgeokd_ray.feed import Unit, UnitReader

Item = TypeVar("Item")
Result = TypeVar("Result")

TASK_ROWS = 131_072  # that a task reads: starting one costs as much as reading tens of thousands
RETRIES = 3  # of a task whose process dies; Ray Data by itself would go on without end


@dataclass(frozen=True)
class Outcome:
    """A result that Ray Data must not take apart (a plain tuple would come back as a list), or what went wrong."""

    value: Any = None
    error: UserError | None = None
    failure: str = ""  # a traceback as text: not every exception can travel

    @classmethod
    def of(cls, function: Callable[[Any], Any], item: Any) -> Outcome:
        """What `function` gives for the item, or how it fails."""
        try:
            return cls(function(item))
        except UserError as error:
            return cls(error=error)
        except Exception:
            return cls(failure=traceback.format_exc())

    def result(self, stage: str) -> Any:
        """The value, or the error raised in this process."""
        if self.error is not None:
            raise self.error
        if self.failure:
            line = self.failure.strip().rpartition("\n")[2]
            raise ResourceError(f"a task of {stage} failed: {line}", fix=RERUN) from RuntimeError(self.failure)
        return self.value


@dataclass(frozen=True)
class _Call:
    """The mapped function with its items, which travel through the object store."""

    function: Callable[[Any], Any]
    items: list[Any]  # one reference; inside a list it is not resolved on the way

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": Outcome.of(self.function, ray.get(self.items[0])[row["index"]])}


def ray_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, stage: str, tasks: int, gpus: int = 0
) -> Iterator[Result]:
    """`function` of every item, in the order of the items, while later ones still run; at most `tasks` at once.

    Every item is one task with one CPU and `gpus` GPUs, so a function that writes must be able to write again: a task
    whose process is killed is run again, three times at most. A UserError that the function raises is raised here;
    anything else that fails is a ResourceError with one line.
    """
    listed = list(items)
    if not listed:
        return
    call = _Call(function, [ray.put(listed)])
    with _own_retries():
        dataset = _indices(len(listed)).map(
            call,
            compute=ray.data.TaskPoolStrategy(min(tasks, len(listed))),
            num_cpus=1,
            num_gpus=gpus,
            max_retries=RETRIES,
        )
    dataset.set_name(stage)
    try:
        for batch in _settled(dataset).iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0):
            yield batch["outcome"][0].result(stage)
    except RayError as error:
        raise explain(error) from error


@contextlib.contextmanager
def _own_retries() -> Iterator[None]:
    """Ray Data has no named parameter for the number of retries and warns, up to 2.64, of the way there is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def _indices(count: int) -> ray.data.Dataset:
    return ray.data.from_items([{"index": i} for i in range(count)], override_num_blocks=count)


def _settled(dataset: ray.data.Dataset) -> ray.data.Dataset:
    """The settings of this dataset alone: in order, one block per row of the input, quiet."""
    context = dataset.context
    context.execution_options.preserve_order = True
    context.target_max_block_size = None  # a unit is never cut into several blocks
    context.enable_progress_bars = context.enable_operator_progress_bars = context.print_on_execution_start = False
    return dataset


@dataclass(frozen=True)
class _ReadUnits:
    """A block with the index of a group of units to one table of all. What can't be read comes back as the index."""

    held: list[ray.ObjectRef]  # one, to the reader and the groups; inside a list it is not resolved on the way

    def __call__(self, block: dict[str, NDArray[Any]]) -> pa.Table:
        index = int(block["index"][0])
        reader, groups = _opened(self.held[0])
        try:
            return pa.concat_tables(reader(groups[index])).combine_chunks()
        except UserError:
            return pa.table({"index": [index]})


@lru_cache(maxsize=2)
def _opened(held: ray.ObjectRef) -> tuple[UnitReader, tuple[tuple[Unit, ...], ...]]:
    """Once a process and not once a task: a reader carries the manifests of its table and logits."""
    found: tuple[UnitReader, tuple[tuple[Unit, ...], ...]] = ray.get(held)
    return found


@dataclass(frozen=True)
class RayDataReader:
    """A UnitReader whose units are read by Ray Data tasks on any node, at most `ahead` at once, small ones together.

    Yields the same tables in the same order as `reader`, which must be picklable and does the reading and joining. The
    tasks reserve no CPU: inside a worker group that holds all of them they would never start. A UserError of a unit is
    raised here, when its turn comes.
    """

    reader: UnitReader
    ahead: int = 2

    def __call__(self, units: Sequence[Unit]) -> Iterator[pa.Table]:
        if not units:
            return
        groups = _grouped(units)
        read = _ReadUnits([ray.put((self.reader, groups))])
        with _own_retries():
            dataset = _indices(len(groups)).map_batches(
                read,
                batch_size=1,
                batch_format="numpy",
                compute=ray.data.TaskPoolStrategy(min(self.ahead, len(groups))),
                num_cpus=0,
                max_retries=RETRIES,
            )
        tables = _settled(dataset).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
        for group, table in zip(groups, tables, strict=True):
            yield from self.reader(group) if table.column_names == ["index"] else _cut(table, group)


def _grouped(units: Sequence[Unit]) -> tuple[tuple[Unit, ...], ...]:
    """The units in their order, in groups of about TASK_ROWS rows."""
    groups: list[list[Unit]] = []
    room = 0
    for unit in units:
        if unit.rows > room:
            groups.append([])
            room = TASK_ROWS
        groups[-1].append(unit)
        room -= unit.rows
    return tuple(map(tuple, groups))


def _cut(table: pa.Table, units: Sequence[Unit]) -> Iterator[pa.Table]:
    first = 0
    for unit in units:
        yield table.slice(first, unit.rows)
        first += unit.rows
