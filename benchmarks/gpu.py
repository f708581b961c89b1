"""Students on a GPU: rows per second, how busy it is, against compiled plain PyTorch, and what outer steps cost there.

python benchmarks/gpu.py [train bilevel] [--quick] [--json]; needs torch, numpy and pyarrow alone.

Not measured, with the reason, where no GPU is. Wall seconds, bfloat16, DNN 400x3 on 13 numeric and 26 categorical
columns of 16; batches lie in the GPU's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch
from figures import Figure, main
from student_steps import CATEGORICAL, DISTILLED, HIDDEN, NUMERIC, RATE, WIDTH, Running, Student, Table, table
from torch import Tensor, nn

from tgeokd_ray.training.worker import LocalWorker

BATCHES, IDS = (4096, 16_384, 65_536), (1_000_000, 30_000_000)
LEARNED = {"kind": "tgeo_one_step", "level": 0.5}
OUTER_BAR = 1.3


def absent(name: str) -> Figure:
    """The figure of a machine without a GPU."""
    return Figure(name, None, "ratio", "reported", None, context={"reason": "no GPU"})


class Plain(nn.Module):
    """The same student as plain PyTorch writes it: one embedding with sparse gradients, a tower, one loss."""

    def __init__(self, num_ids: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_ids, WIDTH, sparse=True)
        widths = [NUMERIC + CATEGORICAL * WIDTH, *HIDDEN]
        pairs = [[nn.Linear(i, o), nn.ReLU()] for i, o in pairwise(widths)]
        self.tower = nn.Sequential(*(layer for pair in pairs for layer in pair), nn.Linear(widths[-1], 2))

    def dense(self, numeric: Tensor, embedded: Tensor) -> Tensor:
        logits: Tensor = self.tower(torch.cat([numeric, embedded.flatten(1)], 1))
        return logits


def plain(data: Table, num_ids: int, batch_rows: int, device: str) -> Callable[[], None]:
    """A step of it: fused Adam on the tower, Adagrad on the rows, dense part compiled where there is a GPU."""
    network = Plain(num_ids).to(device)
    dense = torch.compile(network.dense) if device == "cuda" else network.dense
    tower = torch.optim.Adam(network.tower.parameters(), RATE, fused=True)
    rows = torch.optim.Adagrad(network.embedding.parameters(), 50 * RATE)
    batches = [data.rows(first * batch_rows, batch_rows).to(device) for first in range(4)]
    taken = 0

    def step() -> None:
        nonlocal taken
        batch = batches[taken % len(batches)]
        taken += 1
        tower.zero_grad()
        rows.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            logits = dense(batch.numeric, network.embedding(batch.categorical))
        nn.functional.cross_entropy(logits.float(), batch.labels).backward()
        tower.step()
        rows.step()

    return step


def ours(data: Table, student: Student, batch_rows: int, device: str, every: int = 0) -> Callable[[], None]:
    """A step of our student, whose batches lie on the device."""
    there = Table(*(part.to(device) for part in (data.numeric, data.categorical, data.labels, data.teacher)))
    return Running(student, there, batch_rows, every, batch_rows, LocalWorker(device)).step


def seconds(work: Callable[[], None], times: int, device: str) -> float:
    """Wall seconds of a call, the device's work included."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return (time.perf_counter() - began) / times


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def busy(work: Callable[[], None], times: int) -> float:
    """The share of the wall time in which kernels run."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        spent = seconds(work, times, "cuda") * times
    kernels = sum(event.device_time_total for event in profiled.key_averages())
    return kernels / 1e6 / spent


def in_turns(works: Sequence[Callable[[], None]], times: int, device: str, turns: int = 5) -> list[list[float]]:
    """Seconds of a call of each, [turn][work], after a warm-up."""
    for work in works:
        for _ in range(8):
            work()
    return [[seconds(work, times, device) for work in works] for _ in range(turns)]


def train(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """Bar i: rows per second, share of the time that the GPU is busy, and the ratio to compiled plain PyTorch."""
    if device == "cuda" and not torch.cuda.is_available():
        yield absent("gpu.train")
        return
    for num_ids in IDS[:1] if quick else IDS:
        for batch_rows in BATCHES[:1] if quick else BATCHES:
            data = table(4 * batch_rows, num_ids)
            student = Student(num_ids=num_ids, bf16=True, compile=device == "cuda")
            works = [ours(data, student, batch_rows, device), plain(data, num_ids, batch_rows, device)]
            turns = in_turns(works, 5 if quick else 50, device)
            ratios = [theirs / mine for mine, theirs in turns]
            name = f"gpu.train.{num_ids // 1_000_000}m.batch_{batch_rows}"
            pace = batch_rows / median(mine for mine, _ in turns)
            yield Figure(f"{name}.vs_plain", median(ratios), "ratio", "reported", True, [min(ratios), max(ratios)])
            yield Figure(f"{name}.rows_per_second", pace, "rows/s", "reported", True)
            if device == "cuda":
                yield Figure(f"{name}.busy", busy(works[0], 20), "share", "reported", True)


def bilevel(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """Bar i: a distilled student with an outer step every 5 over one without."""
    if device == "cuda" and not torch.cuda.is_available():
        yield absent("gpu.bilevel")
        return
    for batch_rows in BATCHES[:1] if quick else BATCHES:
        data = table(4 * batch_rows, IDS[0])
        distilled = Student(num_ids=IDS[0], bf16=True, rule=tuple(DISTILLED.items()))
        learned = replace(distilled, rule=tuple(LEARNED.items()))
        works = [ours(data, learned, batch_rows, device, every=5), ours(data, distilled, batch_rows, device)]
        turns = in_turns(works, 5 if quick else 50, device)
        ratios = [outer / inner for outer, inner in turns]
        value = median(ratios)
        name = f"gpu.bilevel.batch_{batch_rows}.every_5"
        yield Figure(name, value, "ratio", f"<= {OUTER_BAR}", value <= OUTER_BAR, [min(ratios), max(ratios)])


if __name__ == "__main__":
    main("Students on a GPU.", {"train": train, "bilevel": bilevel})
