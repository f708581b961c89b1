"""How the ratio between labels and teachers is made: all rules of comparison, one interface.

N rows, C classes, M teachers, R students in the pack. A rule weighs the sources (labels, teacher 1..M) of each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.objectives.options import suggestion
from tgeokd_ray.objectives.rules.ada import ADA
from tgeokd_ray.objectives.rules.anl import ANL
from tgeokd_ray.objectives.rules.bikd import BiKD
from tgeokd_ray.objectives.rules.constant import Constant
from tgeokd_ray.objectives.rules.dist import DIST
from tgeokd_ray.objectives.rules.dkd import DKD
from tgeokd_ray.objectives.rules.frozen import Frozen
from tgeokd_ray.objectives.rules.given import Given
from tgeokd_ray.objectives.rules.labels import Labels
from tgeokd_ray.objectives.rules.mgda import MGDA
from tgeokd_ray.objectives.rules.one_step import TGeoOneStep
from tgeokd_ray.objectives.rules.rule import Rule
from tgeokd_ray.objectives.rules.rw import RW
from tgeokd_ray.objectives.rules.shape import TGeoShape
from tgeokd_ray.objectives.rules.wls import WLS

__all__ = [
    "ADA",
    "ANL",
    "DIST",
    "DKD",
    "MGDA",
    "RULES",
    "RW",
    "WLS",
    "BiKD",
    "Constant",
    "Frozen",
    "Given",
    "Labels",
    "Rule",
    "TGeoOneStep",
    "TGeoShape",
    "build_rule",
]

_CLASSES: tuple[type[Rule], ...] = (
    Labels,
    Constant,
    ANL,
    ADA,
    WLS,
    RW,
    MGDA,
    BiKD,
    DKD,
    DIST,
    Frozen,
    TGeoOneStep,
    TGeoShape,
    Given,
)
RULES: Mapping[str, type[Rule]] = {rule.kind: rule for rule in _CLASSES}


def build_rule(kind: str, **options: Any) -> Rule:
    """The rule named `kind` with these options. ConfigError, with a suggestion, for an unknown kind or option, and for
    every value that breaks its rule."""
    if kind not in RULES:
        raise ConfigError(f"unknown rule kind {kind!r}{suggestion(kind, RULES)}")
    rule = RULES[kind]
    known = [field.name for field in fields(rule)]
    unknown = [
        Problem(f"unknown option {name!r} of rule {kind!r}{suggestion(name, known)}")
        for name in options
        if name not in known
    ]
    if unknown:
        raise ConfigError(unknown)
    return rule(**options)
