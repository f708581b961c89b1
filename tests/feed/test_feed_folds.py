"""Folds: by row id alone, about equal, and rows of a fold that teach nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feed_fixtures import make_columns, write_table

from tgeokd_ray.feed import DirectReader, decode
from tgeokd_ray.feed.folds import HiddenFold, fold_of


def test_a_fold_is_a_function_of_the_row_id() -> None:
    ids = np.arange(-50_000, 50_000)
    fold = fold_of(ids, 5)
    order = np.random.default_rng(0).permutation(len(ids))
    np.testing.assert_array_equal(fold_of(ids[order], 5), fold[order])
    np.testing.assert_array_equal(fold_of(ids[:10], 5), fold[:10])
    counts = np.bincount(fold)
    assert len(counts) == 5
    assert np.abs(counts - 20_000).max() < 5 * np.sqrt(20_000 * 0.8), "binomial"


@pytest.mark.parametrize("weight", [False, True])
def test_rows_of_the_fold_weigh_nothing_and_every_row_is_hidden_once(tmp_path: Path, weight: bool) -> None:
    columns = make_columns(120)
    table = write_table(tmp_path, {"train": columns}, weight=weight)
    own = columns.row_id.astype(np.float32) / 2 if weight else np.ones(120, np.float32)
    total = np.zeros(120, np.float32)
    for fold in range(3):
        pieces = DirectReader(table, (), "train")(table.units("train"))
        rows = [HiddenFold(fold, 3)(decode(piece, 3)) for piece in pieces]
        weights = np.concatenate([part.weights.numpy() for part in rows])
        np.testing.assert_array_equal(np.concatenate([part.row_id.numpy() for part in rows]), columns.row_id)
        np.testing.assert_array_equal(weights, np.where(fold_of(columns.row_id, 3) == fold, 0, own))
        total += weights
    np.testing.assert_allclose(total, 2 * own)
