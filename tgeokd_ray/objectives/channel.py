"""How given labels come about, row by row: a channel model that tells wrong labels without a single trusted one.

N rows, C classes, F folds, K row features; S a student's out-of-fold probabilities, T the teacher's, y the label. A
credible teacher says what the class is and the label is noisy; else the label is what the student learned from others:
`P(y) = pi ((1 - rho) T(y) + rho / C) + (1 - pi) S(y)`. Wrong labels must nowhere be the majority, T must be calibrated,
and the teacher must not have learned from the same wrong labels: then rho is 0, no gain and no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgeokd_ray.objectives.channel_nets import LEAST_MIXTURE, ChannelNets, channel_features
from tgeokd_ray.objectives.points import row_shares

LEAST_STUDENT = 1e-4  # probability of a label by S, in the mixture
SUM_TOLERANCE = 1e-3
LEAST_CREDIBILITY = 0.05  # and one less it, in an offset


@dataclass(frozen=True)
class Channel:
    """A fitted channel, every value from the net that did not learn from the row's label.

    `credibility` pi and `noise` rho in (0, .9), both [N]; `teacher_part` r [N], the posterior of the teacher's term;
    `targets` Q [N, C], the denoised label, and `hard_targets`, with r > .5 in place of r. The three held-out losses are
    mean -log P(y), in nats: where the mixture is no better than both, the channel has nothing to say.
    """

    credibility: Tensor
    noise: Tensor
    teacher_part: Tensor
    targets: Tensor
    hard_targets: Tensor
    mixture_nll: float
    student_nll: float
    teacher_nll: float

    @property
    def offset(self) -> Tensor:
        """`Points.offset` [N]: the logit of the credibility, kept in [.05, .95]."""
        return self.credibility.clamp(LEAST_CREDIBILITY, 1 - LEAST_CREDIBILITY).logit()


def fit_channel(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    folds: Tensor,
    *,
    rows: Tensor | None = None,
    row_weights: Tensor | None = None,
    seed: int = 0,
) -> Channel:
    """The channel of S, T [N, C], labels [N] and folds [N], cross-fitted: a net per fold, which learns from the others.

    S must be out-of-fold by the same folds; of several teachers T is the mean. `rows` [N, K] are standardised features,
    cut at 3. A net sees S, T, their summaries and the row, never the label; how many steps is told by held-out labels.
    ValueError for fewer than two folds, a fold without rows, shapes that differ, a label that is no class, and values
    that are no distribution or not finite.
    """
    _check(student, teacher, labels, folds, rows)
    weights = torch.ones_like(student[:, 0]) if row_weights is None else row_weights.to(student.dtype)
    num_folds = int(folds.max()) + 1
    hidden_from = torch.arange(num_folds, device=folds.device).unsqueeze(-1) == folds
    nets = ChannelNets(
        features=channel_features(student, teacher, rows, weights),
        student=_at(student, labels).clamp_min(LEAST_STUDENT),
        teacher=_at(teacher, labels),
        num_classes=student.shape[-1],
        shares=torch.stack([row_shares(weights * ~hidden, student.dtype) for hidden in hidden_from]),
    )
    shares = row_shares(weights, student.dtype)
    credibility, noise, mixture_nll = nets.fit(folds, shares, seed)
    part, posterior = posteriors(student, teacher, labels, credibility, noise)
    given = _one_hot(labels, posterior)
    soft, hard = (which.unsqueeze(-1) for which in (part, (part > 0.5).to(part.dtype)))
    return Channel(
        credibility=credibility,
        noise=noise,
        teacher_part=part,
        targets=soft * posterior + (1 - soft) * given,
        hard_targets=hard * posterior + (1 - hard) * given,
        mixture_nll=mixture_nll,
        student_nll=_nll(_at(student, labels), shares),
        teacher_nll=_nll(_at(teacher, labels), shares),
    )


def posteriors(
    student: Tensor, teacher: Tensor, labels: Tensor, credibility: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """What a label says under the channel: the teacher's part r [N], and the class [N, C] where that part is 1.

    `r = pi ((1 - rho) T(y) + rho / C) / P(y)`, and the class c in proportion to `T(c) ((1 - rho) 1(c = y) + rho / C)`:
    the label itself where rho is 0, T where it is 1. Zero for a row whose label T holds impossible, with rho 0: r is 0.
    """
    uniform = noise / student.shape[-1]
    by_teacher = credibility * ((1 - noise) * _at(teacher, labels) + uniform)
    part = by_teacher / (by_teacher + (1 - credibility) * _at(student, labels).clamp_min(LEAST_STUDENT))
    kept = (1 - noise).unsqueeze(-1) * _one_hot(labels, teacher) + uniform.unsqueeze(-1)
    joint = teacher * kept
    return part, joint / joint.sum(-1, keepdim=True).clamp_min(torch.finfo(joint.dtype).tiny)


def _check(student: Tensor, teacher: Tensor, labels: Tensor, folds: Tensor, rows: Tensor | None) -> None:
    num_rows, num_classes = student.shape
    lengths = {len(value) for value in (teacher, labels, folds, *([] if rows is None else [rows]))}
    if teacher.shape != student.shape or lengths != {num_rows}:
        raise ValueError(f"teacher, labels, folds and rows must match the student's {num_rows} rows of {num_classes}")
    if num_rows == 0 or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must be classes 0..{num_classes - 1} of at least one row")
    whole = [bool(((p >= 0).all(-1) & ((p.sum(-1) - 1).abs() < SUM_TOLERANCE)).all()) for p in (student, teacher)]
    if not all(whole) or not (rows is None or bool(rows.isfinite().all())):
        raise ValueError("student and teacher must be distributions over classes, and rows finite numbers")
    sizes = torch.bincount(folds)
    if len(sizes) < 2 or bool((sizes == 0).any()):
        raise ValueError(f"folds must be 0..F-1 with F >= 2 and no fold empty, got sizes {sizes.tolist()}")


def _nll(probability: Tensor, shares: Tensor) -> float:
    return -float((probability.clamp_min(LEAST_MIXTURE).log() * shares).sum())


def _at(distribution: Tensor, labels: Tensor) -> Tensor:
    return distribution.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def _one_hot(labels: Tensor, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, like.shape[-1]).to(like.dtype)
