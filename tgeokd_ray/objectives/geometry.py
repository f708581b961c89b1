"""What the fusion network sees of a row: the geometry of student S, teacher T, class mean Tbar and label G.

N rows, C classes, M teachers, R students in the pack. Distributions are at temperature 1 (Hu et al., ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tgeokd_ray.objectives.distributions import agreement, disagreement, entropy, margin
from tgeokd_ray.objectives.points import Context, Points, batch_mean
from tgeokd_ray.objectives.short_axis import softmax

SMALLEST_PROBABILITY = 1e-6  # of a label, before its logarithm
SPREAD_EPS = 1e-3


@dataclass(frozen=True)
class FeatureSet:
    """A named input of the fusion network: `dimension(C, M)` numbers a row, computed detached as [R, N, dimension].

    `standardised` says whether a rule z-scores them over the batch first.
    """

    dimension: Callable[[int, int], int]
    function: Callable[[Points], Tensor]
    standardised: bool

    @torch.no_grad()
    def compute(self, points: Points) -> Tensor:
        """Features [R, N, dimension] in the type of the student's logits, without a graph."""
        return self.function(points)


def standardise(features: Tensor, points: Points, context: Context) -> Tensor:
    """`(features - mean) / (std + 1e-3)` per student and column, both weighted and over the GLOBAL batch, [R, N, K].

    Both are of the rows that have a label. The variance is the mean squared distance from the global mean. Detached.
    Zeros, not NaN, for an empty batch.
    """
    with torch.no_grad():
        mean = batch_mean(features, points, context).unsqueeze(-2)
        spread = batch_mean((features - mean).square(), points, context).sqrt().unsqueeze(-2)
        return (features - mean) / (spread + SPREAD_EPS)


def _corners(points: Points) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """S, T, Tbar and G, each [R, N, M, C]."""
    student = softmax(points.student_logits).unsqueeze(-2)
    teacher = softmax(points.teacher_logits.to(student.dtype))
    means = points.class_means.to(student.dtype)[:, points.classes].transpose(0, 1)
    classes = torch.arange(student.shape[-1], device=points.labels.device)
    label = (points.labels.unsqueeze(-1) == classes).to(student.dtype).unsqueeze(-2)
    shape = (*points.student_logits.shape[:-1], points.num_teachers, student.shape[-1])
    return student.expand(shape), teacher.expand(shape), means.expand(shape), label.expand(shape)


def _vertices(points: Points) -> Tensor:
    return torch.cat(_corners(points), -1).flatten(-2)


def _edge_list(student: Tensor, teacher: Tensor, means: Tensor, label: Tensor) -> list[Tensor]:
    return [label - student, label - teacher, teacher - student, label - means, means - student]


def _edges(points: Points) -> Tensor:
    return torch.cat(_edge_list(*_corners(points)), -1).flatten(-2)


def _paper(points: Points) -> Tensor:
    """Per teacher [G-S, G-T, T-S, G-Tbar, Tbar-S, S, T, Tbar, G] (eq. 10)."""
    corners = _corners(points)
    return torch.cat([*_edge_list(*corners), *corners], -1).flatten(-2)


def _label_aligned(points: Points) -> Tensor:
    """Summaries that do not grow with C: four of S, then eight columns of M, one per teacher.

    S_y, log S_y, entropy of S, largest other S; T_y, log T_y, entropy of T, largest other T, Tbar_y, |S - T|,
    |T - Tbar|, |S - Tbar|.
    """
    student = softmax(points.student_logits)
    teacher = softmax(points.teacher_logits.to(student.dtype))
    means = points.class_means.to(student.dtype)[:, points.classes].transpose(0, 1)
    expanded = student.unsqueeze(-2)
    per_teacher = [
        *_distribution_summary(teacher, points.classes.unsqueeze(-1)),
        _at(means, points.classes.unsqueeze(-1)),
        torch.linalg.vector_norm(expanded - teacher, dim=-1),
        torch.linalg.vector_norm(teacher - means, dim=-1),
        torch.linalg.vector_norm(expanded - means, dim=-1),
    ]
    shape = (*student.shape[:-1], points.num_teachers)
    own = torch.stack(_distribution_summary(student, points.classes), -1)
    return torch.cat([own, *[column.expand(shape) for column in per_teacher]], -1)


def _without_means(points: Points) -> Tensor:
    """`_label_aligned` without what needs Tbar: four of S, then five columns of M."""
    whole, num_teachers = _label_aligned(points), points.num_teachers
    of_teachers = whole[..., 4:].reshape(*whole.shape[:-1], 8, num_teachers)
    return torch.cat([whole[..., :4], of_teachers[..., :4, :].flatten(-2), of_teachers[..., 5, :]], -1)


def _label_free(points: Points) -> Tensor:
    """What can be said without the row's label, and does not grow with C: three of S, then seven columns of M.

    Entropy, largest and margin of S; the same of T, overlap of S and T, |S - T|, log S of T's class, log T of S's.
    """
    student = softmax(points.student_logits)
    teacher = softmax(points.teacher_logits.to(student.dtype))
    shape = (*student.shape[:-1], *teacher.shape[1:])
    own, other = student.unsqueeze(-2).expand(shape), teacher.expand(shape)
    of_student = torch.stack([entropy(student), student.amax(-1), margin(student)], -1)
    return torch.cat([of_student, entropy(other), other.amax(-1), margin(other), *agreement(own, other)], -1)


def _at(distribution: Tensor, labels: Tensor) -> Tensor:
    """The probability of the label; labels broadcast against [..., C] without its last axis."""
    return distribution.gather(-1, labels.expand(distribution.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def _distribution_summary(distribution: Tensor, labels: Tensor) -> list[Tensor]:
    """Probability of the label, its logarithm, entropy, and the largest probability of another class."""
    index = labels.expand(distribution.shape[:-1]).unsqueeze(-1)
    own = _at(distribution, labels).clamp_min(SMALLEST_PROBABILITY)
    other = distribution.scatter(-1, index, -1.0).amax(-1)
    return [own, own.log(), entropy(distribution), other]


FEATURES: Mapping[str, FeatureSet] = {
    "paper": FeatureSet(lambda classes, teachers: 9 * classes * teachers, _paper, standardised=False),
    "vertices": FeatureSet(lambda classes, teachers: 4 * classes * teachers, _vertices, standardised=False),
    "edges": FeatureSet(lambda classes, teachers: 5 * classes * teachers, _edges, standardised=False),
    "label_aligned": FeatureSet(lambda _, teachers: 4 + 8 * teachers, _label_aligned, standardised=True),
    "without_means": FeatureSet(lambda _, teachers: 4 + 5 * teachers, _without_means, standardised=True),
    "label_free": FeatureSet(lambda _, teachers: 3 + 7 * teachers, _label_free, standardised=True),
}


def feature_set(name: str, *, disagreement: bool = False) -> FeatureSet:
    """The set of FEATURES named `name`; with `disagreement` two more numbers a row, how far its M teachers are apart.

    They are 0 for one teacher. KeyError for an unknown name.
    """
    base = FEATURES[name]
    return _with_disagreement(base) if disagreement else base


def _with_disagreement(base: FeatureSet) -> FeatureSet:
    def function(points: Points) -> Tensor:
        features = base.function(points)
        apart = disagreement(softmax(points.teacher_logits.to(features.dtype)))
        return torch.cat([features, apart.expand(*features.shape[:-1], 2)], -1)

    return FeatureSet(lambda classes, teachers: base.dimension(classes, teachers) + 2, function, base.standardised)
