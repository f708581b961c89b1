"""The dense part as plain torch modules, for the bound and for FBGEMM's embedding. B rows, 13 + 26 x 16 features."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from rows import CROSS_LAYERS, EMBEDDING, HIDDEN, LEARNING_RATE
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

PRECISIONS = ("fp32", "bf16")


class Dense(nn.Module):
    """Logits [B] from numeric columns [B, 13] and embedded ones [B, 26 x 16]: `dnn`, or `dcnv2` in parallel form."""

    def __init__(self, model: str, num_numeric: int, num_categorical: int) -> None:
        super().__init__()
        width = num_numeric + num_categorical * EMBEDDING
        widths = [width, *HIDDEN]
        layers = [[nn.Linear(i, o), nn.ReLU()] for i, o in pairwise(widths)]
        self.tower = nn.Sequential(*(module for pair in layers for module in pair))
        num_cross = CROSS_LAYERS if model == "dcnv2" else 0
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(num_cross))
        self.head = nn.Linear(HIDDEN[-1] + (width if num_cross else 0), 1)

    def forward(self, numeric: Tensor, embedded: Tensor) -> Tensor:
        features = torch.cat([numeric, embedded], dim=1)
        seen = self.tower(features)
        if self.cross:
            crossed = features
            for layer in self.cross:
                crossed = crossed + features * layer(crossed)
            seen = torch.cat([crossed, seen], dim=1)
        return self.head(seen).squeeze(1)


Step = Callable[[Tensor, Tensor, Tensor], None]


def trainer(dense: nn.Module, precision: str) -> Step:
    """`step(numeric, embedded, labels)`: forward, loss, backward into `embedded` too, fused Adam on the dense part."""
    optimizer = torch.optim.Adam(dense.parameters(), lr=LEARNING_RATE, fused=True)

    def step(numeric: Tensor, embedded: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = dense(numeric, embedded)
        binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()

    return step
