"""From a plain specification to a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.models.ensemble import Ensemble
from tgeokd_ray.models.network import Shape
from tgeokd_ray.models.options import is_count, read_options, unknown
from tgeokd_ray.models.tabular import MLP, DCNv2, WideDeep

KINDS: Mapping[str, type[MLP | WideDeep | DCNv2]] = {"mlp": MLP, "wide_deep": WideDeep, "dcnv2": DCNv2}
ENSEMBLE = "ensemble"


def build(
    spec: Mapping[str, Any],
    *,
    num_numeric: int,
    num_ids: int,
    num_categorical: int,
    num_classes: int,
    generator: torch.Generator,
) -> nn.Module:
    """The network that `spec` describes; the same generator state gives the same parameters, bit for bit.

    `{"kind": "mlp" | "wide_deep" | "dcnv2", ...}` with the fields of `ModelOptions`, or `{"kind": "ensemble",
    "members": k, "member": {...}}`. ConfigError with every unknown kind, unknown option and bad value at once, and for
    a table without columns. Parameters are float32 on the CPU; there are no buffers.
    """
    problems = _problems(spec, "model")
    if problems:
        raise ConfigError(problems)
    shape = Shape(num_numeric, num_categorical, num_ids, num_classes)
    if spec["kind"] == ENSEMBLE:
        return Ensemble([_network(spec["member"], shape, generator) for _ in range(spec["members"])])
    return _network(spec, shape, generator)


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module has to learn."""
    return sum(parameter.numel() for parameter in module.parameters())


def _network(spec: Mapping[str, Any], shape: Shape, generator: torch.Generator) -> nn.Module:
    options, _ = read_options(_without_kind(spec), "model")
    return KINDS[spec["kind"]](shape, options, generator)


def _problems(spec: Mapping[str, Any], where: str) -> list[Problem]:
    kind = spec.get("kind")
    if kind == ENSEMBLE and where == "model":
        return _ensemble_problems(spec)
    if not isinstance(kind, str) or kind not in KINDS:
        kinds = [*KINDS, ENSEMBLE] if where == "model" else [*KINDS]
        return [unknown("kind", kind, kinds, where)]
    return read_options(_without_kind(spec), where)[1]


def _ensemble_problems(spec: Mapping[str, Any]) -> list[Problem]:
    known = ["members", "member"]
    problems = [unknown("option", name, known, "model") for name in _without_kind(spec) if name not in known]
    if not is_count(spec.get("members")):
        problems.append(Problem("model.members must be a whole number >= 1", got=repr(spec.get("members"))))
    if not isinstance(spec.get("member"), Mapping):
        return [
            *problems,
            Problem("model.member must be the specification of one network", got=repr(spec.get("member"))),
        ]
    return problems + _problems(spec["member"], "model.member")


def _without_kind(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name != "kind"}
