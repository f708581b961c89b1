"""Runs that are trained side by side: students of one shape on the same batches.

R students in the pack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tgeokd_ray.objectives.settings import LEARNED_RULES, NEEDS, OUTER_RULES
from tgeokd_ray.training.spec import Fusion, RunSpec

MOST_STUDENTS = 32


@dataclass(frozen=True)
class Student:
    """One student of a pack: what it has for itself."""

    seed: int
    rule: Mapping[str, Any]
    temperature: float
    learning_rate: float


@dataclass(frozen=True)
class Pack:
    """Specs that agree in all but seeds, rules, temperatures and learning rates; a single run is a pack of one spec.

    A spec brings one student for each of its seeds or of its candidates, in the order of the specs.
    """

    specs: tuple[RunSpec, ...]

    @property
    def shared(self) -> RunSpec:
        """What all agree in."""
        return self.specs[0]

    @property
    def name(self) -> str:
        more = len(self.specs) - 1
        return f"{self.shared.name}-and-{more}-more" if more else self.shared.name

    @property
    def students(self) -> tuple[Student, ...]:
        return tuple(student for spec in self.specs for student in _students(spec))

    def places(self) -> list[tuple[RunSpec, range]]:
        """Every spec with the places of its students in the pack."""
        found, first = [], 0
        for spec in self.specs:
            found.append((spec, range(first, first + len(_students(spec)))))
            first = found[-1][1].stop
        return found


def packed(specs: Sequence[RunSpec]) -> list[Pack]:
    """The specs in packs of 32 students at most, each with those that agree with its first one, in order.

    An ensemble, whose members are measured as one model, is a pack of its own, as is what must be trained alone.
    """
    packs: list[list[RunSpec]] = []
    for spec in specs:
        size = len(_students(spec))
        for pack in packs:
            room = MOST_STUDENTS - sum(len(_students(one)) for one in pack)
            if (
                not (spec.ensemble or spec.alone or pack[0].alone)
                and _agreed(pack[0]) == _agreed(spec)
                and size <= room
            ):
                pack.append(spec)
                break
        else:
            packs.append([spec])
    return [Pack(tuple(pack)) for pack in packs]


def _students(spec: RunSpec) -> tuple[Student, ...]:
    rate = spec.optimizer.learning_rate
    if spec.choice is not None:
        (seed,) = spec.model_seeds
        return tuple(Student(seed, one.rule, one.temperature, rate) for one in spec.choice.candidates)
    return tuple(Student(seed, spec.rule, spec.temperature, rate) for seed in spec.model_seeds)


def _agreed(spec: RunSpec) -> RunSpec:
    """The spec without what the students of a pack may have for themselves."""
    kind = spec.rule["kind"]
    return replace(
        spec,
        name="",
        artifact="",
        rule={"learned": kind in LEARNED_RULES, "needs": NEEDS.get(kind)},
        model_seeds=(),
        choice=None,
        temperature=1.0,
        optimizer=replace(spec.optimizer, learning_rate=0.0),
        fusion=spec.fusion if kind in OUTER_RULES else Fusion(),
    )


def dropped(pack: Pack, best: Sequence[float], ended: Sequence[int], epoch: int) -> list[int]:
    """The students that go no further after `epoch`, by successive halving: those of a choice that one of its rounds
    ends with, worst first to go by their `best` so far."""
    out: list[int] = []
    for spec, students in pack.places():
        for share, kept in spec.choice.rounds if spec.choice is not None else ():
            if epoch + 1 == math.ceil(share * spec.epochs):
                ranked = sorted(students, key=lambda r: -best[r])
                out += [r for r in ranked[kept:] if ended[r] < 0]
    return out
