"""The generated click rows: deterministic, of the sizes asked for, Zipf, and worth learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import workload
from sklearn.metrics import roc_auc_score

IDS = 20_000


def test_the_same_seed_gives_the_same_rows_and_another_gives_others() -> None:
    rows, again, other = (workload.clicks(3_000, IDS, seed) for seed in (7, 7, 8))
    for name, values in vars(rows).items():
        np.testing.assert_array_equal(values, getattr(again, name))
        assert not np.array_equal(values, getattr(other, name))


def test_more_rows_leave_the_first_as_they_were() -> None:
    few, many = workload.clicks(1_000, IDS), workload.clicks(workload.BLOCK + 1_000, IDS)
    assert len(many.labels) == workload.BLOCK + 1_000
    for name, values in vars(few).items():
        np.testing.assert_array_equal(values, getattr(many, name)[:1_000])
    assert not np.array_equal(many.numeric[:1_000], many.numeric[workload.BLOCK :])


@pytest.mark.parametrize("num_ids", [78, 1_000, 200_000, 1_000_003])
def test_the_columns_hold_all_ids(num_ids: int) -> None:
    sizes = workload.sizes(num_ids)
    assert (len(sizes), sizes.sum()) == (26, num_ids)
    assert sizes.min() >= 3
    assert (np.diff(sizes) >= 0).all()


def test_too_few_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="num_ids must be at least 78, got 77"):
        workload.sizes(77)


def test_ids_follow_the_law() -> None:
    """The counts of the last column against the integral of x ** -ZIPF over each id."""
    ids, size = workload.clicks(workload.BLOCK, IDS).categorical, workload.sizes(IDS)
    assert (ids >= 0).all()
    assert (ids < size).all()
    edges = np.arange(1, size[-1] + 2, dtype=float) ** (1 - workload.ZIPF)
    shares = -np.diff(edges) / (edges[0] - edges[-1])
    counts = np.bincount(ids[:, -1], minlength=int(size[-1]))
    expected = shares[:20] * workload.BLOCK
    assert (np.abs(counts[:20] - expected) < 5 * np.sqrt(expected)).all()


def test_the_planted_model_is_worth_learning() -> None:
    """The best possible AUC by the planted logits themselves, and how often rows are clicked."""
    rows = workload.clicks(20_000, IDS)
    _, effects, slopes = workload._planted(IDS, 0)
    logits = rows.numeric @ slopes + sum(effect[rows.categorical[:, c]] for c, effect in enumerate(effects))
    assert 0.8 < roc_auc_score(rows.labels, logits) < 0.95
    assert 0.2 < rows.labels.mean() < 0.5


def test_the_file_holds_rows_sizes_and_other_rows_to_score(tmp_path: Path) -> None:
    workload.write(tmp_path / "rows.npz", 500, IDS, num_held_out=300)
    with np.load(tmp_path / "rows.npz", allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files}
    shapes = {name: (values.dtype.name, values.shape) for name, values in columns.items()}
    assert shapes == {
        "numeric": ("float32", (500, 13)),
        "categorical": ("int64", (500, 26)),
        "labels": ("float32", (500,)),
        "sizes": ("int64", (26,)),
        "test_numeric": ("float32", (300, 13)),
        "test_categorical": ("int64", (300, 26)),
        "test_labels": ("float32", (300,)),
    }
    assert not np.array_equal(columns["numeric"][:300], columns["test_numeric"])
