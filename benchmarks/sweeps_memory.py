"""Bar b: the memory of four trials at once over a large table, by their proportional set sizes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pc
import workload
import yaml
from figures import Figure
from quality import REPOSITORY
from sweeps_job import command, environment

LARGE_ROWS, SMALL_ROWS, QUICK_ROWS = 2_800_000, 6_000, 400_000
ROW_BYTES = 16 + 1 + 4 * (2 * 13 + 26 + 2)  # id, label and weight, fold, numbers with flags, categories, two logits
IDS = 20_000
AT_ONCE = 4
BAR = 1.3
CARD = {
    "name": "clicks",
    "format": {"kind": "csv"},
    "label": {"column": "label", "classes": ["0", "1"]},
    "columns": {"numeric": [f"n{k}" for k in range(13)], "categorical": [f"c{k}" for k in range(26)]},
    "splits": {"kind": "hash", "parts": {"teacher": 0.02, "train": 0.92, "outer": 0.02, "valid": 0.02, "test": 0.02}},
}


def memory(quick: bool) -> Iterator[Figure]:
    """The sum over the trials' processes at its highest, less that on a small table, in copies of the train rows."""
    rows = QUICK_ROWS if quick else LARGE_ROWS
    with tempfile.TemporaryDirectory() as root:
        small, _ = _peak(Path(root) / "small", SMALL_ROWS)
        large, shared = _peak(Path(root) / "large", rows)
    table = 0.94 * rows * ROW_BYTES  # train and outer rows
    value = (large - small) / table
    mib = {"table_mib": table, "large_mib": large, "small_mib": small}
    context: dict[str, Any] = {name: round(size / 2**20) for name, size in mib.items()} | {"told": shared}
    yield Figure("sweeps.memory.copies", value, "copies", f"< {BAR}", value < BAR, context=context)


def _peak(root: Path, rows: int) -> tuple[int, str]:
    """Bytes of the trials' processes together at their highest, and what the sweep said of sharing. On few rows they
    train for many epochs: else the first would be over before the last has begun."""
    epochs = 2 if rows > SMALL_ROWS else 300
    told = {
        "base": {
            "card": str(_files(root, rows)),
            "data": [str(root / "raw")],
            "teacher": {"training": {"epochs": 1}, "model": {"members": 1, "hidden": [16]}},
            "student": {"training": {"epochs": epochs, "batch_rows": 4096, "patience": epochs}},
        },
        "space": {
            "student.training.optimizer.learning_rate": {"grid": [1e-3, 2e-3, 3e-3, 4e-3]},
            "constant": {"grid": [0.5]},
        },
        "search": "grid",
        "packs": False,
        "concurrency": AT_ONCE,
        "resources": {"cpu": 0.5},
    }
    with (root / "out").open("w+") as out:
        driver = subprocess.Popen(
            command(root, "memory", told), stdout=out, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=environment()
        )
        peak = 0
        while driver.poll() is None:
            peak = max(peak, _together(driver.pid))
            time.sleep(0.3)
        out.seek(0)
        said = out.read()
    if driver.returncode:
        raise SystemExit(f"the sweep failed with {driver.returncode}:\n{said[-4000:]}")
    found = json.loads(said.strip().splitlines()[-1])
    assert found["extra"]["sweep"]["counts"]["finished"] == AT_ONCE, found["extra"]["sweep"]["counts"]
    if not peak:
        raise SystemExit(f"the trials on {rows} rows never ran all at once")
    log = (root / "runs" / "memory" / "log.txt").read_text(encoding="utf-8").splitlines()
    return peak, next(line.partition("share finished ")[2] for line in log if "share finished" in line)


def _together(driver: int) -> int:
    """Proportional set sizes of all processes that run a trial now; 0 unless all of them do."""
    sizes = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("ray::ImplicitFunc") or "ray::ImplicitFunc" in " ".join(process.cmdline()):
                    sizes.append(process.memory_full_info().pss)
    return sum(sizes) if len(sizes) >= AT_ONCE else 0


def _files(root: Path, rows: int) -> Path:
    """The card of a table of so many generated rows, whose raw files it writes."""
    raw = root / "raw"
    raw.mkdir(parents=True)
    for number, first in enumerate(range(0, rows, workload.BLOCK)):
        drawn = workload.clicks(min(workload.BLOCK, rows - first), IDS, seed=number)
        columns: dict[str, Any] = {"label": drawn.labels.astype(np.int8)}
        columns |= {f"n{k}": np.round(drawn.numeric[:, k], 4) for k in range(13)}
        columns |= {f"c{k}": drawn.categorical[:, k] for k in range(26)}
        pc.write_csv(pa.table(columns), raw / f"part-{number:04d}.csv")
    card = root / "clicks.yaml"
    card.write_text(yaml.safe_dump(CARD))
    return card
