"""The pace of precompute against the teacher's bare forward loop, in one process; started by logits.py."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tgeokd_ray.artifacts import Artifact, latest
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import DirectReader, EncodedTable, decode
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.precompute import Scoring, precompute
from tgeokd_ray.training.scoring import BATCH_ROWS, predictor

Batch = tuple[torch.Tensor, torch.Tensor]
TURNS = 3


def batches(table: Artifact, splits: tuple[str, ...]) -> list[Batch]:
    """All rows that precompute scores, in memory."""
    encoded = EncodedTable(table)
    found: list[Batch] = []
    most = BATCH_ROWS["cpu"]
    for split in splits:
        rows = [decode(p, len(encoded.classes)) for p in DirectReader(encoded, (), split)(encoded.units(split))]
        numeric, categorical = (torch.cat([getattr(r, n) for r in rows]) for n in ("numeric", "categorical"))
        found += list(zip(numeric.split(most), categorical.long().split(most), strict=True))
    return found


def bare(module: torch.nn.Module, held: list[Batch], precision: str) -> float:
    """CPU seconds of the forward loop."""
    began = time.process_time()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for numeric, categorical in held:
            module(numeric, categorical)
    return time.process_time() - began


def main(root: str, precision: str) -> None:
    """Print the facts of one precision as a line of JSON: bare loop and precompute in turns, rows per CPU-second."""
    torch.set_num_threads(1)
    table, teacher = (latest(root, kind, "synthetic_ctr") for kind in ("tables", "teachers"))
    assert table is not None
    assert teacher is not None
    scoring = Scoring(precision=precision)
    model = predictor(str(teacher.path), "cpu", precision)
    held = batches(table, scoring.splits)
    rows = sum(len(numeric) for numeric, _ in held)
    bare(model.module, held[:3], precision)
    loops, ours = [bare(model.module, held, precision)], []
    engine = LocalEngine("cpu", threads=1)
    for turn in range(TURNS):
        began = time.process_time()
        name = f"pace-{precision}-{turn}"
        precompute(Path(root), name, table, [teacher], scoring=scoring, engine=lambda: engine, progress=Silent())
        ours.append(time.process_time() - began)
        loops.append(bare(model.module, held, precision))
    facts: dict[str, Any] = {"rows": rows, "bare": [rows / s for s in loops], "precompute": [rows / s for s in ours]}
    facts["torch"] = torch.__version__
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
