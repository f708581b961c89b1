"""A study as a YAML file: which rules are compared on which tables, checked whole before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tgeokd_ray.config.training import Count
from tgeokd_ray.tables.card_yaml import read_yaml
from tgeokd_ray.tables.validation import Strict, validated

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class StudyFile(Strict):
    """The options of jobs/benchmark.py by their names: what is None there is taken from here, else from the defaults.

    `data` are the raw files of real tables by the card's name, `set` options of the job of every cell.
    """

    name: str | None = None
    datasets: Names | None = None
    rules: Names | None = None
    seeds: Count | None = None
    grid: str | None = None
    data: dict[str, Names] = Field(default_factory=dict)
    set: tuple[str, ...] = ()


def read_study_file(path: str | Path) -> StudyFile:
    """The study in the file. ConfigError with everything that is wrong with it."""
    return validated(StudyFile, read_yaml(Path(path)), str(path))
