"""Differences over seeds, many at once: their p-values, and what is left of them when all are looked at together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tgeokd_ray.metrics.intervals import student_t_quantile

_TINY, _CLOSE = 1e-300, 1e-16


def paired_test(values_a: Sequence[float], values_b: Sequence[float]) -> tuple[float, float]:
    """Standard error of the mean of `a - b` over pairs (one per seed), and the two-sided p-value of Student's t test.

    Differences that are all the same have an error of 0, and a p-value of 1 where they are 0, else of 0. ValueError for
    fewer than two pairs, unequal lengths or a value that is not finite.
    """
    if len(values_a) != len(values_b) or len(values_a) < 2 or not np.isfinite([values_a, values_b]).all():
        raise ValueError("need two or more pairs of finite values")
    differences = np.subtract(values_a, values_b, dtype=np.float64)
    mean = math.fsum(differences) / len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    if error == 0:
        return 0.0, 0.0 if mean else 1.0
    return error, student_t_tails(mean / error, len(differences) - 1)


def simultaneous(mean: float, error: float, degrees: int, comparisons: int, level: float = 0.95) -> tuple[float, float]:
    """Interval by Student's t with Bonferroni's correction: so many of them hold together with probability `level`."""
    half = student_t_quantile(1 - (1 - level) / (2 * comparisons), degrees) * error
    return mean - half, mean + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value adjusted for all of them by Holm's method (1979), in the order given: those of at most alpha are
    rejected such that one false rejection or more has a probability of at most alpha, however they depend."""
    adjusted, before = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        before = max(before, min(1.0, p_values[k] * (len(p_values) - rank)))
        adjusted[k] = before
    return adjusted


def student_t_tails(statistic: float, degrees: float) -> float:
    """P(|t| >= |statistic|) for Student's t: the regularised incomplete beta function at n / (n + t^2), to a relative
    error below 1e-10 even where it is tiny."""
    square = statistic * statistic
    return _incomplete_beta(degrees / (degrees + square), square / (degrees + square), degrees / 2, 0.5)


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """I_x(a, b) with `rest` = 1 - x, by the continued fraction (Abramowitz and Stegun, 26.5.8) on the side where it
    converges fast."""
    if rest == 0 or x == 0:
        return 1.0 if rest == 0 else 0.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(rest, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function by the modified method of Lentz."""
    c, d = 1.0, 1 / _kept(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1 / _kept(1 + step * d)
            c = _kept(1 + step / c)
            value *= c * d
        if abs(c * d - 1) < _CLOSE:
            break
    return value


def _kept(value: float) -> float:
    """Away from 0, by which something is divided."""
    return value if abs(value) > _TINY else _TINY
