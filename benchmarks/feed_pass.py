"""Epochs of a feed and nothing else, in one process; started by feed.py, prints one line of JSON.

python benchmarks/feed_pass.py ROOT [--cache BYTES] [--ray] [--epochs N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tgeokd_ray.artifacts import latest
from tgeokd_ray.feed import EncodedTable, Feed, LogitsTable, Sampler, UnitReader, Wanted

BATCH = 4096
Clock = Callable[[], float]


def main() -> None:
    """Seconds to the first batch of the run and of later epochs, CPU seconds of each epoch, memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--cache", type=int, default=0)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with _ray() if options.ray else contextlib.nullcontext((time.process_time, lambda reader: reader)) as (clock, over):
        facts = _passes(options, clock, over)
    print(json.dumps(facts))


def _passes(options: argparse.Namespace, clock: Clock, over: Callable[[UnitReader], UnitReader]) -> dict[str, Any]:
    before, began = _peak_mib(), time.monotonic()
    tables, logits = (latest(options.root, kind, "clicks") for kind in ("tables", "logits"))
    assert tables is not None
    assert logits is not None
    table = EncodedTable.open(tables.path)
    wanted = Wanted(table, ("train",), (LogitsTable.open(logits.path, table),))
    feed = Feed(over(wanted.direct()), Sampler(wanted.units, BATCH, 0), cache_bytes=options.cache)
    firsts, spent = [], []
    for epoch in range(options.epochs):
        used, rows = clock(), 0
        for batch in feed.batches(epoch):
            if not rows:
                firsts.append(time.monotonic() - began)
            rows += len(batch)
        spent.append(clock() - used)
        assert rows == wanted.rows
        began = time.monotonic()
    return {"rows": wanted.rows, "first_batch": firsts, "cpu": spent, "peak_mib": _peak_mib(), "before_mib": before}


def _peak_mib() -> float:
    """Of this process alone: ru_maxrss would begin with the memory of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextlib.contextmanager
def _ray() -> Iterator[tuple[Clock, Callable[[UnitReader], UnitReader]]]:
    """A Ray of this process's own; the clock counts this process and the workers that run its tasks."""
    from watch import Watch

    from tgeokd_ray.cluster.connect import connect
    from tgeokd_ray.cluster.data import RayDataReader

    connection = connect(workers=1)
    try:
        with Watch(os.getpid(), only="ray::") as workers:

            def clock() -> float:
                time.sleep(0.5)  # the workers are sampled a few times a second
                return workers.cpu_seconds

            yield clock, RayDataReader
    finally:
        connection.close()


if __name__ == "__main__":
    main()
