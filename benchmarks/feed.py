"""What feeding costs beside training: CPU time, memory, and the wait for the first batch.

python benchmarks/feed.py [share memory] [--quick] [--json]

share: CPU time of a feed-only epoch a row, over that of a training step (DNN 400x3, 13 numeric + 26 categorical columns
of 16, batch 4096, with a teacher's logits), from files and, in the full form, by Ray Data. memory: peak of a process
that does nothing but feed from a table that does not fit into its cache, by the size of the table. Tables are generated
shard by shard; every pass runs in a process of its own; CPU seconds are of all its threads and, where Ray feeds, of
Ray's workers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import feed_data
import torch
from figures import Figure, main
from student_steps import BATCH, DISTILLED, Running, Student, seconds, table
from train import precisions

HERE = Path(__file__).resolve().parent
NUM_IDS, TURNS, STEPS = 200_000, 3, 5
GIB = 1 << 30
SHARE_BAR, GROWTH_BAR, FIRST_BAR = 0.06, 0.10, 0.2


def passed(root: Path, *options: object) -> dict[str, Any]:
    """What feed_pass.py found."""
    command = [sys.executable, str(HERE / "feed_pass.py"), str(root), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def share(quick: bool) -> Iterator[Figure]:
    """Bar e: the feed's share, and the time to the first batch of the run and of an epoch."""
    precision = precisions()[-1]
    student = Student("dnn", NUM_IDS, bf16=precision == "bf16", rule=tuple(DISTILLED.items()))
    running = Running(student, table(8 * BATCH, NUM_IDS))
    seconds(running.step, 3)
    kinds = {"direct": [], "direct.held": ["--cache", GIB]} | ({} if quick else {"ray_data": ["--ray"]})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        feed_data.write(root, 500_000 if quick else 2_000_000, NUM_IDS)
        turns = []
        for _ in range(TURNS):
            found = {kind: passed(root, *options) for kind, options in kinds.items()}
            turns.append((seconds(running.step, STEPS) / BATCH, found))
    for kind in kinds:
        yield _share(f"feed.{kind}.share", kind, turns, precision)
    for name, epoch in (("run", 0), ("epoch", 1)):
        for kind in kinds:
            waits = [found[kind]["first_batch"][epoch] for _, found in turns]
            value, barred = median(waits), kind == "direct"
            bar, ok = (f"<= {FIRST_BAR}", value <= FIRST_BAR) if barred else ("reported", True)
            yield Figure(f"feed.{kind}.first_batch.{name}", value, "s", bar, ok, [min(waits), max(waits)])


def _share(name: str, kind: str, turns: list[tuple[float, dict[str, Any]]], precision: str) -> Figure:
    """Of the last epoch, in which a split that is held lies in memory."""
    feeds = [found[kind]["cpu"][-1] / found[kind]["rows"] for _, found in turns]
    shares = [feed / step for feed, (step, _) in zip(feeds, turns, strict=True)]
    value = median(shares)
    context = {
        "precision": precision,
        "feed_us_a_row": round(median(feeds) * 1e6, 3),
        "step_us_a_row": round(median(step for step, _ in turns) * 1e6, 2),
    }
    return Figure(name, value, "ratio", f"<= {SHARE_BAR}", value <= SHARE_BAR, [min(shares), max(shares)], context)


def memory(quick: bool) -> Iterator[Figure]:
    """Bar e: a table ten times larger in the same memory. A shuffle holds 294,912 rows: the quick form begins there."""
    sizes = (400_000, 1_000_000) if quick else (2_000_000, 20_000_000)
    peaks: dict[int, list[float]] = {}
    context: dict[str, Any] = {}
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            feed_data.write(Path(folder), rows, NUM_IDS)
            context[f"generated_{rows}_s"] = round(time.monotonic() - began)
            peaks[rows] = [passed(Path(folder), "--epochs", 1)["peak_mib"] for _ in range(1 if quick else TURNS)]
    small, large = (peaks[rows] for rows in sizes)
    growths = [b / a - 1 for a, b in zip(small, large, strict=True)]
    value = median(growths)
    context |= {f"peak_{rows}_mib": round(median(peaks[rows])) for rows in sizes}
    spread = [min(growths), max(growths)]
    yield Figure("feed.direct.memory_growth", value, "ratio", f"<= {GROWTH_BAR}", value <= GROWTH_BAR, spread, context)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("What feeding costs beside training.", {"share": share, "memory": memory})
