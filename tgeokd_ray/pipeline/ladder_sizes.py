"""The sizes of a ladder: shares of the teacher's parameters or numbers of them, and the student of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tgeokd_ray.config.job import Job
from tgeokd_ray.config.training import Model
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.models.build import IMAGES
from tgeokd_ray.models.sizing import Inputs, largest, parameters_of


@dataclass(frozen=True)
class Size:
    """A rung as it was asked for: at most this share of the teacher's parameters, or at most so many of them."""

    text: str
    value: Fraction

    @property
    def is_share(self) -> bool:
        return self.value < 1

    def most(self, teacher: int | None) -> int:
        """The number of parameters that a student of this size may have. ConfigError for a share of a teacher whose
        size nobody knows."""
        if not self.is_share:
            return int(self.value)
        if teacher is None:
            problem = Problem(f"--sizes: {self.text} is a share of the teacher's parameters, and its size is not known")
            raise ConfigError([problem], fix="name numbers of parameters, for instance 40000,10000,2500")
        return int(self.value * teacher)

    @property
    def label(self) -> str:
        """As a part of the names of artifacts."""
        return self.text.replace("/", "of").replace(".", "p")


def read_sizes(text: str) -> tuple[Size, ...]:
    """`1/4,1/10,0.01,5000` as sizes, in this order. ConfigError for other text and for one that stands there twice."""
    found: list[Size] = []
    problems = []
    for part in text.split(","):
        size = _size(part.strip())
        if size is None:
            problems.append(Problem(f"--sizes: {part!r} is no size", expected="1/10, 0.1, or a whole number"))
        elif size.value in {one.value for one in found}:
            problems.append(Problem(f"--sizes: {part!r} stands there twice"))
        else:
            found.append(size)
    if problems:
        raise ConfigError(problems, fix="shares of the teacher's parameters below 1, or numbers of parameters")
    return tuple(found)


def _size(text: str) -> Size | None:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    whole = value.denominator == 1
    return Size(text, value) if value > 0 and (whole or value < 1) else None


def students(job: Job, sizes: Sequence[Size], inputs: Inputs, teacher: int | None) -> list[tuple[Size, Model | None]]:
    """The largest student of the job's kind for each size, None where even the smallest is too large.

    ConfigError for networks of images, where no size leaves a student, and as `Size.most`.
    """
    model = job.student.model
    if model.kind in IMAGES or model.members > 1:
        problem = Problem("a ladder has single networks for tables", got=f"student.model.kind {model.kind}")
        raise ConfigError([problem], fix="--set student.model.kind=mlp, wide_deep or dcnv2, of one member")
    spec = model.model_dump(exclude={"members"})
    widest = max(model.embedding, job.teacher.model.embedding)
    found = [(size, largest(spec, inputs, size.most(teacher), widest)) for size in sizes]
    if all(spec is None for _, spec in found):
        smallest = parameters_of({**spec, "embedding": 1, "hidden": (1,) * len(spec["hidden"])}, inputs)
        problem = Problem(f"the smallest {model.kind} for this table has {smallest:,} parameters")
        raise ConfigError([problem], fix="larger --sizes, or fewer ids: encoding.categorical.min_count or buckets")
    return [(size, None if spec is None else Model.model_validate(spec)) for size, spec in found]
