"""The two writers that are killed: a small table from its card, and a teacher's logits on it."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import safetensors.torch  # noqa: F401
import torch

# What the commands import by and by, here before the fork, so that a child begins with its work.
import tgeokd_ray.cli.commands
import tgeokd_ray.config.resolve
import tgeokd_ray.pipeline.job
import tgeokd_ray.report.terminal
import tgeokd_ray.training.plan
import tgeokd_ray.training.scoring
import tgeokd_ray.training.worker  # noqa: F401
from tgeokd_ray.artifacts import Artifact, open_artifact
from tgeokd_ray.cli.main import app
from tgeokd_ray.cli.spreading import spread
from tgeokd_ray.events import Silent
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.synthetic import CATEGORICAL, NUMERIC

NAME = "small"
PARTS = {"teacher": 0.4, "train": 0.24, "outer": 0.12, "valid": 0.12, "test": 0.12}
QUICKLY = ("--local", "--set", "threads=1")
TEACHER = ("--set", "teacher.training.epochs=1", "--set", "teacher.model.hidden=[16]")


def warm() -> None:
    """Have all modules that the writers load by and by, and no thread, so that a forked child begins with its work."""
    pa.array(np.zeros(1))  # pyarrow imports pandas, where there is one, with its first array
    torch.set_num_threads(1)
    torch.empty_like(torch.empty(1, device="meta"))


@dataclass(frozen=True)
class Writer:
    """A writer under test: `prepare(root)` makes an earlier version of `label`, `write(root)` the next one."""

    name: str
    label: str
    prepare: Callable[[Path], object]
    write: Callable[[Path], object]


def small_card(seed: int = 3, *, rows: int = 1200, chunk: int = 400, min_count: int = 3, **changes: Any) -> Card:
    """A synthetic table of three units, four or five shards each."""
    card = {
        "name": NAME,
        "format": {"kind": "synthetic", "rows": rows, "chunk_rows": chunk, "seed": seed},
        "label": {"column": "label", "classes": ["0", "1"]},
        "columns": {
            "numeric": [{"name": name, "kind": "standard"} for name in NUMERIC],
            "categorical": [{"name": name, "min_count": min_count} for name in CATEGORICAL],
        },
        "splits": {"kind": "hash", "salt": "a", "parts": PARTS},
    }
    return Card.model_validate(card | changes)


def engine_map(function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
    del stage
    return map(function, items)


def make_table(root: Path, seed: int = 3, **options: Any) -> Artifact:
    return encode(small_card(seed, **options), [], root, engine_map, Silent())[0]


def tgeokd(*words: str, log: Path | None = None) -> None:
    """What the process `tgeokd WORDS` does after its imports, its output in `log`. Only for a child.

    SystemExit with its exit code where that is not 0.
    """
    descriptor = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        try:
            app(args=spread(list(words)))
        except SystemExit as end:
            if end.code:
                raise


def make_teacher(root: Path, table: Artifact, seed: int = 0) -> None:
    """The next teacher under `root`, of one epoch."""
    tgeokd("teacher", str(table.path), "--root", str(root), "--seed", str(seed), *QUICKLY, *TEACHER)


def precompute_words(inputs: Path, root: Path, teacher: str = "v000001") -> list[str]:
    """The words of `tgeokd precompute` for the table and a teacher in `inputs`."""
    paths = (inputs / "tables" / NAME / "v000001", inputs / "teachers" / NAME / teacher)
    return ["precompute", *map(str, paths), "--root", str(root)]


def make_inputs(folder: Path, *, teachers: int = 2, **options: Any) -> None:
    """A table and its teachers under `folder`. Only for a child: it starts the threads of torch."""
    table = make_table(folder, **options)
    for seed in range(teachers):
        make_teacher(folder, table, seed)


def table_writer() -> Writer:
    return Writer("table", f"tables/{NAME}", lambda root: make_table(root, 2), lambda root: make_table(root, 3))


def grown_writer(raw: Path) -> Writer:
    """A table of one CSV file, then of two: the second version takes the shards of the first over, by reference."""
    card = small_card(
        format={"kind": "csv"},
        label={"column": "y", "classes": ["0", "1"]},
        columns={"numeric": ["x"], "categorical": ["c"]},
    )
    for number, name in enumerate(("day-1.csv", "day-2.csv")):
        raw.mkdir(parents=True, exist_ok=True)
        rows = [f"{n % 3 % 2},{n * (1 + number)},v{n % 7}" for n in range(600)]
        (raw / name).write_text("\n".join(["y,x,c", *rows]) + "\n")

    def write(root: Path) -> None:
        base = open_artifact(root / "tables" / NAME / "v000001")
        encode(card, [raw / "day-2.csv"], root, engine_map, Silent(), onto=base)

    def prepare(root: Path) -> None:
        encode(card, [raw / "day-1.csv"], root, engine_map, Silent())

    return Writer("grown", f"tables/{NAME}", prepare, write)


def logits_writer(inputs: Path) -> Writer:
    """`inputs` holds a table and two teachers; the earlier version is the first one's."""

    def write(root: Path, teacher: str) -> None:
        tgeokd(*precompute_words(inputs, root, teacher), *QUICKLY)

    label = f"logits/{NAME}"
    return Writer("logits", label, lambda root: write(root, "v000001"), lambda root: write(root, "v000002"))


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
