"""The state of a pack: dicts of tensors with a leading axis R, and its flat form on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Epoch = dict[str, Any]
PARTS = ("theta", "moments", "omega", "omega_moments", "best_theta", "best_omega", "totals")


@dataclass(frozen=True)
class State:
    """Parameters theta and omega with their optimizer moments, and the best ones so far; every tensor is [R, ...].

    `epoch` and `step` name the next batch; `best` [R] float64 is the best metric on valid (already signed so that
    higher is better), `best_epoch` [R] int64 the epoch it came from (-1: none yet). `totals` sums the measures of the
    epoch's steps; `history` has one entry per finished epoch, with a list of R values per measure.
    """

    theta: Tensors
    moments: Tensors
    omega: Tensors
    omega_moments: Tensors
    best_theta: Tensors
    best_omega: Tensors
    totals: Tensors
    best: Tensor
    best_epoch: Tensor
    epoch: int = 0
    step: int = 0
    history: tuple[Epoch, ...] = field(default=())

    @property
    def num_students(self) -> int:
        return int(self.best.shape[0])

    def flat(self) -> Tensors:
        """One dict of tensors for a safetensors file."""
        parts = {f"{part}/{name}": value for part in PARTS for name, value in getattr(self, part).items()}
        return parts | {"best": self.best, "best_epoch": self.best_epoch}

    @classmethod
    def from_flat(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        epoch: int,
        step: int,
        history: tuple[Epoch, ...],
        device: torch.device,
    ) -> State:
        """The state again, on `device`; the inverse of `flat` together with the cursor that JSON keeps."""
        parts: dict[str, Tensors] = {part: {} for part in PARTS}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            if name:
                parts[part][name] = value.to(device)
        best, best_epoch = tensors["best"].to(device), tensors["best_epoch"].to(device)
        return cls(**parts, best=best, best_epoch=best_epoch, epoch=epoch, step=step, history=history)

    def with_best(self, value: Tensor, patience: int) -> State:
        """Keep theta and omega of every student whose `value` [R] beats its best; one whose patience ran out is
        frozen at its best."""
        better = (value > self.best) & ~self._frozen(patience)
        return replace(
            self,
            best=torch.where(better, value, self.best),
            best_epoch=torch.where(better, torch.full_like(self.best_epoch, self.epoch), self.best_epoch),
            best_theta={name: _keep(better, self.theta[name], old) for name, old in self.best_theta.items()},
            best_omega={name: _keep(better, self.omega[name], old) for name, old in self.best_omega.items()},
        )

    def exhausted(self, patience: int) -> bool:
        """True once every student has had `patience` epochs, one at least, in a row without a new best."""
        return bool(self._frozen(patience).all())

    def _frozen(self, patience: int) -> Tensor:
        """[R]: which students' patience has run out, after the epochs before this one."""
        return self.epoch - 1 - self.best_epoch >= max(patience, 1)


def _keep(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape(-1, *[1] * (new.dim() - 1)), new, old)
