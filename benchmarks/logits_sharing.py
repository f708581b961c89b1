"""Memory of logits that several workers of a node train from: one copy in the object store, or one each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from figures import Figure

REPOSITORY = Path(__file__).resolve().parent.parent
CLASSES = 100
MIB = 1 << 20
WORKERS = 4
BATCH_ROWS = 1024


def sharing(quick: bool) -> Iterator[Figure]:
    """g: sum of proportional set sizes of the driver and four workers while they train, less the same with logits of
    1 MB, in copies of the logits."""
    size = 50 * MIB if quick else 500 * MIB
    steady, peak, facts = {}, {}, {}
    for name, wanted in (("small", MIB), ("large", size)):
        with tempfile.TemporaryDirectory() as root:
            started("make", root, wanted)  # in a process of its own, whose memory is gone when training begins
            facts[name] = json.loads(started("train", root, wanted).splitlines()[-1])
        steady[name], peak[name] = facts[name]["steady"], facts[name]["peak"]
    copies = (steady["large"] - steady["small"]) / facts["large"]["bytes"]
    context = {"workers": WORKERS, **facts, "peak_copies": (peak["large"] - peak["small"]) / facts["large"]["bytes"]}
    yield Figure("logits.sharing.copies", copies, "copies", "<= 1.2", copies <= 1.2, context=context)


def started(what: str, root: str, size: int) -> str:
    """What this file printed when it was started to do one of its two parts."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "logits_sharing.py"), what, root, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return done.stdout


def make(root: Path, size: int) -> tuple[Any, Any]:
    """A table with 100 classes and logits of about `size` bytes."""
    import hashlib

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tgeokd_ray.artifacts import staging
    from tgeokd_ray.feed.logits_files import Piece, finish, one_fold, write_logits
    from tgeokd_ray.feed.storage import Storage
    from tgeokd_ray.feed.table import EncodedTable

    rng = np.random.default_rng(0)
    rows = {"train": max(size // (4 * CLASSES), 400), "outer": 400, "valid": 400, "test": 400}
    shard_rows = 20_000
    classes = [str(c) for c in range(CLASSES)]
    parts: list[tuple[str, Any]] = []
    with staging(root, "tables", "wide", arguments={"rows": rows["train"]}, parents={}) as stage:
        first = 0
        for split, count in rows.items():
            for number, start in enumerate(range(0, count, shard_rows)):
                length = min(shard_rows, count - start)
                ids = np.arange(first, first + length, dtype=np.int64)
                first += length
                labels = np.resize(np.arange(CLASSES, dtype=np.int32), length)
                extra = {
                    "split": split,
                    "shard": number,
                    "groups": [length],
                    "labels": [np.bincount(labels, minlength=CLASSES).tolist()],
                    "row_ids": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest(),
                }
                numeric = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(2 * length, np.float32)), 2)
                data = pa.table({"row_id": pa.array(ids), "label": pa.array(labels), "numeric": numeric})
                name = f"{split}-{number:05d}.parquet"
                stage.write(
                    name,
                    lambda path, data=data: pq.write_table(data, path, row_group_size=1 << 20),
                    rows=length,
                    extra=extra,
                )
                parts.append((name, ids))
        for name in ("encoder.json", "card.json"):
            stage.write(name, lambda path: path.write_text("{}"))
        schema = {"classes": classes, "negative": 0, "numeric": ["a", "b"], "categorical": [], "num_ids": 0}
        table = stage.commit(schema=schema | {"weight": False, "rows": rows, "extra": {}})
    entries = {entry.path: entry for entry in table.manifest.files}
    with staging(root, "logits", "wide", arguments={}, parents={"table": table}) as stage:
        written = []
        for name, ids in parts:
            logits = rng.normal(size=(len(ids), CLASSES)).astype(np.float32)
            kept = {k: entries[name].extra[k] for k in ("split", "shard", "groups", "row_ids")}
            piece = Piece(ids, logits, one_fold(len(ids)))
            written.append(write_logits(stage.folder, name, [piece], Storage(), scored_by="benchmark", extra=kept))
        return table, stage.commit(schema=finish(stage, written, EncodedTable(table), Storage(), {}))


def train(root: Path) -> None:
    """Train one small student on four workers and print the memory of all processes as a line of JSON."""
    import os

    from watch import Watch

    from tgeokd_ray.artifacts import latest
    from tgeokd_ray.cluster.engine import open_engine
    from tgeokd_ray.events import Silent
    from tgeokd_ray.training.spec import RunSpec

    table, logits = (latest(root, kind, "wide") for kind in ("tables", "logits"))
    assert table is not None
    assert logits is not None
    steps = -(-table.manifest.schema["rows"]["train"] // BATCH_ROWS)
    spec = RunSpec(
        name="one",
        kind="students",
        artifact="one",
        root=str(root),
        folder=str(root / "run"),
        table=str(table.path),
        logits=(str(logits.path),),
        model={"kind": "mlp", "hidden": (8,), "embedding": 2},
        rule={"kind": "constant", "value": 0.5},
        metric="nll",
        epochs=max(1, 240 // steps),  # about as many steps with few rows: the allocators of all come to rest
        batch_rows=BATCH_ROWS,
    )
    engine = open_engine(
        address=None,
        workers=WORKERS,
        device="cpu",
        threads=1,
        feed="ray_data",
        root=root,
        verbose=False,
        progress=Silent(),
    )
    with Watch(os.getpid(), only="ray::RayTrainWor") as watch:
        (done,) = engine.train(lambda finished: () if finished else (spec,), Silent(), [str(logits.path)])
    together = [total for count, total in watch.samples if count == 1 + WORKERS]
    steady = median(together[len(together) // 2 :])  # once all have begun, and have what they need
    engine.close()
    if done.error is not None:
        raise done.error
    bytes_ = 4 * CLASSES * table.manifest.schema["rows"]["train"]
    print(json.dumps({"bytes": bytes_, "steady": 1024 * steady, "peak": 1024 * watch.peak_kib}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        train(Path(sys.argv[2]))
