"""How fast rows are scored: the evaluation pass against FuxiCTR's and the network alone; precompute against the latter.

python benchmarks/evaluate.py [peers bound precompute] [--quick] [--json]

DNN 400x3, 13 numeric + 26 categorical columns of 16, 200 k ids, two classes, one thread, rows per CPU-second. The bound
is the network alone on fixed batches in memory, at the same precision; evaluation adds every measure of `Evaluation`
(AUC, NLL, calibration and the rest), precompute reading the table, checking, writing and committing the logits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import feed_data
import torch
import workload
from figures import Figure, main
from peers_run import Absent, run
from student_steps import BATCH, MODELS, Student, Table, in_turns, table
from train import precisions

from tgeokd_ray.artifacts import Artifact, save_tensors, staging, write_json
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import DirectReader, EncodedTable, Rows, decode
from tgeokd_ray.models import build
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.precompute import Scoring, precompute
from tgeokd_ray.training.evaluation import evaluate
from tgeokd_ray.training.scoring import BATCH_ROWS, predictor
from tgeokd_ray.training.worker import LocalWorker

NUM_IDS, TURNS = 200_000, 3
PEER_BAR, PRECOMPUTE_BAR = 3.0, 0.8
ALL_PRECISIONS = ("fp32", "bf16")  # emulated where the processor has no bf16: slow, but the ratio holds


class Pass:
    """A student and held batches: its evaluation, and its network alone."""

    def __init__(self, data: Table, precision: str) -> None:
        student = Student("dnn", NUM_IDS, bf16=precision == "bf16")
        step = student.step()
        self._problem, self._theta = step.problem, student.start(step).theta
        rows = len(data.labels) // BATCH * BATCH
        self._batches: list[Rows] = [data.rows(first, BATCH) for first in range(0, rows, BATCH)]
        self.rows = rows

    def evaluate(self) -> None:
        (summary,) = evaluate(self._problem, self._theta, iter(self._batches), LocalWorker(), negative=0)
        assert summary.results()["rows"] == self.rows

    def network(self) -> None:
        with torch.inference_mode():
            for rows in self._batches:
                self._problem.logits(self._theta, rows)


def peers(quick: bool) -> Iterator[Figure]:
    """Bar g: the pass of FuxiCTR's `evaluate` over the same rows, in turns."""
    if quick:
        return
    num_rows = 400_000
    data = Table.of(workload.clicks(num_rows, NUM_IDS, held_out=True), NUM_IDS)
    passes = {precision: Pass(data, precision) for precision in ALL_PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        workload.write(path, 8 * BATCH, NUM_IDS, num_rows)
        for precision in ALL_PRECISIONS:
            yield _against(f"evaluate.dnn.{precision}.vs_fuxictr", path, passes[precision], precision)


def _against(name: str, path: Path, ours: Pass, precision: str) -> Figure:
    bar = f">= {PEER_BAR:g}"
    if precision not in precisions():
        reason = "this processor has no bf16 products"
        return Figure(name, None, "ratio", bar, None, context={"reason": reason})
    speeds: list[tuple[float, float]] = []
    alone: list[float] = []
    for _ in range(TURNS):
        found = run("fuxictr_evaluate.py", path, "--turns", 1)
        if isinstance(found, Absent):
            return Figure(name, None, "ratio", bar, None, context={"reason": found.reason})
        ((whole, network),) = in_turns([ours.evaluate, ours.network], times=1, turns=1, warm=1)
        speeds.append((ours.rows / whole, found["rows_per_cpu_second"]))
        alone.append(ours.rows / network / found["rows_per_cpu_second"])
    ratios = [mine / theirs for mine, theirs in speeds]
    value = median(ratios)
    context = {
        "ours_rows_per_cpu_second": round(median(mine for mine, _ in speeds)),
        "theirs_rows_per_cpu_second": round(median(theirs for _, theirs in speeds)),
        "our_network_alone_vs_theirs": round(median(alone), 3),
    }
    return Figure(name, value, "ratio", bar, value >= PEER_BAR, [min(ratios), max(ratios)], context)


def bound(quick: bool) -> Iterator[Figure]:
    """The share of an evaluation pass that is the network."""
    data = table(16 * BATCH if quick else 64 * BATCH, NUM_IDS)
    for precision in precisions() if quick else ALL_PRECISIONS:
        ours = Pass(data, precision)
        turns = in_turns([ours.network, ours.evaluate], times=1, turns=2 * TURNS - 1, warm=1)
        yield _ratio(f"evaluate.dnn.{precision}.vs_bound", [alone / whole for alone, whole in turns], 0.9, {})


def precompute_(quick: bool) -> Iterator[Figure]:
    """Bar g: a table scored, written and committed, against the network alone on the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = 131_072 if quick else 400_000
        scored, _ = feed_data.write(root, rows, NUM_IDS, logits=False)
        teacher = _teacher(root, scored)
        engine = LocalEngine("cpu", threads=1)
        for precision in precisions() if quick else ALL_PRECISIONS:
            scoring = Scoring(precision=precision, splits=(feed_data.SPLIT,))
            ratios, speeds = [], []
            works: list[Callable[[], None]] = [_network(scored, teacher, precision)]
            for turn in range(TURNS):
                ((alone,),) = in_turns(works, times=1, turns=1, warm=turn == 0)
                began = time.process_time()
                name = f"{precision}-{turn}"
                precompute(root, name, scored, [teacher], scoring=scoring, engine=lambda: engine, progress=Silent())
                whole = time.process_time() - began
                ratios.append(alone / whole)
                speeds.append(rows / whole)
            context = {"rows": rows, "rows_per_cpu_second": round(median(speeds))}
            yield _ratio(f"evaluate.precompute.{precision}.vs_bound", ratios, PRECOMPUTE_BAR, context)


def _teacher(root: Path, table: Artifact) -> Artifact:
    """A teacher of the student's size that nobody trained, as training would commit it."""
    schema = table.manifest.schema
    shape = {"num_numeric": len(schema["numeric"]), "num_categorical": len(schema["categorical"])}
    shape["num_ids"] = schema["num_ids"]
    spec: dict[str, Any] = {**MODELS["dnn"], "hidden": [400, 400, 400]}
    module = build(spec, **shape, num_classes=2, generator=torch.Generator().manual_seed(0))
    with staging(root, "teachers", "clicks", arguments={"splits": ["teacher"]}, parents={"table": table}) as stage:
        tensors = {name: value.detach() for name, value in module.named_parameters()}
        stage.write("model.safetensors", lambda path: save_tensors(path, tensors))
        facts = {"model": spec, "classes": schema["classes"], **shape}
        stage.write("model.json", lambda path: write_json(path, facts))
        return stage.commit(schema={"classes": schema["classes"]})


def _network(table: Artifact, teacher: Artifact, precision: str) -> Callable[[], None]:
    """The teacher's network over all rows, which lie in memory, in the batches that precompute takes."""
    encoded, model = EncodedTable(table), predictor(str(teacher.path), "cpu", precision).module
    pieces = DirectReader(encoded, (), feed_data.SPLIT)(encoded.units(feed_data.SPLIT))
    rows = [decode(piece, 2) for piece in pieces]
    numeric, ids = (torch.cat([getattr(one, name) for one in rows]) for name in ("numeric", "categorical"))
    held = list(zip(numeric.split(BATCH_ROWS["cpu"]), ids.split(BATCH_ROWS["cpu"]), strict=True))

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for batch in held:
                model(*batch)

    return work


def _ratio(name: str, ratios: list[float], bar: float, context: dict[str, Any]) -> Figure:
    value = median(ratios)
    return Figure(name, value, "ratio", f">= {bar}", value >= bar, [min(ratios), max(ratios)], context)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("How fast rows are scored.", {"peers": peers, "bound": bound, "precompute": precompute_})
