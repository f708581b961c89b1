"""Numbers that Python knows and a step computes with, as tensors that are made once."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor


def numbers(values: tuple[Any, ...], like: Tensor) -> Tensor:
    """The values, numbers or tuples of them, as a tensor in the type and on the device of `like`; never write into it.

    Made at the first call and kept: a device would be waited for at every other, and what a CUDA graph has recorded
    must stay where it is.
    """
    return _numbers(values, like.dtype, like.device)


@cache
def _numbers(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):  # whoever asks first, others may take gradients beside it
        return torch.tensor(values, dtype=dtype, device=device)
