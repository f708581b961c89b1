"""From defaults, card, file and options to one Job; later sources win, and all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.card_yaml import read_yaml
from tgeokd_ray.tables.cards import Card, load_card
from tgeokd_ray.tables.validation import validated

LANES = 12
QUICK: dict[str, Any] = {
    "teacher": {"training": {"epochs": 2}},
    "student": {"training": {"epochs": 3}},
    "distill": {"constants": [0.5]},
    "intervals": 0,
}


def resolve(
    options: Mapping[str, Any], *, config: str | None = None, settings: Iterable[str] = (), quick: bool = False
) -> tuple[Job, Card]:
    """The job and its card.

    Order, later wins: built-in defaults, the card's `defaults`, `config` (a YAML file), `quick`, options that are
    not None, `settings` (`key.path=value`). ConfigError lists every unknown key and bad value of a source at once.
    """
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    file = read_yaml(Path(config)) if config else {}
    changes = [_setting(text) for text in settings]
    # Laid under everything, so that changing one key of the teacher's model keeps the teacher's other defaults.
    defaults = Job().model_dump()
    card = load_card(str(merged(defaults, file, given, *changes)["card"]))
    told = merged(defaults, card.defaults, file, QUICK if quick else {}, given, *changes)
    job = validated(Job, told, config or "the job")
    problems = _plan_problems(job)
    if problems:
        raise ConfigError(problems, fix="correct the options and run the same command again")
    return job, card


def _plan_problems(job: Job) -> list[Problem]:
    if job.workers >= 1 and LANES % job.workers == 0:
        return []
    allowed = ", ".join(str(n) for n in range(1, LANES + 1) if LANES % n == 0)
    return [Problem("workers must divide the 12 lanes of a batch", expected=f"one of {allowed}", got=str(job.workers))]


def merged(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts laid over one another; a list or a number replaces what was there."""
    result: dict[str, Any] = {}
    for source in sources:
        for key, value in source.items():
            old = result.get(key)
            below = (old,) if isinstance(old, dict) else ()
            result[key] = merged(*below, value) if isinstance(value, Mapping) else value
    return result


def _setting(text: str) -> dict[str, Any]:
    """`student.temperature=2` as {"student": {"temperature": 2}}; the value is read as YAML."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError([Problem("--set needs key.path=value", got=repr(text))], fix="--set distill.temperature=2")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError([Problem(f"--set {path}: the value is not YAML", got=repr(value))]) from None
    for key in reversed(keys):
        parsed = {key: parsed}
    return dict(parsed)
