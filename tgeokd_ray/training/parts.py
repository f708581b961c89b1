"""Which rows of a batch a look-ahead's products with the Hessian read: parts of it, one after the other.

N rows of this worker, P parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tgeokd_ray.feed.rows import sent
from tgeokd_ray.feed.sampler import LANES


def places(shares: Sequence[tuple[int, int]], num_parts: int, device: torch.device | str = "cpu") -> Tensor | None:
    """Positions [P, m] int64 of each part's rows in a batch of these (lane, rows), -1 behind them; None for one part.

    The rows of a lane are dealt to the parts in turn, from another part on in each, so a part has the same rows for
    every number of workers, and parts differ by a few rows. `m` is that of the largest part.
    """
    if num_parts == 1:
        return None
    lanes = [(lane * num_parts // LANES + np.arange(rows)) % num_parts for lane, rows in shares]
    dealt = np.concatenate(lanes or [np.empty(0, np.int64)])
    sizes, order = np.bincount(dealt, minlength=num_parts), np.argsort(dealt, kind="stable")
    firsts = np.cumsum(sizes) - sizes
    found = np.full((num_parts, int(sizes.max())), -1)
    found[dealt[order], np.arange(len(order)) - np.repeat(firsts, sizes)] = order
    return sent(torch.from_numpy(found), device)
