"""Figures of teacher logits: pace and memory of precompute, students from stored logits, half precision, folds.

python benchmarks/logits.py [precompute students half folds sharing] [--quick] [--json]

`students`, `half` and `folds` need the Criteo sample: TGEOKD_DATA, or `shared/data` beside the repository.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from figures import Figure, main
from logits_quality import folds, half, students
from logits_sharing import sharing
from watch import Watch

REPOSITORY = Path(__file__).resolve().parent.parent
CARD = REPOSITORY / "tgeokd_ray" / "tables" / "cards" / "synthetic_ctr.yaml"
# By name: what it is, and the settings that make it.
TEACHERS = {
    "default": ("dcnv2, 3 members of 128-64 with embeddings of 8", []),
    "large": ("dcnv2, 3 members of 256-128 with embeddings of 16", ["hidden=[256,128]", "embedding=16"]),
}


def tgeokd(root: Path, *words: str) -> int:
    """Run a command and return its peak memory in KiB."""
    command = [sys.executable, "-m", "tgeokd_ray.cli.main", *words, "--root", str(root), "--local"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    with Watch(process.pid) as watch:
        _, stderr = process.communicate(timeout=1800)
    if process.returncode:
        raise SystemExit(stderr[-4000:])
    return watch.peak_kib


def prepared(root: Path, rows: int) -> None:
    """A synthetic table of so many rows, 98 of 100 of them to score, and a teacher of the default shape."""
    card = yaml.safe_load(CARD.read_text())
    card["format"]["rows"] = rows
    card["splits"]["parts"] = {"teacher": 0.02, "train": 0.9, "outer": 0.02, "valid": 0.02, "test": 0.04}
    root.mkdir(parents=True, exist_ok=True)
    path = root / "card.yaml"
    path.write_text(yaml.safe_dump(card))
    tgeokd(root, "encode", "--card", str(path))
    train(root, "default")


def train(root: Path, teacher: str) -> None:
    """One epoch of a teacher, which is then the newest version."""
    settings = ["training.epochs=1", *(f"model.{setting}" for setting in TEACHERS[teacher][1])]
    words = [word for setting in settings for word in ("--set", f"teacher.{setting}")]
    tgeokd(root, "teacher", "tables/synthetic_ctr", *words)


def pace(root: Path, precision: str) -> dict[str, Any]:
    """Rows per CPU-second of precompute and of the bare loop before and after it."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "logits_pace.py"), str(root), precision]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def precompute(quick: bool) -> Iterator[Figure]:
    """b: rows per CPU-second against the teacher's bare forward loop over batches in memory, in turns, start-up
    excluded; and memory, less that of 20 k rows, where the table grows tenfold."""
    sizes = (20_000, 40_000, 100_000) if quick else (20_000, 120_000, 1_200_000)
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            root = Path(folder) / str(rows)
            prepared(root, rows)
            peaks[rows] = tgeokd(root, "precompute", "tables/synthetic_ctr", "teachers/synthetic_ctr")
        root = Path(folder) / str(sizes[-1])
        for teacher, (shape, settings) in TEACHERS.items():
            if settings:
                train(root, teacher)
            for precision in ("fp32", "bf16"):
                facts = pace(root, precision)
                around = zip(facts["bare"], facts["bare"][1:], strict=False)
                ratios = sorted(2 * ours / sum(two) for ours, two in zip(facts["precompute"], around, strict=True))
                value = median(ratios)
                name = f"logits.precompute.{teacher}.{precision}.vs_bare_loop"
                yield Figure(name, value, "ratio", ">= 0.8", value >= 0.8, ratios, {"teacher": shape, **facts})
    base, small, large = (peaks[rows] for rows in sizes)
    growth = large / small - 1
    context = {"peak_mib": {str(rows): round(kib / 1024, 1) for rows, kib in peaks.items()}}
    context["less_20k_mib"] = [round((kib - base) / 1024, 1) for kib in (small, large)]
    yield Figure("logits.precompute.memory_growth", growth, "share", "< 0.2", growth < 0.2, context=context)


if __name__ == "__main__":
    measures = {"precompute": precompute, "students": students, "half": half, "folds": folds, "sharing": sharing}
    main("Figures of teacher logits.", measures)
