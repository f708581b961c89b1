"""Several networks as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of the members' probabilities, as log-probabilities [N, C], which serve as logits.

    Members differ in their initial values and are trained as one network. `forward` takes what a member takes.
    """

    stacks: ClassVar[bool] = True

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        logs = torch.stack([member(numeric, categorical).log_softmax(-1) for member in self.members])
        return logs.logsumexp(0) - math.log(len(self.members))
