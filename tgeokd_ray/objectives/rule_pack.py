"""The rules of a pack as one rule: students whose rules are equal are weighed together.

N rows, M teachers, R students in the pack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tgeokd_ray.objectives.losses import Sources, cross_entropy, source_losses
from tgeokd_ray.objectives.points import Context, Points, on_covered, on_labelled, on_labels_alone
from tgeokd_ray.objectives.rules import Given, Rule
from tgeokd_ray.objectives.rules.rule import KD
from tgeokd_ray.objectives.stacking import of_students


@dataclass(frozen=True)
class Group:
    """A rule, the students that it weighs by their places in the pack, and what its parameters' names begin with."""

    rule: Rule
    students: tuple[int, ...]
    prefix: str

    def own(self, omega: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The rule's parameters under its own names, all R of them."""
        return {name.removeprefix(self.prefix): v for name, v in omega.items() if name.startswith(self.prefix)}


@dataclass(frozen=True)
class RulePack:
    """One rule for each of R students. Parameters keep the axis R of the pack: a group's are zero for the others.

    With a single group, names and numbers are those of its rule.
    """

    groups: tuple[Group, ...]
    num_students: int

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> RulePack:
        """Equal rules become one group, in the order in which they first come."""
        distinct: list[Rule] = []
        for rule in rules:
            if rule not in distinct:
                distinct.append(rule)
        places = [tuple(r for r, one in enumerate(rules) if one == rule) for rule in distinct]
        prefixes = [f"{number}." if len(distinct) > 1 else "" for number in range(len(distinct))]
        return cls(tuple(map(Group, distinct, places, prefixes)), len(rules))

    @property
    def learned(self) -> bool:
        """Whether an outer step moves the parameters of any student's rule."""
        return any(group.rule.learned for group in self.groups)

    @property
    def needs(self) -> tuple[str, ...]:
        """The points that a step has to bring for any student's rule."""
        return tuple(sorted({name for group in self.groups for name in group.rule.needs}))

    @property
    def outer(self) -> bool:
        """Whether steps need outer rows: for parameters that they move, or for a virtual step."""
        return self.learned or "outer_slopes" in self.needs

    @property
    def distils(self) -> bool:
        """Whether KD is the teachers' loss of every student."""
        return all(group.rule.loss == KD for group in self.groups)

    @property
    def whole_batch(self) -> list[str]:
        """The rules whose loss compares the rows of a batch."""
        return [group.rule.kind for group in self.groups if group.rule.whole_batch]

    @property
    def annealed(self) -> bool:
        """Whether any student's rule depends on how far the run is."""
        return any(group.rule.annealed for group in self.groups)

    @property
    def labels_only(self) -> bool:
        """Whether no student listens to a teacher."""
        return all(group.rule.kind == "labels" for group in self.groups)

    def init(self, seeds: Sequence[int], num_classes: int, num_teachers: int) -> dict[str, Tensor]:
        """omega {name: [R, ...]}, one seed per student."""
        omega = {}
        for group in self.groups:
            own = group.rule.init([seeds[r] for r in group.students], num_classes, num_teachers)
            for name, value in own.items():
                whole = value.new_zeros(self.num_students, *value.shape[1:])
                whole[list(group.students)] = value
                omega[group.prefix + name] = whole
        return omega

    def mixture(self, omega: Mapping[str, Tensor], points: Points, covered: Tensor, context: Context) -> Tensor:
        """Weights [R, N, 1 + M] of every student by its own rule; where `covered` [N, M] is 0 the teacher has no part
        in the row (`on_covered`). [N, 0] says that every teacher scored all. Of a row without a label all weight is the
        teachers' (`on_labelled`), and none is there for a student that listens to labels alone."""
        kinds = list(dict.fromkeys(_treated(group.rule) for group in self.groups))
        parts, order = [], list[int]()
        for kind in kinds:
            groups = [group for group in self.groups if _treated(group.rule) == kind]
            weights = self._weights(groups, omega, points, context)
            together = weights[0] if len(weights) == 1 else torch.cat(weights)
            parts.append(_on_rows(together, kind, points, covered, context))
            order += [r for group in groups for r in group.students]
        if len(self.groups) == 1:
            return parts[0]
        return _in_place(parts, order)

    def losses(self, student_logits: Tensor, sources: Sources, context: Context) -> Tensor:
        """What each source asks of each row, [R, N, 1 + M]: the labels' cross-entropy, then each teacher's KD, or what
        a student's rule has in its place."""
        labels, teachers, temperature = sources[:3]
        if self.distils or teachers is None:
            return source_losses(student_logits, teachers, labels, temperature=temperature)
        parts, order = [], list[int]()
        for rule, students in self._by_loss().items():
            parts.append(rule.distillation(of_students(student_logits, students), sources.take(students), context))
            order += students
        hard = cross_entropy(student_logits, labels).unsqueeze(-1)
        return torch.cat([hard, _in_place(parts, order)], -1)

    def _by_loss(self) -> dict[Rule, list[int]]:
        """The students that share a loss, under a rule that has it: all whose loss is KD together."""
        plain = [r for group in self.groups if group.rule.loss == KD for r in group.students]
        shared = {group.rule: list(group.students) for group in self.groups if group.rule.loss != KD}
        first = [group.rule for group in self.groups if group.rule.loss == KD][:1]
        return shared | dict.fromkeys(first, plain)

    def take(self, students: Sequence[int]) -> RulePack:
        """The rules of these students, in this order; the names of parameters stay."""
        places = {r: place for place, r in enumerate(students)}
        kept = [
            replace(group, students=tuple(places[r] for r in group.students if r in places)) for group in self.groups
        ]
        return RulePack(tuple(group for group in kept if group.students), len(students))

    def own(self, omega: Mapping[str, Tensor], student: int) -> dict[str, Tensor]:
        """The parameters of one student's rule, as that rule names them, without the axis R."""
        (group,) = (group for group in self.groups if student in group.students)
        return {name: value[student] for name, value in group.own(omega).items()}

    def _weights(
        self, groups: Sequence[Group], omega: Mapping[str, Tensor], points: Points, context: Context
    ) -> list[Tensor]:
        """What the rule of each group says of its students' rows, [r, N, 1 + M]; stored ratios are taken at once."""
        if len(self.groups) == 1:
            return [groups[0].rule.weights(omega, points, context)]
        given = [group.rule for group in groups if isinstance(group.rule, Given)]
        stored = iter(Given.together(given, points) if given else ())
        return [
            next(stored).expand(len(group.students), -1, -1)
            if isinstance(group.rule, Given)
            else self._own_weights(group, omega, points, context)
            for group in groups
        ]

    def _own_weights(self, group: Group, omega: Mapping[str, Tensor], points: Points, context: Context) -> Tensor:
        own = {name: of_students(value, group.students) for name, value in group.own(omega).items()}
        return group.rule.weights(own, points.take(group.students), context)


class Treated(NamedTuple):
    """What decides how a rule's weights meet rows that lack a label or a teacher."""

    labels_alone: bool
    additive: bool


def _treated(rule: Rule) -> Treated:
    return Treated(rule.kind == "labels", rule.additive)


def _in_place(parts: Sequence[Tensor], order: Sequence[int]) -> Tensor:
    """Values of the students in `order` as those of the pack in its own."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return of_students(torch.cat(list(parts)), back)


def _on_rows(weights: Tensor, kind: Treated, points: Points, covered: Tensor, context: Context) -> Tensor:
    if not points.num_teachers:
        return weights
    if kind.labels_alone:
        return on_labels_alone(weights, points, context)
    weights = on_covered(weights, covered, additive=kind.additive) if covered.shape[1] else weights
    return on_labelled(weights, points.labelled, covered)
