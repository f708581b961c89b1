"""Rows that nobody scored: marked beside their logits, aligned or joined, alone or next to another teacher (P6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from feed_fixtures import CLASSES, Columns, fixed, ids_digest, make_columns, pieces, shuffled, write_table
from feed_fixtures import write_logits as scored_by_all

from tgeokd_ray.artifacts import staging
from tgeokd_ray.feed import DirectReader, EncodedTable, Feed, LogitsTable, Rows, Sampler
from tgeokd_ray.feed.class_means import ClassMeans
from tgeokd_ray.feed.folds import FOLD_MEAN, FOLD_NOBODY
from tgeokd_ray.feed.logits_files import Piece, finish, write_logits
from tgeokd_ray.feed.storage import Storage

COLUMNS = make_columns(250)
MOST_FOLDS = 254  # what config allows
LACKING = np.unique(COLUMNS.row_id)[::10]  # every tenth row, by id


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def table(root: Path) -> EncodedTable:
    return write_table(root, {"train": COLUMNS})


def lacking_logits(root: Path, table: EncodedTable, columns: Columns, name: str) -> LogitsTable:
    with staging(root, "logits", name, arguments={}, parents={"table": table.artifact}) as stage:
        entries = []
        for shard, part in enumerate(pieces(len(columns.row_id), 100)):
            groups = [slice(part.start + g.start, part.start + g.stop) for g in pieces(part.stop - part.start, 16)]
            told = []
            for rows in groups:
                known = ~np.isin(columns.row_id[rows], LACKING)
                logits = np.where(known[:, None], columns.logits[rows], 0).astype(np.float32)
                told.append(Piece(columns.row_id[rows], logits, np.where(known, 0, FOLD_NOBODY).astype(np.uint8)))
            extra = {"split": "train", "shard": shard, "groups": [g.stop - g.start for g in groups]}
            extra |= {"row_ids": ids_digest(columns.row_id[part])}
            extra |= {"uncovered": int(np.isin(columns.row_id[part], LACKING).sum())}
            file = f"train-{shard:05d}.parquet"
            entries.append(write_logits(stage.folder, file, told, Storage(), scored_by="x", extra=extra))
        means = {entry.path: ClassMeans(len(CLASSES)) for entry in entries}
        schema = finish(stage, entries, table, Storage(), means)
        return LogitsTable.open(stage.commit(schema=schema).path)


def rows_of(table: EncodedTable, logits: list[LogitsTable]) -> Rows:
    reader = DirectReader(table, logits, "train")
    (rows,) = Feed(reader, Sampler(table.units("train"), 64, 0)).sequential(1000)
    return rows


@pytest.mark.parametrize("order", ["aligned", "joined"])
def test_p6_rows_without_logits_are_marked(root: Path, table: EncodedTable, order: str) -> None:
    columns = COLUMNS if order == "aligned" else shuffled(COLUMNS)
    logits = lacking_logits(root, table, columns, order)
    assert logits.check_aligned(table, "train") == (order == "aligned")
    assert logits.uncovered == {"train": len(LACKING)}
    rows = rows_of(table, [logits])
    expected = ~np.isin(COLUMNS.row_id, LACKING)
    np.testing.assert_array_equal(rows.covered[:, 0].numpy().astype(bool), expected)
    np.testing.assert_array_equal(rows.logits[:, 0].numpy()[expected], COLUMNS.logits[expected])
    batches = list(Feed(DirectReader(table, [logits], "train"), Sampler(table.units("train"), 64, 0)).batches(0))
    for batch in batches:
        assert batch.covered[:, 0].tolist() == (~np.isin(batch.row_id.numpy(), LACKING)).astype(int).tolist()
    assert sum(map(len, batches)) == 250


def test_another_teacher_keeps_its_rows_and_whole_logits_cost_nothing(root: Path, table: EncodedTable) -> None:
    whole = scored_by_all(root, table, {"train": COLUMNS})
    lacking = lacking_logits(root, table, COLUMNS, "beside")
    rows = rows_of(table, [whole, lacking])
    assert rows.covered.shape == (250, 2)
    assert rows.covered[:, 0].all()
    assert int(rows.covered[:, 1].sum()) == 250 - len(LACKING)
    assert rows_of(table, [whole]).covered.shape == (250, 0)
    assert whole.uncovered == {}


def test_the_mark_is_no_fold() -> None:
    assert FOLD_NOBODY not in (*range(MOST_FOLDS), FOLD_MEAN)
    assert pa.array([FOLD_NOBODY], pa.uint8())[0].as_py() == 254
    assert fixed(np.zeros((2, 3))).type.list_size == 3
