"""Means of what is known of rows, by parts of them: by class, and by halves of a column.

N rows, C classes, P numeric columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

MOST_COLUMNS = 5
LEAST_SHARE = 0.05  # of the rows, in each of two halves

Values = Mapping[str, Tensor]


def by_class(labels: Tensor, values: Values, weights: Tensor, num_classes: int) -> dict[str, Any]:
    """For each class index the rows of that label [N] that have weight, and the weighted mean of each of the values;
    null for a class without such rows."""
    return {str(c): segment(labels == c, values, weights) for c in range(num_classes)}


def by_column(numeric: Tensor, names: Sequence[str], values: Values, weights: Tensor) -> list[dict[str, Any]]:
    """The columns of [N, P] whose halves, up to the median and above it, differ most in the mean of `noise`, five at
    most, furthest apart first: `column`, `low` and `high`. A column whose halves are too uneven is left out."""
    found: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        high = numeric[:, place] > numeric[:, place].median()
        if min(high.float().mean(), (~high).float().mean()) < LEAST_SHARE:
            continue
        low_high = [segment(part, values, weights) for part in (~high, high)]
        if low_high[0]["rows"] and low_high[1]["rows"]:
            found.append({"column": name, "low": low_high[0], "high": low_high[1]})
    apart = {one["column"]: abs(one["low"]["noise"] - one["high"]["noise"]) for one in found}
    return sorted(found, key=lambda one: -apart[one["column"]])[:MOST_COLUMNS]


def segment(part: Tensor, values: Values, weights: Tensor) -> dict[str, Any]:
    """Rows of `part` [N] bool that have weight, and the weighted mean of each value over them, null without any."""
    own = weights * part
    total = float(own.sum())
    means = {name: float((value * own).sum()) / total if total > 0 else None for name, value in values.items()}
    return {"rows": int(torch.count_nonzero(own)), **means}
