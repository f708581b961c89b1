"""The synthetic table: a pure function of its seed, with true log-odds and room between models."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import LABEL, ROW, Card
from tgeokd_ray.tables.synthetic import (
    CATEGORICAL,
    LOG_ODDS,
    NUMERIC,
    VOCABULARIES,
    check_columns,
    synthetic_rows,
)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return synthetic_rows(7, 0, 60_000)


def test_any_cut_gives_the_same_rows(table: pa.Table) -> None:
    parts = pa.concat_tables([synthetic_rows(7, 0, 10), synthetic_rows(7, 10, 1), synthetic_rows(7, 11, 989)])
    assert parts.combine_chunks().equals(table[:1000].combine_chunks())
    assert parts[ROW].to_pylist() == list(range(1000))


def test_another_seed_is_another_table(table: pa.Table) -> None:
    other = synthetic_rows(8, 0, 1000)
    for name in (*NUMERIC, *CATEGORICAL, LABEL, LOG_ODDS):
        assert not other[name].equals(table[name][:1000])


def test_columns(table: pa.Table) -> None:
    assert table.column_names == [ROW, LABEL, *NUMERIC, *CATEGORICAL, LOG_ODDS]
    for name, size in zip(CATEGORICAL, VOCABULARIES, strict=True):
        counts = sorted((row["counts"] for row in table[name].drop_null().value_counts().to_pylist()), reverse=True)
        assert 0.7 * size <= len(counts) <= size
        assert counts[0] > 5 * counts[size // 2]  # a few values are most of the rows
    missing = {name: table[name].null_count / table.num_rows for name in (*NUMERIC, *CATEGORICAL)}
    assert {name for name, share in missing.items() if share} == {"n3", "n6", "c2", "c7"}
    assert all(0.03 < share < 0.06 for share in missing.values() if share)


@pytest.mark.parametrize("seed", [0, 7, 123])
def test_labels_follow_the_log_odds(seed: int) -> None:
    rows = synthetic_rows(seed, 0, 60_000)
    labels, log_odds = rows[LABEL].to_numpy(), rows[LOG_ODDS].to_numpy()
    chances = 1 / (1 + np.exp(-log_odds))
    for part in np.array_split(np.argsort(log_odds), 10):
        sigma = np.sqrt((chances[part] * (1 - chances[part])).sum()) / len(part)
        assert abs(labels[part].mean() - chances[part].mean()) < 4 * sigma
    assert 0.22 < labels.mean() < 0.28
    assert 0.80 < roc_auc_score(labels, log_odds) < 0.845


def test_products_matter_and_the_bayes_auc_is_out_of_reach(table: pa.Table) -> None:
    labels, log_odds = table[LABEL].to_numpy(), table[LOG_ODDS].to_numpy()
    numeric = np.stack([np.nan_to_num(table[name].to_numpy()) for name in NUMERIC], axis=1)
    codes = np.stack(
        [table[name].combine_chunks().dictionary_encode().indices.fill_null(-1) for name in CATEGORICAL], 1
    )
    train, test = slice(0, 40_000), slice(40_000, None)
    # A straight model, and trees that see the four columns whose products matter.
    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(codes[train, :4])
    straight = np.concatenate([numeric, hot.transform(codes[:, :4])], axis=1)
    linear = LogisticRegression(max_iter=200).fit(straight[train], labels[train])
    trees = HistGradientBoostingClassifier(max_iter=150, random_state=0).fit(
        np.concatenate([numeric, codes[:, :4]], axis=1)[train], labels[train]
    )
    aucs = [
        roc_auc_score(labels[test], linear.decision_function(straight[test])),
        roc_auc_score(labels[test], trees.decision_function(np.concatenate([numeric, codes[:, :4]], axis=1)[test])),
        roc_auc_score(labels[test], log_odds[test]),
    ]
    assert aucs[0] + 0.03 < aucs[1] < aucs[2] - 0.02


def make_card(**columns: object) -> Card:
    return Card.model_validate(
        {
            "name": "s",
            "format": {"kind": "synthetic", "rows": 10},
            "label": {"column": "label", "classes": columns.pop("classes", ["0", "1"])},
            "columns": columns,
            "splits": {"kind": "hash", "parts": {"train": 1.0}},
        }
    )


def test_a_card_may_name_some_of_the_columns_only() -> None:
    check_columns(make_card(numeric=[{"name": "n7"}], categorical=[{"name": "c0"}]))
    with pytest.raises(ConfigError) as caught:
        check_columns(make_card(numeric=[{"name": "n70"}], categorical=[{"name": "n0"}], classes=["a", "b", "c"]))
    assert len(caught.value.problems) == 3
    assert "no numeric column 'n70'; did you mean 'n7'?" in str(caught.value)
