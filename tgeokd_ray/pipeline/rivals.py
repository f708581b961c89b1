"""The rules of comparison: which there are, where one says nothing, and what its students have otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.job import Distill, Job
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.objectives.settings import NEEDS, OTHER_LOSSES, OUTER_RULES, undefined
from tgeokd_ray.training.spec import Fusion

RIVALS = ("ada", "wls", "frozen", "anl", "rw", "mgda", "bikd", "dkd", "dist")


def refused(rules: Sequence[str], num_classes: int) -> dict[str, str]:
    """Why each of these rules is undefined for so many classes; only those that are."""
    why = {rule: undefined(rule, num_classes) for rule in rules}
    return {rule: reason for rule, reason in why.items() if reason is not None}


def check_rivals(job: Job, table: Artifact) -> None:
    """ConfigError, before anything is trained, for rivals that this table or the schedule of students rules out."""
    rivals = job.distill.rivals
    found = refused(rivals, len(table.manifest.schema["classes"])) if rivals else {}
    problems = [Problem(f"distill.rivals: {rule} on {table.label}: {reason}") for rule, reason in found.items()]
    if "dist" in rivals and job.student.training.micro_rows is not None:
        problems.append(
            Problem("distill.rivals: dist compares the rows of a batch, and student.training.micro_rows takes it apart")
        )
    if problems:
        raise ConfigError(problems, fix="leave the rule out of distill.rivals")


def runs_of(rule: str, distill: Distill, fusion: Fusion) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name and rule of each student of a rival, and what its spec has otherwise than a constant's.

    A rule with another loss has a student for each constant of the job. One that learns from outer rows takes them for
    that, and trains on train rows alone: all see the same rows. It looks one step ahead; where a virtual step weighs
    the rows, an outer batch comes with every step.
    """
    if rule in OTHER_LOSSES:
        return [(f"{rule}-{value:g}", {"kind": rule, "value": value}, {}) for value in distill.constants]
    if rule not in OUTER_RULES:
        return [(rule, {"kind": rule}, {})]
    ahead = replace(fusion, look_ahead=1)
    ahead = replace(ahead, every=1, warm_up=0.0) if rule in NEEDS else ahead
    return [(rule, {"kind": rule}, {"splits": ("train",), "fusion": ahead})]
