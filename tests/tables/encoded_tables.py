"""Small tables as artifacts, and an engine that counts what it does and can die."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.arrow import unpacked
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.encode import encode
from tgeokd_ray.tables.synthetic import CATEGORICAL, NUMERIC

ROWS, CHUNK = 9000, 2000
PARTS = {"teacher": 0.3, "train": 0.3, "outer": 0.1, "valid": 0.1, "test": 0.15}


def synthetic_card(**format: Any) -> Card:
    return Card.model_validate(
        {
            "name": "small",
            "format": {"kind": "synthetic", "rows": ROWS, "chunk_rows": CHUNK, "seed": 3, **format},
            "label": {"column": "label", "classes": ["0", "1"]},
            "columns": {
                "numeric": [{"name": name, "kind": "standard", "missing_flag": name == "n3"} for name in NUMERIC],
                "categorical": [{"name": name, "min_count": 3} for name in CATEGORICAL],
            },
            "splits": {"kind": "hash", "salt": "a", "parts": PARTS},
        }
    )


class Engine:
    """The local engine: it counts items per stage, and dies before the n-th item of one."""

    def __init__(self, stage: str | None = None, items: int = 0) -> None:
        self.stage, self.items = stage, items
        self.done: dict[str, int] = {}

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any], *, stage: str) -> Iterator[Any]:
        for item in items:
            if stage == self.stage and self.done.get(stage, 0) == self.items:
                raise KeyboardInterrupt
            yield function(item)
            self.done[stage] = self.done.get(stage, 0) + 1


def shards(artifact: Artifact, split: str) -> pa.Table:
    """All rows of a split in stored order."""
    return pa.concat_tables(
        [unpacked(pq.read_table(artifact.file(e.path))) for e in entries(artifact) if e.extra["split"] == split]
    )


def entries(artifact: Artifact) -> list[Any]:
    return [entry for entry in artifact.manifest.files if "split" in entry.extra]


def matrix(shard: pa.Table, name: str) -> np.ndarray:
    column = shard[name].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def csv_card(**changes: Any) -> Card:
    data = {
        "name": "raw",
        "format": {"kind": "csv"},
        "label": {"column": "y", "classes": ["no", "yes"]},
        "columns": {"numeric": [{"name": "x", "kind": "standard"}], "categorical": [{"name": "c"}], "others": "ignore"},
        "splits": {"kind": "hash", "salt": "a", "parts": {"train": 0.6, "test": 0.4}},
    }
    return Card.model_validate({**data, **changes})


def write_csv(path: Path, rows: range, **columns: Callable[[int], str]) -> Path:
    """A file with columns id, y, x, c; `columns` replaces or adds some."""
    made: dict[str, Callable[[int], str]] = {
        "id": str,
        "y": lambda n: ("no", "yes")[n % 3 == 0],
        "x": lambda n: "" if n % 7 == 0 else str(n / 4),
        "c": lambda n: f"v{n % 5}",
        **columns,
    }
    lines = [",".join(made), *(",".join(make(n) for make in made.values()) for n in rows)]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def encode_csv(card: Card, files: list[Path], root: Path) -> Artifact:
    return encode(card, files, root, Engine(), Silent())[0]
