"""Multinomial stacking against a general optimizer, and the limits that keep it finite."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from tgeokd_ray.errors import DataError
from tgeokd_ray.training.stacker import fit_stacker


def drawn(rows: int, sources: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, K, C] of sources that see the truth through noise, at other temperatures and with other biases."""
    rng = np.random.default_rng(sources)
    true = rng.normal(size=(rows, classes)) * 1.5
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    told = [(true + rng.normal(scale=1.0, size=true.shape)) * (1 + 2 * k) for k in range(sources)]
    return np.stack(told, 1) + np.linspace(-1, 1, classes), labels


@pytest.mark.parametrize("sources", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_where_a_general_optimizer_finds_it(sources: int, weighted: bool) -> None:
    z, labels = drawn(500, sources)
    weights = np.random.default_rng(1).random(500) * (np.arange(500) > 9) if weighted else np.ones(500)
    shares, rows = weights / weights.sum(), np.count_nonzero(weights)
    start = np.concatenate([np.full(sources, 1 / sources), np.zeros(4)])

    def cost(point: np.ndarray) -> float:
        logs = log_softmax(np.tensordot(z, point[:sources], (1, 0)) + point[sources:], axis=1)
        return -float(logs[np.arange(500), labels] @ shares) + float(np.square(point - start).sum()) / (2 * rows)

    found = fit_stacker(z, labels, weights if weighted else None)
    expected = minimize(cost, start, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(np.concatenate([found.scales, found.bias]), expected.x, rtol=0, atol=1e-5)
    assert found.nll_after < found.nll_before
    assert found.rows == rows
    np.testing.assert_allclose(found(z), np.tensordot(z, found.scales, (1, 0)) + found.bias, rtol=1e-5, atol=1e-6)


def test_a_calibrated_source_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 1, 3)) * 2
    labels = (z[:, 0] + rng.gumbel(size=(20_000, 3))).argmax(axis=1)
    found = fit_stacker(z, labels)
    assert found.scales[0] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(found.bias, 0, atol=0.05)
    hot = fit_stacker(4 * z, labels)
    assert hot.scales[0] == pytest.approx(0.25, abs=0.02)


def test_the_better_source_gets_the_weight() -> None:
    rng = np.random.default_rng(3)
    z, labels = drawn(4000, 1)
    both = np.concatenate([z, rng.normal(size=z.shape) * 3], axis=1)
    scales = fit_stacker(both, labels).scales
    assert scales[0] > 0.3
    assert abs(scales[1]) < 0.05


def test_rows_that_can_be_told_apart_and_a_missing_class_stay_finite() -> None:
    labels = np.array([0, 1, 0, 1] * 10)
    z = np.zeros((40, 1, 3))
    z[np.arange(40), 0, labels] = 2.0
    found = fit_stacker(z, labels)
    assert 1 < found.scales[0] < 20
    assert np.isfinite(found.bias).all()
    assert -20 < found.bias[2] < -0.1, "no row is of this class"


def test_rows_that_weigh_nothing_say_nothing() -> None:
    z, labels = drawn(10, 1)
    with pytest.raises(DataError, match="no outer row has a label and a weight"):
        fit_stacker(z, labels, np.zeros(10))
    with pytest.raises(DataError, match="no outer row"):
        fit_stacker(z[:0], labels[:0])
