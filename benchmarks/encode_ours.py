"""One encode in a process of its own: `python encode_ours.py FOLDER PROCESSES FILE...`, one line of JSON.

With one process the stages run in this one, with more on a pool, as they do on the cores of a cluster.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import encode_data
import pyarrow as pa

from tgeokd_ray.events import Silent
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encode import encode


def main(folder: str, processes: int, files: list[str]) -> None:
    pa.set_cpu_count(1)
    pa.array([0]).to_numpy()  # pyarrow loads pandas, .4 s, at its first conversion: an import like all others
    seconds: dict[str, float] = {}
    elsewhere: list[float] = []
    with multiprocessing.get_context("spawn").Pool(processes) if processes > 1 else nullcontext() as pool:
        if pool is not None:
            pool.map(_started, [0.5] * processes, chunksize=1)

        def engine(function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
            since = time.perf_counter()
            if pool is None:
                yield from map(function, items)
            else:
                for result, cpu in pool.imap(partial(_timed, function), items):
                    elsewhere.append(cpu)
                    yield result
            seconds[stage] = round(time.perf_counter() - since, 2)

        before, began = time.process_time(), time.perf_counter()
        table, _ = encode(Card.model_validate(encode_data.card()), files, Path(folder), engine, Silent())
        wall, cpu = time.perf_counter() - began, time.process_time() - before + sum(elsewhere)
    rows = sum(table.manifest.schema["rows"].values())
    ids = {column["name"]: column["size"] for column in table.manifest.schema["categorical"]}
    facts = {"rows": rows, "cpu_seconds": cpu, "wall_seconds": wall, "stages": seconds, "ids": ids}
    print(json.dumps(facts | {"digest": table.digest}))


def _started(seconds: float) -> None:
    """A process of the pool has its imports; it waits, so that each process gets one call."""
    pa.array([0]).to_numpy()
    time.sleep(seconds)


def _timed(function: Callable[[Any], Any], item: Any) -> tuple[Any, float]:
    """The result and the CPU seconds of this process for it."""
    before = time.process_time()
    return function(item), time.process_time() - before


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
