"""Students on a GPU: rows per second, how busy it is, against compiled plain PyTorch, what outer steps cost there, and
whether its numbers are those of a processor.

python benchmarks/gpu.py [train launches bilevel look_ahead parity kernels] [--quick] [--json]; of packages torch,
numpy and pyarrow will do.

Not measured, with the reason, where no GPU is. Wall seconds, bfloat16, DNN 400x3 on 13 numeric and 26 categorical
columns of 16; batches lie in the GPU's memory, four of them in turn. Plain PyTorch is the same network with one
nn.Embedding, its dense part under torch.compile, fused Adam, and for the rows either sparse gradients and Adagrad or
dense gradients and the same Adam: the faster one counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch
from figures import Figure, main
from student_steps import CATEGORICAL, DISTILLED, HIDDEN, NUMERIC, RATE, WIDTH, Student, Table, parts_of, table
from torch import Tensor, nn

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.training.captured import captured
from tgeokd_ray.training.worker import LocalWorker

BATCHES, IDS = (4096, 16_384, 65_536), (1_000_000, 30_000_000)
LEARNED = {"kind": "tgeo_one_step", "level": 0.5}
OUTER_BAR = 1.3
EVERY = 5
DENSE_IDS = 1_000_000  # up to here dense gradients of the whole table are a thing to try
PARITY_BAR, PARITY_STEPS = 1e-9, 20

Work = Callable[[], None]


def absent(name: str) -> Figure:
    """The figure of a machine without a GPU."""
    return Figure(name, None, "ratio", "reported", None, context={"reason": "no GPU"})


class Plain(nn.Module):
    """The same student as plain PyTorch writes it: one embedding, a tower, one loss."""

    def __init__(self, num_ids: int, sparse: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_ids, WIDTH, sparse=sparse)
        widths = [NUMERIC + CATEGORICAL * WIDTH, *HIDDEN]
        pairs = [[nn.Linear(i, o), nn.ReLU()] for i, o in pairwise(widths)]
        self.tower = nn.Sequential(*(layer for pair in pairs for layer in pair), nn.Linear(widths[-1], 2))

    def dense(self, numeric: Tensor, embedded: Tensor) -> Tensor:
        logits: Tensor = self.tower(torch.cat([numeric, embedded.flatten(1)], 1))
        return logits


def batches_of(data: Table, batch_rows: int, device: str, teachers: int = 0, first: int = 0) -> list[Rows]:
    """Four batches on the device."""
    return [data.rows((first + number) * batch_rows, batch_rows, teachers).to(device) for number in range(4)]


def plain(data: Table, num_ids: int, batch_rows: int, device: str, sparse: bool) -> Work:
    """A step of it: fused Adam, with sparse gradients Adagrad on the rows, dense part compiled where there is a GPU."""
    network = Plain(num_ids, sparse).to(device)
    dense = torch.compile(network.dense) if device == "cuda" else network.dense
    rest = network.tower.parameters() if sparse else network.parameters()
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, RATE, fused=True)]
    if sparse:
        optimizers.append(torch.optim.Adagrad(network.embedding.parameters(), 50 * RATE))
    batches = batches_of(data, batch_rows, device)
    taken = 0

    def step() -> None:
        nonlocal taken
        batch = batches[taken % len(batches)]
        taken += 1
        for optimizer in optimizers:
            optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            logits = dense(batch.numeric, network.embedding(batch.categorical))
        nn.functional.cross_entropy(logits.float(), batch.labels).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def ours(
    data: Table,
    student: Student,
    batch_rows: int,
    device: str,
    every: int = 0,
    outer_rows: int = 0,
    recorded: bool = True,
) -> Work:
    """A step of our student as a run takes it on this device, with an outer batch every so many steps."""
    step = student.step(LocalWorker(device))
    take = captured(step, sys.exit) if recorded else step
    state, taken = student.start(step), 0
    batches = batches_of(data, batch_rows, device, student.num_teachers)
    outers = batches_of(data, outer_rows, device, student.num_teachers, first=1) if every else []

    def one() -> None:
        nonlocal state, taken
        outer = outers[taken // every % len(outers)] if every and taken % every == 0 else None
        parts = None if outer is None else parts_of(step, batch_rows)
        state, _ = take(state, batches[taken % len(batches)], outer, 0.5, None, parts)
        taken += 1

    return one


def seconds(work: Work, times: int, device: str) -> float:
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


def busy(work: Work, times: int) -> float:
    """The share of the wall time in which kernels run."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        spent = seconds(work, times, "cuda") * times
    return sum(event.device_time_total for event in profiled.key_averages()) / 1e6 / spent


def in_turns(works: Sequence[Work], times: int, device: str, turns: int = 5) -> list[list[float]]:
    """Seconds of a call of each, [turn][work], after a warm-up."""
    for work in works:
        for _ in range(2 * EVERY):
            work()
    return [[seconds(work, times, device) for work in works] for _ in range(turns)]


def _ratio(name: str, turns: list[list[float]], over: int, under: int, bar: float | None = None) -> Figure:
    """The median of `over`'s time by `under`'s, with an upper bar."""
    ratios = [times[over] / times[under] for times in turns]
    value, told = median(ratios), "reported" if bar is None else f"<= {bar:g}"
    return Figure(name, value, "ratio", told, None if bar is None else value <= bar, [min(ratios), max(ratios)])


def train(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """Bar i: rows per second, share of the time that the GPU is busy, and the ratio to compiled plain PyTorch."""
    if device == "cuda" and not torch.cuda.is_available():
        yield absent("gpu.train")
        return
    for num_ids in IDS[:1] if quick else IDS:
        for batch_rows in BATCHES[:1] if quick else BATCHES:
            data = table(4 * batch_rows, num_ids)
            student = Student(num_ids=num_ids, bf16=True)
            works = [ours(data, student, batch_rows, device)]
            works += [plain(data, num_ids, batch_rows, device, sparse) for sparse in (True, False)[: _forms(num_ids)]]
            turns = in_turns(works, 5 if quick else 50, device)
            best = min(range(1, len(works)), key=lambda work: median(times[work] for times in turns))
            name = f"gpu.train.{num_ids // 1_000_000}m.batch_{batch_rows}"
            yield _ratio(f"{name}.over_plain", turns, best, 0)
            for work, form in enumerate(("", ".plain_sparse", ".plain_dense")[: len(works)]):
                pace = batch_rows / median(times[work] for times in turns)
                yield Figure(f"{name}{form}.rows_per_second", pace, "rows/s", "reported", None)
            if device == "cuda":
                yield Figure(f"{name}.busy", busy(works[0], 20), "share", "reported", None)


def _forms(num_ids: int) -> int:
    return 2 if num_ids <= DENSE_IDS else 1


def launches(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """What recording is worth: steps launched one by one over recorded ones, plain and with an outer step each."""
    if device == "cuda" and not torch.cuda.is_available():
        yield absent("gpu.launches")
        return
    for batch_rows in BATCHES[:1] if quick else (BATCHES[0], BATCHES[-1]):
        data = table(4 * batch_rows, IDS[0])
        for name, rule, every in (("plain", DISTILLED, 0), ("bilevel", LEARNED, 1)):
            student = Student(num_ids=IDS[0], bf16=True, rule=tuple(rule.items()))
            works = [ours(data, student, batch_rows, device, every, batch_rows, recorded=r) for r in (False, True)]
            turns = in_turns(works, 5 if quick else 20, device, turns=3)
            yield _ratio(f"gpu.launches.{name}.batch_{batch_rows}.one_by_one_over_recorded", turns, 0, 1)


def bilevel(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """Bar i: a distilled student with an outer step every 5 over one without."""
    if device == "cuda" and not torch.cuda.is_available():
        yield absent("gpu.bilevel")
        return
    for batch_rows in BATCHES[:1] if quick else BATCHES:
        data = table(4 * batch_rows, IDS[0])
        distilled = Student(num_ids=IDS[0], bf16=True, rule=tuple(DISTILLED.items()))
        learned = replace(distilled, rule=tuple(LEARNED.items()))
        works = [ours(data, distilled, batch_rows, device)]
        works += [ours(data, learned, batch_rows, device, EVERY, batch_rows // share) for share in (1, 4)]
        turns = in_turns(works, EVERY if quick else 10 * EVERY, device)
        for work, outer in enumerate(("same_size", "quarter"), start=1):
            yield _ratio(f"gpu.bilevel.batch_{batch_rows}.every_{EVERY}.{outer}", turns, work, 0, OUTER_BAR)


def look_ahead(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """A look-ahead of 20 every 10 steps over a distilled student, by products that read all rows or a part of them."""
    if device == "cuda" and not torch.cuda.is_available():
        yield absent("gpu.look_ahead")
        return
    for batch_rows in BATCHES[:1] if quick else BATCHES[:2]:
        data = table(4 * batch_rows, IDS[0])
        distilled = Student(num_ids=IDS[0], bf16=True, rule=tuple(DISTILLED.items()))
        forms = {"whole": 1, "1024_rows": batch_rows // 1024, "256_rows": batch_rows // 256}
        works = [ours(data, distilled, batch_rows, device)]
        for num_parts in forms.values():
            learned = replace(distilled, rule=tuple(LEARNED.items()), look_ahead=20, num_parts=num_parts)
            works.append(ours(data, learned, batch_rows, device, 10, batch_rows // 4))
        turns = in_turns(works, 10 if quick else 50, device)
        for work, form in enumerate(forms, start=1):
            yield _ratio(f"gpu.look_ahead_20.batch_{batch_rows}.every_10.{form}", turns, work, 0)


def parity(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """The largest relative distance, in float64, of a student after bilevel steps on the GPU, recorded or one by one,
    from that of a processor."""
    if device == "cuda" and not torch.cuda.is_available():
        yield absent("gpu.parity")
        return
    rows, num_ids = 1000, 20_000
    data = table(8 * rows, num_ids)
    data = replace(data, numeric=data.numeric.double(), teacher=data.teacher.double())
    for embedding in ("rowwise_adagrad", "lazy_adam")[: 1 if quick else 2]:
        student = Student(num_ids=num_ids, embedding=embedding, rule=tuple(LEARNED.items()), exact=True)
        ended = [_after(student, data, rows, *way) for way in (("cpu", False), (device, False), (device, True))]
        for form, found in zip(("one_by_one", "recorded"), ended[1:], strict=True):
            far = max(float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(found, ended[0], strict=True))
            yield Figure(f"gpu.parity.{embedding}.{form}", far, "ratio", f"<= {PARITY_BAR:g}", far <= PARITY_BAR)


def _after(student: Student, data: Table, rows: int, device: str, recorded: bool) -> list[Tensor]:
    """Parameters of student and fusion network after steps with an outer batch every other time."""
    step = student.step(LocalWorker(device))
    take = captured(step, sys.exit) if recorded else step
    state = student.start(step)
    for number in range(PARITY_STEPS):
        inner = data.rows(number * rows, rows - number % 3, 1).to(device)  # sizes differ by a few, as a feed's do
        outer = data.rows(7 * rows + number, rows // 2, 1).to(device) if number % 2 == 0 else None
        state, _ = take(state, inner, outer, 0.5, None)
    state = state.settled()
    return [value.cpu() for part in (state.theta, state.omega) for value in part.values()]


def kernels(quick: bool, device: str = "cuda") -> Iterator[Figure]:
    """The kernels that a recorded step spends its time in: milliseconds of each in a step, the ten longest."""
    if device != "cuda" or not torch.cuda.is_available():
        yield absent("gpu.kernels")
        return
    from torch.profiler import ProfilerActivity, profile

    for batch_rows in BATCHES[:1] if quick else (BATCHES[0], BATCHES[-1]):
        data = table(4 * batch_rows, IDS[0])
        for name, rule, every in (("plain", DISTILLED, 0), ("bilevel", LEARNED, 1)):
            work = ours(
                data,
                Student(num_ids=IDS[0], bf16=True, rule=tuple(rule.items())),
                batch_rows,
                device,
                every,
                batch_rows,
            )
            in_turns([work], 1, device, turns=1)
            with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                spent = seconds(work, 10, device)
            yield Figure(f"gpu.kernels.{name}.batch_{batch_rows}.step", 1000 * spent, "ms", "reported", None)
            longest = sorted(profiled.key_averages(), key=lambda event: -event.device_time_total)[:10]
            for place, event in enumerate(longest):
                told = {"kernel": event.key[:100], "calls": event.count / 10}
                value = event.device_time_total / 1e4
                yield Figure(f"gpu.kernels.{name}.batch_{batch_rows}.{place}", value, "ms", "reported", None, [], told)


if __name__ == "__main__":
    measures = (train, launches, bilevel, look_ahead, parity, kernels)
    main("Students on a GPU.", {measure.__name__: measure for measure in measures})
