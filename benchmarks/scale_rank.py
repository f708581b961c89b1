"""One rank of a student's training on gloo: a line of JSON with the seconds and the bytes of a step.

python benchmarks/scale_rank.py RANK WORLD PORT ROWS IDS STEPS [--bilevel]; ROWS of each rank.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import torch
import torch.distributed as dist
from student_steps import DISTILLED, Running, Student, table

from tgeokd_ray.training.distributed import ProcessGroupWorker
from tgeokd_ray.training.worker import LocalWorker, Worker

WARM_UP = 3
LEARNED = {"kind": "tgeo_one_step", "level": 0.5}


class Counted:
    """The bytes that this rank hands to collectives."""

    def __init__(self) -> None:
        self.bytes = 0
        for name in ("all_reduce", "all_gather"):
            setattr(dist, name, self._counting(getattr(dist, name)))

    def _counting(self, collective: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.bytes += arguments[-1].numel() * arguments[-1].element_size()
            return collective(*arguments, **options)

        return counted


def main() -> None:
    """Train and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("rank", "world", "port", "rows", "ids", "steps"):
        parser.add_argument(name, type=int)
    parser.add_argument("--bilevel", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(options.port)}
        dist.init_process_group("gloo", rank=options.rank, world_size=options.world)
    counted = Counted()
    worker: Worker = ProcessGroupWorker() if options.world > 1 else LocalWorker()
    rule = LEARNED if options.bilevel else DISTILLED
    student = Student(num_ids=options.ids, rule=tuple(rule.items()))
    data = table(8 * options.rows * options.world, options.ids)
    every = 5 if options.bilevel else 0
    share = {"first": options.rank, "stride": options.world}
    running = Running(student, data, options.rows, every, options.rows, worker, **share)
    for _ in range(WARM_UP):
        running.step()
    worker.barrier()
    counted.bytes, began = 0, time.monotonic()
    for _ in range(options.steps):
        running.step()
    worker.barrier()
    seconds = (time.monotonic() - began) / options.steps
    sizes = {name: value.numel() * value.element_size() for name, value in running.state.theta.items()}
    table_bytes = sizes.pop("embedding.weight")
    found = {"seconds": seconds, "bytes": counted.bytes / options.steps}
    found |= {"table_bytes": table_bytes, "dense_bytes": sum(sizes.values())}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
