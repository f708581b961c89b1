"""What autocast does to the numbers of a network."""

from __future__ import annotations

import torch
from torch import Tensor


def narrow_type(like: Tensor) -> torch.dtype | None:
    """The type in which autocast has products of such numbers on a CPU; None where it converts nothing."""
    single = like.device.type == "cpu" and like.dtype is torch.float32
    return torch.get_autocast_dtype("cpu") if single and torch.is_autocast_enabled("cpu") else None
