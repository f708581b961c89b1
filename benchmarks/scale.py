"""What several workers and Ray cost: two workers against one, a Ray job against the bare loop, the way to a first step.

python benchmarks/scale.py [workers steady start] [--quick] [--json]

workers: ranks on gloo, one thread and one core each, wall seconds. steady, start: the job ctr_distill.py through Ray
(not in the quick form).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from figures import Figure, main
from quality import data

REPOSITORY = Path(__file__).resolve().parent.parent
RANK = [sys.executable, str(REPOSITORY / "benchmarks" / "scale_rank.py")]
JOB = [sys.executable, str(REPOSITORY / "jobs" / "ctr_distill.py")]
BATCH, IDS = 4096, 1_000_000
EFFICIENCY_BAR, BYTES_BAR, STEADY_BAR = 0.85, 20.0, 0.9
START_BARS = {"with_cluster": 18.0, "without_cluster": 28.0}
LARGE = {
    "student.model.hidden": "[400,400,400]",
    "student.model.embedding": "16",
    "student.training.batch_rows": "4096",
    "student.training.exact_sums": "false",
    "student.training.optimizer.embedding": "rowwise_adagrad",
    "student.training.patience": "9",
}
CHEAP = {
    "teacher.training.epochs": "1",
    "teacher.model.members": "1",
    "distill.rule": "tgeo_one_step",
    "distill.constants": "[0.5]",
}


def workers(quick: bool) -> Iterator[Figure]:
    """Bar h: two ranks against one. Each has a batch of its own (the global batch doubles), or half of one."""
    steps, turns = (4, 1) if quick else (15, 3)
    for name, options in (("plain", []), ("every_5", ["--bilevel"])):
        if quick and options:
            continue
        runs = [
            {
                "one": ranks(1, BATCH, steps, options),
                "two": ranks(2, BATCH, steps, options),
                "halves": ranks(2, BATCH // 2, steps, options),
            }
            for _ in range(turns)
        ]
        context = {key: round(runs[0]["two"][key]) for key in ("bytes", "table_bytes", "dense_bytes")}
        kept = [run["one"]["seconds"] / run["two"]["seconds"] for run in runs]
        yield _figure(f"scale.workers_2.{name}.efficiency", kept, EFFICIENCY_BAR, context)
        strong = [run["one"]["seconds"] / 2 / run["halves"]["seconds"] for run in runs]
        yield _figure(f"scale.workers_2.{name}.efficiency_of_halves", strong, None, context)
        # What stands for the table: ids, rows and measures. The gradient of everything else has no smaller form.
        of_rows = [run["two"]["table_bytes"] / (run["two"]["bytes"] - run["two"]["dense_bytes"]) for run in runs]
        everything = [run["two"]["table_bytes"] / run["two"]["bytes"] for run in runs]
        bar = BYTES_BAR if not options else None  # an outer step exchanges three gradients more
        yield _figure(f"scale.workers_2.{name}.table_over_its_bytes", of_rows, bar, context)
        yield _figure(f"scale.workers_2.{name}.table_over_all_bytes", everything, None, context)


def _figure(name: str, values: Sequence[float], bar: float | None, context: dict[str, Any]) -> Figure:
    value = median(values)
    bound = "reported" if bar is None else f">= {bar:g}"
    return Figure(name, value, "ratio", bound, bar is None or value >= bar, [min(values), max(values)], context)


def ranks(world: int, rows: int, steps: int, options: Sequence[str]) -> dict[str, Any]:
    """What rank 0 says of a step; SystemExit where a rank fails."""
    port = _free_port()
    commands = [[*RANK, str(r), str(world), str(port), str(rows), str(IDS), str(steps), *options] for r in range(world)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        said = [one.communicate(timeout=900)[0] for one in started]
    finally:
        for one in started:
            with contextlib.suppress(OSError):
                one.kill()
    if any(one.returncode for one in started):
        raise SystemExit(f"ranks ended with {[one.returncode for one in started]}")
    found: dict[str, Any] = json.loads(said[0].splitlines()[-1])
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _table() -> list[str]:
    files = data("criteo/criteo_first80k.tsv.gz")
    return [] if files is None else ["--card", str(REPOSITORY / "datasets" / "criteo.yaml"), "--data", *files]


def job(root: Path, run: str, *options: str, **settings: str) -> list[str]:
    """The command of a job on Criteo where it is there, on the synthetic table where it is not."""
    given = {**LARGE, **CHEAP, **settings}
    sets = [part for name, value in given.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]
    return [*JOB, *_table(), "--root", str(root), "--run", run, "--json", *sets, *options]


def _results(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise SystemExit(f"the job failed with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def steady(quick: bool) -> Iterator[Figure]:
    """Bar d: rows per second of a student's steps in a Ray Train worker, fed by Ray Data, over those of `--local`."""
    if quick:
        return
    ratios, context = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(3):
            seeds = {"seed": str(turn + 1)}
            paces = {}
            for place, options in (("local", ["--local"]), ("ray", [])):
                command = job(Path(folder) / f"{place}{turn}", place, *options, **seeds, student__training__epochs="3")
                models = {model["name"]: model for model in _results(command)["models"]}
                paces[place] = models["constant-0.5"]["rows_per_second"]
            ratios.append(paces["ray"] / paces["local"])
            context = {"table": "criteo" if _table() else "synthetic_ctr", "local_rows_per_second": paces["local"]}
    yield _figure("scale.ray_over_local.rows_per_second", ratios, STEADY_BAR, context)


def start(quick: bool) -> Iterator[Figure]:
    """Bar d: wall seconds from the command to the first logged steps of a student (the 50th), table and logits there
    already, without a cluster and on one that runs."""
    if quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _results(job(root, "first", student__training__epochs="1"))
        for name, bar in START_BARS.items():
            with _head() if name == "with_cluster" else contextlib.nullcontext([]) as address:
                spent = [_to_first_step(root, f"{name}-{turn}", turn, address) for turn in range(3)]
            value = median(spent)
            yield Figure(f"scale.start.{name}", value, "s", f"<= {bar:g}", value <= bar, [min(spent), max(spent)])


def _to_first_step(root: Path, run: str, turn: int, address: Sequence[str]) -> float:
    """Another learning rate, so that nothing of the student is there."""
    rate = {"student__training__optimizer__learning_rate": f"{0.0011 + turn / 1e5 + len(address) / 1e4:.5f}"}
    lines = root / "runs" / run / "metrics.jsonl"
    began = time.monotonic()
    running = subprocess.Popen(
        job(root, run, *address, student__training__epochs="40", student__training__batch_rows="256", **rate),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not lines.exists():
            if running.poll() is not None or time.monotonic() - began > 300:
                raise SystemExit(f"no step after {time.monotonic() - began:.0f} s; exit code {running.returncode}")
            time.sleep(0.05)
        return time.monotonic() - began
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(timeout=120)


@contextlib.contextmanager
def _head() -> Iterator[list[str]]:
    """A cluster of its own for this benchmark, and the option that names it."""
    port = _free_port()
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus", "4"]
    command += ["--port", str(port), "--include-dashboard", "false", "--disable-usage-stats"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        time.sleep(15)
        if head.poll() is not None:
            raise SystemExit(f"the cluster ended with {head.returncode}")
        yield ["--address", f"127.0.0.1:{port}"]
    finally:
        head.terminate()
        head.wait(timeout=60)


if __name__ == "__main__":
    main("What several workers and Ray cost.", {"workers": workers, "steady": steady, "start": start})
