"""Five students from stored logits, and the same five with the teacher in the loop; started by logits.py."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.batches import Feed, Rows
from tgeokd_ray.pipeline.job import Place, run_stage
from tgeokd_ray.training import pack, run
from tgeokd_ray.training.data import RunData, open_data
from tgeokd_ray.training.scoring import predictor

LOCAL = Place(local=True)
CARD = Path(__file__).resolve().parent.parent / "datasets" / "criteo.yaml"


@dataclass
class Live:
    """A feed whose batches are scored by the teacher when they come, as a loop without stored logits does."""

    feed: Feed
    teacher: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.feed, name)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Rows]:
        score = predictor(self.teacher, "cpu", "fp32")
        for rows in self.feed.batches(epoch, start_step):
            logits = torch.from_numpy(score(rows.numeric, rows.categorical))
            yield replace(rows, logits=logits.unsqueeze(1))


def main(root: str, files: Sequence[str], quick: bool) -> None:
    """Print CPU seconds of both ways, and whether the students are the same, as a line of JSON."""
    torch.set_num_threads(1)
    settings = ["teacher.training.epochs=2", "student.training.epochs=4"] if quick else []
    settings += ["distill.rule=tgeo_one_step"]
    pack.MOST_STUDENTS = 1  # each student by itself: side by side, they would share one pass of the teacher
    job, card = resolve({"card": str(CARD), "root": root, "data": tuple(files)}, settings=settings)

    def stage(name: str, given: dict[str, list[Artifact]], folder: str = root) -> tuple[list[Artifact], float]:
        began = time.process_time()
        made = run_stage(name, job.model_copy(update={"root": folder}), card, given, LOCAL, Silent())
        return made, time.process_time() - began

    table, _ = stage("encode", {})
    teacher, _ = stage("teacher", {"table": table})
    # Torch and this package load parts of themselves at their first use: that belongs to neither way.
    warm = job.model_copy(update={"root": f"{root}/warm"})
    short = warm.student.training.model_copy(update={"epochs": 1})
    warm = warm.model_copy(update={"student": warm.student.model_copy(update={"training": short})})
    once = run_stage("precompute", warm, card, {"table": table, "teacher": teacher}, LOCAL, Silent())
    run_stage("distill", warm, card, {"table": table, "logits": once}, LOCAL, Silent())
    logits, precompute = stage("precompute", {"table": table, "teacher": teacher})
    stored, training = stage("distill", {"table": table, "logits": logits})

    def open_live(*given: Any, **options: Any) -> RunData:
        opened = open_data(*given, **options)
        if given[0].rule["kind"] == "labels":
            return opened
        return replace(opened, train=Live(opened.train, str(teacher[0].path)))  # type: ignore[arg-type]

    run.open_data = open_live
    live, in_the_loop = stage("distill", {"table": table, "logits": logits}, f"{root}/live")
    same = [a.digest == b.digest for a, b in zip(stored, live, strict=True)]
    facts = {
        "students": len(stored) - 1,
        "stored": precompute + training,
        "live": in_the_loop,
        "precompute": precompute,
        # It needs no teacher and is the same both ways: its time is taken off both.
        "labels": next(a.manifest.record["seconds"] for a in stored if a.name.endswith("labels")),
        "same": same,
        "torch": torch.__version__,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], [a for a in sys.argv[2:] if a != "--quick"], "--quick" in sys.argv)
