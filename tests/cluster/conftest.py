"""One Ray for all tests of the floor, a small encoded table with logits, and a small chain that ran without Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cluster_chain import SMALL, Chain
from small_card import small_card

from tgeokd_ray.artifacts import Artifact, Staging, save_tensors, staging, write_file
from tgeokd_ray.cluster.connect import Connection, connect
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import class_means
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.pipeline.job import Place, run_job

CLASSES = 3
GROUPS = (40, 40, 17)  # rows per row group of each of the two shards
MEANS = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]


# Ray Data copies its context with every deprecated field; anything else stays an error.
OF_RAY = ("ignore::DeprecationWarning:ray.data.context",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("ray"):
            for warning in OF_RAY:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Connection]:
    """A Ray of our own with CPUs for two workers; ends what it started, nothing else."""
    connection = connect(workers=2)
    assert connection.local
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The whole chain on 4,000 rows of the packaged synthetic card, in this process."""
    folder = tmp_path_factory.mktemp("chain")
    job, card = resolve({"card": str(small_card(folder, 4000, 1500)), "root": str(folder / "root")}, settings=SMALL)
    results, _ = run_job(job, card, Place(local=True), Silent())
    return Chain(job, card, results, folder / "root")


def _shard(ids: np.ndarray, columns: dict[str, Any]) -> pa.Table:
    def array(values: np.ndarray) -> pa.Array:
        return (
            pa.array(values) if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])
        )

    return pa.table({"row_id": ids} | {name: array(values) for name, values in columns.items()})


def _add(staged: Staging, name: str, table: pa.Table, labels: np.ndarray) -> None:
    def write(path: Path) -> None:
        with pq.ParquetWriter(path, table.schema) as writer:
            first = 0
            for rows in GROUPS:
                writer.write_table(table.slice(first, rows))
                first += rows

    parts = np.split(labels, np.cumsum(GROUPS)[:-1])
    extra = {
        "split": "train",
        "shard": int(name[6:11]),
        "groups": list(GROUPS),
        "labels": [np.bincount(part, minlength=CLASSES).tolist() for part in parts],
        "row_ids": hashlib.sha256(table["row_id"].to_numpy().astype("<i8").tobytes()).hexdigest(),
    }
    staged.add(write_file(staged.folder, name, write, rows=len(labels), extra=extra))


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    """tables/small with two shards of three row groups, and its logits."""
    root = tmp_path_factory.mktemp("artifacts")
    generator = np.random.default_rng(0)
    rows, names = sum(GROUPS), ("train-00000.parquet", "train-00001.parquet")
    ids = np.split(generator.permutation(2 * rows).astype(np.int64), 2)
    labels = [generator.integers(0, CLASSES, rows).astype(np.int32) for _ in names]
    with staging(root, "tables", "small", arguments={}, parents={}) as staged:
        for name, row_id, label in zip(names, ids, labels, strict=True):
            numeric = generator.normal(size=(rows, 4)).astype(np.float32)
            categorical = generator.integers(0, 9, (rows, 2)).astype(np.int32)
            _add(staged, name, _shard(row_id, {"label": label, "numeric": numeric, "categorical": categorical}), label)
        schema = {"classes": list("abc"), "negative": 0, "numeric": list("pqrs"), "num_ids": 9, "weight": False}
        categories = [{"name": name, "offset": 0, "size": 9} for name in ("u", "v")]
        schema |= {"categorical": categories, "rows": {"train": 2 * rows}}
        table = staged.commit(schema=schema, record={})
    with staging(root, "logits", "small", arguments={}, parents={"table": table}) as staged:
        for name, row_id, label in zip(names, ids, labels, strict=True):
            _add(staged, name, _shard(row_id, {"logits": generator.normal(size=(rows, 3)).astype(np.float32)}), label)
        counts = np.bincount(np.concatenate(labels)).tolist()
        tensors = {"means": np.array(MEANS), "counts": np.array(counts)}
        staged.write(class_means.MEANS, lambda path: save_tensors(path, tensors))
        means = {
            "num_classes": CLASSES,
            "classes": list("abc"),
            "class_counts": counts,
            "storage": Storage().to_json(),
        }
        return table, staged.commit(schema=means, record={})
