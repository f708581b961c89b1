"""Temperature scaling against a general optimizer, and where no temperature is best."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from tgeokd_ray.errors import DataError
from tgeokd_ray.training.calibrate import GREATEST, LEAST, fit_temperature


def drawn(temperature: float, rows: int = 4000, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times as sure as the labels drawn from them allow."""
    rng = np.random.default_rng(5)
    true = rng.normal(size=(rows, classes)) * 1.5
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    return (true * temperature).astype(np.float32), labels


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float, weights: np.ndarray) -> float:
    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(np.average(-logs[np.arange(len(labels)), labels], weights=weights))


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_temperature_is_where_a_general_optimizer_finds_it(temperature: float, weighted: bool) -> None:
    logits, labels = drawn(temperature)
    weights = np.random.default_rng(1).random(len(labels)) if weighted else np.ones(len(labels))
    found = fit_temperature(logits, labels, weights if weighted else None)
    expected = minimize_scalar(
        lambda log_t: nll(logits, labels, float(np.exp(log_t)), weights), bounds=(-4, 4), options={"xatol": 1e-10}
    )
    assert found.temperature == pytest.approx(float(np.exp(expected.x)), rel=1e-6)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.nll_before == pytest.approx(nll(logits, labels, 1.0, weights), rel=1e-12)
    assert found.nll_after == pytest.approx(float(expected.fun), rel=1e-12)
    assert (found.rows, found.at_limit) == (4000, False)


def test_the_limits_are_kept_and_told() -> None:
    _logits, labels = drawn(1.0)
    perfect = (np.eye(4)[labels] * 3).astype(np.float32)
    sure, misled = fit_temperature(perfect, labels), fit_temperature(-perfect, labels)
    assert sure.at_limit
    assert sure.temperature == pytest.approx(LEAST)
    assert misled.at_limit
    assert misled.temperature == pytest.approx(GREATEST)
    for found in (sure, misled):
        assert found.nll_after < found.nll_before


def test_rows_that_all_weigh_nothing_fit_no_temperature() -> None:
    with pytest.raises(DataError, match="all valid rows weigh 0"):
        fit_temperature(np.zeros((3, 2), np.float32), np.array([0, 1, 0]), np.zeros(3))
