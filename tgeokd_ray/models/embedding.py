"""One table of embeddings for all categorical columns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgeokd_ray.models.autocast import narrow_type
from tgeokd_ray.objectives.rows import added, read

# An id seen once or never keeps its start and adds it to its rows as noise. On 30,000 rows with Zipf-distributed ids,
# .001 to .05 gave the same AUC with each network, and 1/sqrt(D) = .35 gave .02 less.
INITIAL_STD = 0.05


class FusedEmbedding(nn.Module):
    """A weight [V, D] that all categorical columns share; their ids are already offset into one id space.

    `forward` maps ids [N, F], int32 or int64, to [N, F, D], with the weights [R, V, D] of a pack to [R, N, F, D]. The
    columns start normal with standard deviation .05, the last `zero_columns` of them at zero. Under autocast on a CPU
    `narrow` ones come in its type.
    """

    def __init__(self, num_ids: int, width: int, generator: torch.Generator, zero_columns: int = 0) -> None:
        super().__init__()
        weight = torch.zeros(num_ids, width)
        weight[:, : width - zero_columns].normal_(0.0, INITIAL_STD, generator=generator)
        self.weight = nn.Parameter(weight)

    def forward(self, ids: Tensor, narrow: bool = False) -> Tensor:
        return gathered(self.weight, ids, narrow_type(self.weight) if narrow else None)


def gathered(weight: Tensor, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The rows of ids [N, F]: of a table [V, D] as [N, F, D], of a pack's [R, V, D] as [R, N, F, D]; in this type on a
    CPU."""
    if weight.dim() == 2:
        return read(weight, ids, dtype)
    return read(weight.reshape(-1, weight.shape[-1]), _of_pack(ids, weight.shape[0], weight.shape[1]), dtype)


def scattered(values: Tensor, ids: Tensor, num_ids: int) -> Tensor:
    """The adjoint of `gathered`: values [N, F, D] or [R, N, F, D] added up by id, [V, D] or [R, V, D]."""
    width = values.shape[-1]
    if values.dim() == 3:
        return added(values.reshape(-1, width), ids.flatten(), num_ids)
    students = values.shape[0]
    places = _of_pack(ids, students, num_ids).flatten()
    return added(values.reshape(-1, width), places, students * num_ids).reshape(students, num_ids, width)


def _of_pack(ids: Tensor, students: int, num_ids: int) -> Tensor:
    """The ids [R, N, F] of R tables that lie behind one another."""
    return ids + (torch.arange(students, device=ids.device) * num_ids).reshape(-1, 1, 1)
