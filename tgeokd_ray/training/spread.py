"""How a ratio spreads over rows while it is learned: shares of rows in fine bins, and percentiles of them.

N rows, R students in the pack, B bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 100
PERCENTILES = (10, 50, 90)
NAME = "ratio_spread"


def rows_by_ratio(ratio: Tensor, weights: Tensor) -> Tensor:
    """The weight of the rows in each of B equal bins of [0, 1], for ratios [R, N] and weights [N]: [R, B]."""
    places = (ratio * BINS).long().clamp_(0, BINS - 1)
    return ratio.new_zeros(ratio.shape[0], BINS).scatter_add_(1, places, weights.to(ratio.dtype).expand_as(ratio))


def percentiles(spread: Tensor) -> dict[str, Tensor]:
    """`ratio_p10`, `ratio_p50` and `ratio_p90` [R] of the rows counted in `spread` [R, B], of any sum.

    Rows lie evenly in their bin, so that the error is below its width, 1/100; 0 where nothing was counted.
    """
    upto = spread.cumsum(-1)
    found = {}
    for percentile in PERCENTILES:
        wanted = upto[:, -1:] * (percentile / 100)
        place = torch.searchsorted(upto, wanted).clamp_max(BINS - 1)
        own = spread.gather(-1, place)
        inside = (wanted - (upto.gather(-1, place) - own)) / own.clamp_min(torch.finfo(own.dtype).tiny)
        found[f"ratio_p{percentile}"] = ((place + inside) / BINS).squeeze(-1)
    return found


def means(totals: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """What a number of steps measured: the mean of each measure [R] over them, and the percentiles of a spread."""
    told = {name: total / steps for name, total in totals.items() if name != NAME}
    return told | (percentiles(totals[NAME]) if NAME in totals else {})
