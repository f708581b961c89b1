"""What every network for encoded tables is: a gather from the fused table, then a dense part.

N rows, P numeric columns, F categorical columns, V ids, D embedding width, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.models.embedding import FusedEmbedding
from tgeokd_ray.models.pixels import Pixels


@dataclass(frozen=True)
class Shape:
    """The table that a network is for: P, F, V and C; of images what their P pixels are."""

    num_numeric: int
    num_categorical: int
    num_ids: int
    num_classes: int
    image: Pixels | None = None

    def num_features(self, width: int) -> int:
        """Inputs of the dense part when a categorical value is `width` numbers: P + F D."""
        return self.num_numeric + self.num_categorical * width


class Network(nn.Module, ABC):
    """`forward(numeric, categorical) = dense(numeric, embedding(categorical))`: logits [N, C].

    The two halves are separate so that a row-sparse optimizer can gather the embeddings itself. `embedding` is None
    for a table without categorical columns; `dense` then gets [N, 0, D]. ConfigError for a table without any column.
    `masks` [N, K] are the dropout masks of the K hidden units; without them nothing is dropped. All parameters may
    carry a leading axis R, and so may embeddings and masks: the logits then are [R, N, C] (`stacking.apply`). Of images
    `numeric` are pixels as stored; `dense` gets them scaled.
    """

    stacks: ClassVar[bool] = True
    narrow: ClassVar[bool] = False  # whether autocast converts embeddings in any case: they only go into products

    def __init__(self, shape: Shape, width: int, generator: torch.Generator, zero_columns: int = 0) -> None:
        super().__init__()
        if shape.num_numeric + shape.num_categorical == 0:
            raise ConfigError("a network needs at least one numeric or categorical column, the table has none")
        self.width = width
        self.image = shape.image
        self.embedding = (
            FusedEmbedding(shape.num_ids, width, generator, zero_columns) if shape.num_categorical else None
        )

    def forward(self, numeric: Tensor, categorical: Tensor, masks: Tensor | None = None) -> Tensor:
        numeric = self.scaled(numeric)
        if self.embedding is None:
            return self.dense(numeric, numeric.new_zeros(len(numeric), 0, self.width), masks)
        return self.dense(numeric, self.embedding(categorical, self.narrow), masks)

    def scaled(self, numeric: Tensor) -> Tensor:
        """The numeric columns as `dense` takes them: pixels by their channel's scale, others as they are."""
        return numeric if self.image is None else self.image.scaled(numeric)

    @property
    def table(self) -> str | None:
        """The name of the parameter [V, D] whose rows `categorical` names; None without categorical columns."""
        return None if self.embedding is None else "embedding.weight"

    @abstractmethod
    def dense(self, numeric: Tensor, embedded: Tensor, masks: Tensor | None = None) -> Tensor:
        """Logits [N, C] from numeric columns [N, P], gathered embeddings [N, F, D] and dropout masks [N, K]."""


def parts(numeric: Tensor, embedded: Tensor) -> list[Tensor]:
    """The features of a row, [N, P] shared by a pack and [..., N, F D] of each student; none without columns."""
    return [part for part in (numeric, embedded.flatten(-2)) if part.shape[-1]]


def joined(numeric: Tensor, embedded: Tensor) -> Tensor:
    """All features of a row side by side, [..., N, P + F D]."""
    return torch.cat([numeric.expand(*embedded.shape[:-2], -1), embedded.flatten(-2)], dim=-1)
