"""Where a value of a job came from, so that what is wrong with it is told of the place where it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tgeokd_ray.errors import Problem

POWER = re.compile(r"[-+]?\d+[eE][-+]?\d+")  # a number without a point, which YAML 1.1 reads as text


@dataclass(frozen=True)
class Source:
    """Part of a job's configuration, and where the user wrote it: in a `file`, or elsewhere under a `name`."""

    values: Mapping[str, Any]
    name: str = ""
    file: str | None = None

    def problem(self, text: str) -> Problem:
        """What is wrong with a value of this source."""
        return Problem(f"{self.name}: {text}" if self.name else text, file=self.file)

    def sets(self, place: Sequence[int | str]) -> bool:
        """Whether the value at this path, or one below it, is from here unless a later source changed it."""
        value: Any = self.values
        for part in place:
            if not isinstance(value, Mapping):
                return True  # a list or a number, that stands for all below it
            if part not in value:
                return False
            value = value[part]
        return True

    @property
    def student(self) -> str | None:
        """The name that stands for the student's model, if one does."""
        student = self.values.get("student")
        model = student.get("model") if isinstance(student, Mapping) else None
        return model if isinstance(model, str) else None

    def with_student(self, model: Mapping[str, Any]) -> Source:
        """The same with another model of the student."""
        return replace(self, values={**self.values, "student": {**self.values["student"], "model": model}})


def source_of(place: Sequence[int | str], sources: Sequence[Source]) -> Source:
    """The last source that sets the value at this path; later sources win. The first where none does."""
    return next((source for source in reversed(sources) if source.sets(place)), sources[0])


def merged(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts laid over one another; a list or a number replaces what was there."""
    result: dict[str, Any] = {}
    for source in sources:
        for key, value in source.items():
            old = result.get(key)
            below = (old,) if isinstance(old, dict) else ()
            result[key] = merged(*below, value) if isinstance(value, Mapping) else value
    return result


def with_numbers(told: Any) -> Any:
    """Plain data as YAML reads it, with 1e-3 as the number that it means."""
    if isinstance(told, list):
        return [with_numbers(one) for one in told]
    if isinstance(told, dict):
        return {key: with_numbers(one) for key, one in told.items()}
    return float(told) if isinstance(told, str) and POWER.fullmatch(told) else told
