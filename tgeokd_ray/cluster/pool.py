"""A pool of actors that each hold what a function needs, such as a teacher on a GPU, for as long as there are items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from tgeokd_ray.cluster.data import RETRIES, Outcome
from tgeokd_ray.cluster.failures import explain

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Holder:
    """The actor: a process of its own, in which the function may keep what was costly to load."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def call(self, item: Any) -> Outcome:
        return Outcome.of(self._function, item)


def ray_pool(
    function: Callable[[Item], Result], items: Iterable[Item], *, stage: str, actors: int, gpus: int = 0
) -> Iterator[Result]:
    """`function` of every item, in the order of the items, by at most `actors` processes with one CPU and `gpus` GPUs.

    An actor whose process dies is started again and does its item again, three times at most, so a function that writes
    must be able to write again. A UserError that the function raises is raised here; anything else that fails is a
    ResourceError with one line. The actors end with the iterator.
    """
    waiting = list(enumerate(items))[::-1]
    holder = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=RETRIES, max_task_retries=RETRIES)(_Holder)
    pool = [holder.remote(function) for _ in range(min(actors, len(waiting)))]
    running: dict[Any, tuple[int, Any]] = {}
    done: dict[int, Outcome] = {}
    following = 0
    try:
        while pool or running:
            while pool and waiting:
                (index, item), actor = waiting.pop(), pool.pop()
                running[actor.call.remote(item)] = index, actor
            for reference in ray.wait(list(running), num_returns=1)[0] if running else []:
                index, actor = running.pop(reference)
                done[index] = ray.get(reference)
                pool += [actor] if waiting else []  # an actor without work gives its CPU back
            pool = pool if waiting else []
            while following in done:
                yield done.pop(following).result(stage)
                following += 1
    except RayError as error:
        raise explain(error) from error
    finally:
        for _, actor in running.values():
            ray.kill(actor)
        for actor in pool:
            ray.kill(actor)
