"""Losses per row, for any leading axes; nothing is averaged here.

N rows, C classes, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.objectives.short_axis import log_softmax, total
from tgeokd_ray.objectives.stacking import of_students


class Sources(NamedTuple):
    """What the losses of a batch are: `labels` [N], -1 for none; `teachers` [N, M, C] logits or None; `temperature`,
    one or [R]. For losses that compare rows: their weights `row_weights` [N], of any sum, and `covered` [N, M], 0 where
    a teacher did not score a row, or [N, 0] where all did."""

    labels: Tensor
    teachers: Tensor | None
    temperature: float | Tensor
    row_weights: Tensor | None = None
    covered: Tensor | None = None

    def take(self, students: Sequence[int]) -> Sources:
        """The sources of these students' losses."""
        each = isinstance(self.temperature, Tensor)
        return self._replace(temperature=of_students(self.temperature, students)) if each else self  # type: ignore[arg-type]

    @property
    def divisor(self) -> float | Tensor:
        """The temperature as it divides logits [R, N, C]."""
        return self.temperature.reshape(-1, 1, 1) if isinstance(self.temperature, Tensor) else self.temperature


def cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """`-log softmax(student_logits)[label]` in nats: logits [..., N, C] and labels [N] int64 to [..., N].

    The loss GT of TGeo-KD (Hu et al., ICLR 2024, eq. 2). Zero in the limit of a student that is certain of the label,
    `log C` for one that is indifferent. Zero, with zero gradient, for a row without a label (-1).
    """
    return _at_label(log_softmax(student_logits), labels)


def _at_label(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    index = labels.clamp_min(0).unsqueeze(-1).expand(*log_probabilities.shape[:-1], 1)
    return torch.where(labels >= 0, -log_probabilities.gather(-1, index).squeeze(-1), 0.0)


def soft_cross_entropy(student_logits: Tensor, targets: Tensor) -> Tensor:
    """`-sum_c targets_c log softmax(student_logits)_c` in nats: logits [..., N, C], targets [N, C] to [..., N].

    The cross-entropy to labels that are distributions, such as the denoised ones of a channel model. That of a one-hot
    target is `cross_entropy`; least, at the entropy of the target, for a student that agrees with it.
    """
    return -total(targets.to(student_logits.dtype) * log_softmax(student_logits))


def distillation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float | Tensor) -> Tensor:
    """`temperature**2 * KL(teacher || student)` of the softened distributions, in nats, shape [..., N].

    The loss KD of TGeo-KD (Hu et al., ICLR 2024, eq. 1). The square keeps gradients of one order at every temperature
    (Hinton et al., 2015, section 2.1). Zero if and only if the softened distributions agree. A tensor temperature
    broadcasts against [..., N] and is trusted to be positive, because looking would wait for the device. ValueError
    if a float temperature is <= 0.
    """
    if isinstance(temperature, Tensor):
        divisor: float | Tensor = temperature.unsqueeze(-1)
    elif temperature > 0:
        divisor = temperature
    else:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    teacher = log_softmax(teacher_logits / divisor)
    student = log_softmax(student_logits / divisor)
    return temperature**2 * divergence(teacher, student)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """The divergence KL(teacher || student) in nats of log-probabilities [..., C], shape [...].

    Zero if and only if both agree.
    """
    return total(teacher.exp() * (teacher - student))


def source_losses(
    student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, *, temperature: float | Tensor
) -> Tensor:
    """What each source asks of each row, [R, N, 1 + M]: the labels' cross-entropy, then each teacher's distillation.

    Student logits are [R, N, C], teacher logits [N, M, C] (None for M = 0), labels [N] int64, -1 for none; the
    temperature is one number, for which the teachers' distributions are taken once, or a tensor [R], one per student.
    ValueError if a float temperature is <= 0.
    """
    log_probabilities = log_softmax(student_logits)
    labels_loss = _at_label(log_probabilities, labels).unsqueeze(-1)
    if teacher_logits is None:
        return labels_loss
    if isinstance(temperature, Tensor):
        temperature = temperature.reshape(-1, 1, 1)
    elif temperature == 1:
        teachers_loss = divergence(log_softmax(teacher_logits), log_probabilities.unsqueeze(-2))
        return torch.cat([labels_loss, teachers_loss], -1)
    teachers_loss = distillation(student_logits.unsqueeze(-2), teacher_logits, temperature=temperature)
    return torch.cat([labels_loss, teachers_loss], -1)
