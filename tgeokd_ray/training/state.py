"""The state of a pack: dicts of tensors with a leading axis R, and its flat form on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tgeokd_ray.objectives.rows import write

Tensors = dict[str, Tensor]
Epoch = dict[str, Any]
ACTIVE = ("theta", "moments", "omega", "omega_moments", "totals")
PARTS = (*ACTIVE, "best_theta", "best_omega", "snapshots")
PER_STUDENT = ("best", "best_epoch", "ended", "active")
SMALL_BYTES = 64 * 2**20  # copied in a few hundredths of a second, and nobody's memory is short of it


@dataclass(frozen=True)
class Patch:
    """What a step has changed of a table but not yet written there: the new values of `rows` [U] of parts of a state,
    by `(part, name)`, [A, U, ...] each. Writing them twice changes nothing, so that a step may be interrupted anywhere.
    `own` [U] are the places that are written where a row comes more than once (`window`).
    """

    rows: Tensor
    values: Mapping[tuple[str, str], Tensor]
    own: Tensor | None = None


@dataclass(frozen=True)
class State:
    """Parameters theta and omega with their optimizer moments, and the best ones so far.

    R students, of which A still train: `active` [A] int64 are their places, and theta, omega, moments and `totals` are
    [A, ...]; all that is best is [R, ...]. `epoch` and `step` name the next batch; `best` [R] float64 is the best
    metric on valid (signed so that higher is better), `best_epoch` [R] the epoch it came from and `ended` [R] the one
    that was a student's last (-1: none yet). `totals` sums the measures of the epoch's steps; `history` has one entry
    per finished epoch, with a list of R values per measure, null for students that train no more. `snapshots` are
    theta and omega of earlier steps, named `STEP/theta/NAME`, where somebody asks for them. A `patch` is to be written
    before theta and moments are read: `settled`.
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
    ended: Tensor
    active: Tensor
    epoch: int = 0
    step: int = 0
    history: tuple[Epoch, ...] = field(default=())
    snapshots: Tensors = field(default_factory=dict)
    patch: Patch | None = None

    @property
    def num_students(self) -> int:
        return int(self.best.shape[0])

    @property
    def over(self) -> bool:
        """True once every student has ended."""
        return bool((self.ended >= 0).all())

    def settled(self) -> State:
        """The same state with its patch written, in place, into tables that no other state is to be read from."""
        if self.patch is None:
            return self
        for (part, name), values in self.patch.values.items():
            write(getattr(self, part)[name], self.patch.rows, values, self.patch.own)
        return replace(self, patch=None)

    def flat(self) -> Tensors:
        """One dict of tensors for a safetensors file."""
        settled = self.settled()
        parts = {f"{part}/{name}": value for part in PARTS for name, value in getattr(settled, part).items()}
        return parts | {name: getattr(self, name) for name in PER_STUDENT}

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
        parts: dict[str, Any] = {part: {} for part in PARTS}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            if name:
                parts[part][name] = value.to(device)
        students: dict[str, Any] = {name: tensors[name].to(device) for name in PER_STUDENT}
        return cls(**parts, **students, epoch=epoch, step=step, history=history)

    def with_best(self, value: Tensor, patience: int) -> State:
        """Keep theta and omega of every student whose `value` [A] beats its best; one that has gone `patience` epochs,
        one at least, without a new best has ended and keeps what it has."""
        better = (value > self.best[self.active]) & (self.ended[self.active] < 0)
        places = self.active[better]
        best_epoch = self.best_epoch.index_fill(0, places, self.epoch)
        tired = (self.ended < 0) & (self.epoch - best_epoch >= max(patience, 1))
        return replace(
            self,
            best=self.best.index_copy(0, places, value[better]),
            best_epoch=best_epoch,
            ended=torch.where(tired, self.epoch, self.ended),
            best_theta={n: old.index_copy(0, places, self.theta[n][better]) for n, old in self.best_theta.items()},
            best_omega={n: old.index_copy(0, places, self.omega[n][better]) for n, old in self.best_omega.items()},
        )

    def with_snapshot(self) -> State:
        """Remember theta and omega as they are at this step."""
        now = self.settled()
        parts = {f"{part}/{name}": value for part in ("theta", "omega") for name, value in getattr(now, part).items()}
        copies = {f"{self.step:09d}/{name}": value.clone() for name, value in parts.items()}
        return replace(now, snapshots=self.snapshots | copies)

    def without(self, students: Sequence[int]) -> State:
        """These students end with this epoch, if they have not before."""
        ended = self.ended.clone()
        for student in students:
            ended[student] = self.epoch if ended[student] < 0 else ended[student]
        return replace(self, ended=ended)

    def compacted(self) -> State:
        """Without the ended students' part of what trains; as it is while nobody has ended, and when nobody is left.
        Where the others' part is large, which is copied, not before half of them have ended."""
        places = (self.ended[self.active] < 0).nonzero().squeeze(-1)
        left, before = len(places), len(self.active)
        if left in (0, before) or (2 * left > before and not self._small(left)):
            return self
        parts: dict[str, Any] = {part: {n: v[places] for n, v in getattr(self, part).items()} for part in ACTIVE}
        return replace(self, active=self.active[places], **parts)

    def _small(self, students: int) -> bool:
        """Whether what trains of so many students is copied at no cost."""
        one: int = sum(v[0].nbytes for part in ACTIVE for v in getattr(self, part).values())
        return students * one <= SMALL_BYTES
