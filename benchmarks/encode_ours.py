"""One encode in a process of its own: `python encode_ours.py FOLDER PROCESSES FILE...`, one line of JSON.

With one process the stages run in this one, with more on a pool, as they do on the cores of a cluster.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import encode_data
import pyarrow as pa

from tgeokd_ray.events import Silent
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encode import encode


def main(folder: str, processes: int, files: list[str]) -> None:
    pa.set_cpu_count(1)
    seconds: dict[str, float] = {}
    before, began = cpu_seconds(), time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) if processes > 1 else nullcontext() as pool:
        if pool is not None:
            pool.map(abs, range(processes))  # the processes have started
            began = time.perf_counter()

        def engine(function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
            since = time.perf_counter()
            yield from map(function, items) if pool is None else pool.imap(function, items)
            seconds[stage] = round(time.perf_counter() - since, 2)

        table, _ = encode(Card.model_validate(encode_data.card()), files, Path(folder), engine, Silent())
        wall = time.perf_counter() - began
        if pool is not None:
            pool.close()
            pool.join()
    rows = sum(table.manifest.schema["rows"].values())
    ids = {column["name"]: column["size"] for column in table.manifest.schema["categorical"]}
    facts = {"rows": rows, "cpu_seconds": cpu_seconds() - before, "wall_seconds": wall, "stages": seconds, "ids": ids}
    print(json.dumps(facts | {"digest": table.digest}))


def cpu_seconds() -> float:
    """Of this process and those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
