"""KD taken apart: how sure the teacher is of the label's class, and how it ranks the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.losses import Sources, divergence
from tgeokd_ray.objectives.options import require
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules.rule import Rule, everywhere, level_shares, other_loss_checks, require_teacher
from tgeokd_ray.objectives.settings import undefined
from tgeokd_ray.objectives.short_axis import log_softmax


@dataclass(frozen=True)
class DKD(Rule):
    """Decoupled KD in a constant mixture: tau^2 (alpha TCKD + beta NCKD) for KD (Zhao et al., CVPR 2022).

    TCKD is the KL of (class of the label, all others) from teacher to student, NCKD that of the other classes among
    themselves; KD is `TCKD + (1 - p) NCKD`, p the teacher's probability of the label, and stands where a row
    has no label. `value` is the teachers' weight, in equal parts: 1/2 is the sum with GT of the paper, halved.
    """

    value: float = 0.5
    alpha: float = 1.0
    beta: float = 8.0

    kind: ClassVar[str] = "dkd"
    loss: ClassVar[str] = "dkd"

    def __post_init__(self) -> None:
        require(self.kind, other_loss_checks(self.value, alpha=self.alpha, beta=self.beta))

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        """ConfigError for two classes, of which NCKD knows nothing, and without a teacher."""
        del seeds
        require_teacher(self.kind, num_teachers)
        why = undefined(self.kind, num_classes)
        if why is not None:
            raise ConfigError(f"rule {self.kind!r}: {why}", fix="use the rule 'constant'")
        return {}

    def weights(self, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        del omega, context
        return everywhere(level_shares(self.value, points), points)

    def distillation(self, student_logits: Tensor, sources: Sources, context: Context) -> Tensor:
        del context
        assert sources.teachers is not None
        divisor = sources.divisor
        over = divisor.unsqueeze(-1) if isinstance(divisor, Tensor) else divisor
        student = _Parts.of(student_logits / divisor, sources.labels)
        students = _Parts(*(value.unsqueeze(2) for value in student))
        teachers = sources.teachers.to(student_logits.dtype) / over
        taught = _Parts.of(teachers, sources.labels.unsqueeze(-1).expand(teachers.shape[-3:-1]))
        target = divergence(taught.target, students.target)
        others = divergence(taught.others, students.others)
        known = (sources.labels >= 0).unsqueeze(-1)
        alpha = torch.where(known, self.alpha, torch.ones_like(target))
        beta = torch.where(known, self.beta, taught.target[..., 1].exp())
        return divisor**2 * (alpha * target + beta * others)


class _Parts(NamedTuple):
    """Log-probabilities: `target` [..., 2] of the label's class and of all others together, `others` [..., C] of each
    other class among these. A row without a label is taken apart at class 0, which changes nothing in its KD."""

    target: Tensor
    others: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> _Parts:
        """Of logits [..., C] and labels [...], or what they broadcast from."""
        logs = log_softmax(logits)
        place = labels.clamp_min(0).unsqueeze(-1).expand(*logs.shape[:-1], 1)
        own = torch.zeros_like(logs, dtype=torch.bool).scatter(-1, place, True)
        others = logs.masked_fill(own, torch.finfo(logs.dtype).min / 2)  # finite: no probability, and no NaN
        rest = others.logsumexp(-1, keepdim=True)
        return cls(torch.cat([logs.gather(-1, place), rest], -1), others - rest)
