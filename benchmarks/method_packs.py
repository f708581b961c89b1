"""Bars c and h: students side by side against one by one, and the two phases against a plain run.

Times are CPU seconds of whole runs, from opening the table to the committed artifact, one thread, in turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from figures import Figure
from quality import REPOSITORY, absent, data

from tgeokd_ray.artifacts import Artifact, load_tensors
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_stage
from tgeokd_ray.pipeline.plans import AllAtOnce, StudentsPlan, students_plan
from tgeokd_ray.training.data import DirectSource
from tgeokd_ray.training.plan import execute
from tgeokd_ray.training.spec import Finished, RunSpec
from tgeokd_ray.training.worker import LocalWorker

SIZE = 8
ALL_EPOCHS = ["student.training.patience=1000000"]  # both sides train for as long
CHEAP_TEACHER = ["teacher.training.epochs=1", "teacher.model.members=1"]
FILES = {
    "criteo": ["criteo/criteo_first80k.tsv.gz"],
    "nsl_kdd": ["nsl_kdd/KDDTrain+.txt.gz", "nsl_kdd/KDDTest+.txt.gz"],
}
BARS = {256: 0.6, 1024: 0.75}  # time of a pack of 8 over that of its students alone
PHASE_BARS = {"phase_1.every_4": 3.5, "phase_1.every_10": 2.4, "phase_2": 5.0}


@dataclass(frozen=True)
class Table:
    """An encoded table with logits, and the settings of the card it came from."""

    card: str
    given: dict[str, Any]
    table: Artifact
    logits: list[Artifact]

    def plan(self, *settings: str) -> StudentsPlan:
        job, card = resolve(self.given, settings=[*ALL_EPOCHS, *settings])
        return students_plan(job, card.name, self.table, self.logits, Path(), Path())


def prepared(name: str, root: str) -> Table | None:
    """The card's table and the logits of a teacher of one epoch; synthetic in place of Criteo, None for no NSL-KDD."""
    files = data(*FILES[name])
    if files is None and name != "criteo":
        return None
    card = "synthetic_ctr" if files is None else str(REPOSITORY / "datasets" / f"{name}.yaml")
    given = {"card": card, "root": root, "data": tuple(files or ())}
    job, opened = resolve(given, settings=CHEAP_TEACHER)
    made: dict[str, list[Artifact]] = {}
    for stage, kind in (("encode", "table"), ("teacher", "teacher"), ("precompute", "logits")):
        made[kind] = run_stage(stage, job, opened, made, Place(local=True), Silent())
    return Table(opened.name, given, made["table"][0], made["logits"])


def trained(specs: Sequence[RunSpec], root: str) -> tuple[float, list[Finished]]:
    """CPU seconds of the runs, packed where they can be, and what came of them."""
    there = [replace(spec, root=root, folder=f"{root}/runs", checkpoint_seconds=1e9) for spec in specs]
    began = time.process_time()
    finished = execute(AllAtOnce(tuple(there)), LocalWorker(), DirectSource(), Silent())
    seconds = time.process_time() - began
    errors = [run.error for run in finished if run.error is not None]
    if errors:
        raise errors[0]
    return seconds, finished


def eight(table: Table, rule: Callable[[int], dict[str, Any]], *settings: str, **changes: Any) -> list[RunSpec]:
    """Students of the card with seeds and rules of their own."""
    constant = table.plan(*settings).constants[0]
    named = ({"name": f"s{r}", "artifact": f"s{r}", "model_seeds": (r,), "rule": rule(r)} for r in range(SIZE))
    return [replace(constant, **one, **changes) for one in named]


def constant(r: int) -> dict[str, Any]:
    return {"kind": "constant", "value": r / (SIZE - 1)}


def one_step(r: int) -> dict[str, Any]:
    return {"kind": "tgeo_one_step", "level": (r + 1) / (SIZE + 1)}


def both_ways(specs: Sequence[RunSpec]) -> tuple[float, float, float]:
    """CPU seconds side by side and one by one, and the largest difference of a parameter."""
    with tempfile.TemporaryDirectory() as root:
        together, pack = trained(specs, f"{root}/pack")
        runs = [trained([spec], f"{root}/alone") for spec in specs]
        found, expected = ([_parameters(run) for run in side] for side in (pack, [one for _, (one,) in runs]))
        differences = [
            float((mine[name].double() - value.double()).abs().max())
            for mine, theirs in zip(found, expected, strict=True)
            for name, value in theirs.items()
        ]
    return together, sum(seconds for seconds, _ in runs), max(differences)


def _parameters(run: Finished) -> dict[str, torch.Tensor]:
    return load_tensors(Path(run.artifact) / "model.safetensors")


def packs(quick: bool) -> Iterator[Figure]:
    """Bar c, for the students of the Criteo card."""
    with tempfile.TemporaryDirectory() as root:
        table = prepared("criteo", root)
        assert table is not None
        rows = {"table": table.card, "students": SIZE}
        for name, rule in (("constant", constant), ("bilevel", one_step)):
            settings = ["student.training.epochs=1", "precision=fp64"]
            _, _, error = both_ways(eight(table, rule, *settings))
            yield Figure(f"method.packs.{name}.vs_alone", error, "absolute", "<= 1e-12", error <= 1e-12, context=rows)
        for rule, bars in ((constant, BARS), (one_step, {})):
            yield from _times(table, rule, bars, quick)
        pack, alone = (_growth(root, count) for count in (SIZE, 1))
        ratio = pack / (SIZE * alone)
        context = rows | {"pack_mib": round(pack / 1024), "alone_mib": round(alone / 1024)}
        yield Figure("method.packs.memory.vs_alone", ratio, "ratio", "<= 1", ratio <= 1, context=context)


def _times(
    table: Table, rule: Callable[[int], dict[str, Any]], bars: dict[int, float], quick: bool
) -> Iterator[Figure]:
    for batch, epochs in ((256, 1 if quick else 2), (1024, 2 if quick else 6)):
        for exact in ("true", "false"):
            training = {"epochs": epochs, "batch_rows": batch, "exact_sums": exact}
            specs = eight(table, rule, *(f"student.training.{name}={value}" for name, value in training.items()))
            turns = [both_ways(specs) for _ in range(1 if quick else 3)]
            ratios = [together / alone for together, alone, _ in turns]
            value, bar = median(ratios), bars.get(batch)
            kind = "exact_sums" if exact == "true" else "plain_sums"
            name = f"method.packs.{rule.__name__}.batch_{batch}.{kind}.time_vs_alone"
            ok = None if bar is None else value <= bar
            bound = "reported" if bar is None else f"<= {bar:g}"
            seconds = {"alone_seconds": round(median(alone for _, alone, _ in turns), 2), "table": table.card}
            yield Figure(name, value, "ratio", bound, True if ok is None else ok, [min(ratios), max(ratios)], seconds)


def _growth(root: str, students: int) -> int:
    """KiB by which training so many students raises the peak of a process of their own."""
    command = [sys.executable, str(Path(__file__).resolve()), root, str(students)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return int(json.loads(done.stdout)["kib"])


def phases(quick: bool) -> Iterator[Figure]:
    """Bar h: both phases of the NSL-KDD card against its student on labels, scoring, measuring and all."""
    with tempfile.TemporaryDirectory() as root:
        table = prepared("nsl_kdd", root)
        if table is None:
            yield absent("method.phases")
            return
        plan = table.plan(*(["student.training.epochs=2"] if quick else []))
        trained(plan.controls[:1], f"{root}/warm")
        turns = [_phases(plan, f"{root}/{turn}") for turn in range(1 if quick else 3)]
        for name, bar in PHASE_BARS.items():
            ratios = [turn[name] / turn["labels"] for turn in turns]
            value = median(ratios)
            context = {
                "epochs": plan.learned.epochs,
                "labels_seconds": round(median(turn["labels"] for turn in turns), 2),
            }
            spread = [min(ratios), max(ratios)]
            yield Figure(f"method.{name}.vs_labels", value, "ratio", f"<= {bar:g}", value <= bar, spread, context)


def _phases(plan: StudentsPlan, root: str) -> dict[str, float]:
    """CPU seconds of the student on labels, of phase 1, and of all candidates of phase 2 with the constants."""
    (labels, *_), (shape,) = plan.controls, plan.shapes
    rarely = replace(shape, name="rarely", artifact="rarely", fusion=replace(shape.fusion, every=10))
    plain, done = trained([labels], root)
    first, shapes = trained([shape], root)
    sparse, _ = trained([rarely], root)
    constants, controls = trained(plan.constants, root)
    (choosing,) = plan([*done, *controls, *shapes])
    candidates, _ = trained([choosing], root)
    times = {"phase_1.every_4": first, "phase_1.every_10": sparse, "phase_2": constants + candidates}
    return {"labels": plain, **times}


def main(root: str, students: int) -> None:
    """Train so many students on the table that lies in `root`; prints the growth of the peak as a line of JSON."""
    torch.set_num_threads(1)
    table = prepared("criteo", root)  # there already
    assert table is not None
    specs = eight(table, constant, "student.training.epochs=1")[:students]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = _peak_kib()
    with tempfile.TemporaryDirectory() as folder:
        trained(specs, folder)
    print(json.dumps({"kib": _peak_kib() - before}))


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
