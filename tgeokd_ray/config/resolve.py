"""From defaults, card, file and options to one Job; later sources win, and all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tgeokd_ray.config.job import Job
from tgeokd_ray.config.sources import Source, merged, source_of
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.card_yaml import read_yaml
from tgeokd_ray.tables.cards import Card, load_card
from tgeokd_ray.tables.validation import did_you_mean, problems_of

__all__ = ["merged", "resolve"]

FIX = "correct this and run the same command again"
QUICK: dict[str, Any] = {
    "teacher": {"training": {"epochs": 2}},
    "student": {"training": {"epochs": 3}},
    "distill": {"constants": [0.5]},
}
# Options that stand for a key deeper down.
PATHS = {
    "teacher-logits": ("teacher", "imported", "file"),
    "splits": ("logits", "splits"),
    **{key: ("teacher", "imported", key) for key in ("kind", "calibrate", "missing", "name")},
}
# The card that a root folder knows where nobody names one, and the path that it was read from.
OwnCard = Callable[[str], tuple[str, Card]]


def resolve(
    options: Mapping[str, Any],
    *,
    config: str | Source | None = None,
    settings: Iterable[str] = (),
    quick: bool = False,
    defaults: Mapping[str, Any] | None = None,
    own_card: OwnCard | None = None,
) -> tuple[Job, Card]:
    """The job and its card, with the damage of the job.

    Order, later wins: built-in defaults, `defaults` of the command, the card's `defaults` and `damage`, `config` (a
    YAML file, or what was read from one), `quick`, options that are not None, `settings` (`key.path=value`). A text as
    `student.model` is one of the card's `students`. Where nobody names a card, `own_card` of the root is taken if there
    is one. ConfigError lists every unknown key and bad value of all sources, each with its source.
    """
    above, problems = _told(options, config, settings, quick)
    # Laid under everything, so that changing one key of the teacher's model keeps the teacher's other defaults.
    below = [Source(Job().model_dump()), Source(defaults or {})]
    told = merged(*(source.values for source in [*below, *above]))
    given = any("card" in source.values for source in above)
    card = None
    if own_card is not None and not given and isinstance(told["root"], str) and not problems:
        path, card = own_card(told["root"])
        below.append(Source({"card": path} | _damage(card)))
    elif isinstance(told["card"], str):
        try:
            card = load_card(told["card"])
            below += [Source(card.defaults, "defaults", told["card"]), Source(_damage(card), file=told["card"])]
        except ConfigError as error:
            problems += error.problems
    if card is not None:
        above, unknown = _students(above, card)
        problems += unknown
    job, found = _validated([*below, *above])
    problems += found
    if job is not None and card is not None:
        wrong = source_of(("damage",), [*below, *above])
        problems += [wrong.problem(f"damage.{text}") for text in card.problems_of(job.damage)]
    if problems or job is None or card is None:
        raise ConfigError(problems, fix=FIX)
    return job, card.model_copy(update={"damage": job.damage})


def _students(sources: Sequence[Source], card: Card) -> tuple[list[Source], list[Problem]]:
    """The sources with models in place of the names of students, and the names that the card does not have."""
    found, problems = [], []
    for source in sources:
        name = source.student
        if name is not None and name not in card.students:
            expected = ", or ".join(("a model", *([f"one of {', '.join(card.students)}"] if card.students else [])))
            text = f"student.model: the card {card.name} has no student {name!r}{did_you_mean(name, card.students)}"
            problems.append(replace(source.problem(text), expected=expected))
        found.append(source.with_student(card.students.get(name, {})) if name is not None else source)
    return found, problems


def _damage(card: Card) -> dict[str, Any]:
    return {} if card.damage is None else {"damage": card.damage.model_dump(mode="json")}


def _told(
    options: Mapping[str, Any], config: str | Source | None, settings: Iterable[str], quick: bool
) -> tuple[list[Source], list[Problem]]:
    """What the user said, in order, and what of it cannot be read."""
    problems: list[Problem] = []
    sources: list[Source] = []
    if isinstance(config, Source):
        sources.append(config)
    elif config is not None:
        try:
            sources.append(Source(read_yaml(Path(config)), file=config))
        except ConfigError as error:
            problems += error.problems
    if quick:
        sources.append(Source(QUICK, "--quick"))
    given = {key: value for key, value in options.items() if value is not None}
    sources += [Source(_nested(PATHS.get(key, (key,)), value), f"--{key}") for key, value in given.items()]
    for text in settings:
        setting = _setting(text)
        if isinstance(setting, Problem):
            problems.append(setting)
        else:
            sources.append(Source(setting, "--set"))
    return sources, problems


def _validated(sources: Sequence[Source]) -> tuple[Job | None, list[Problem]]:
    try:
        return Job.model_validate(merged(*(source.values for source in sources))), []
    except ValidationError as error:
        return None, [source_of(place, sources).problem(text) for place, text in problems_of(Job, error)]


def _setting(text: str) -> dict[str, Any] | Problem:
    """`student.temperature=2` as {"student": {"temperature": 2}}; the value is read as YAML."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return Problem("--set needs key.path=value", expected="for instance distill.temperature=2", got=repr(text))
    try:
        parsed: Any = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a day that does not exist
        return Problem(f"--set {path}: the value is not YAML", got=repr(value))
    return _nested(keys, parsed)


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)
