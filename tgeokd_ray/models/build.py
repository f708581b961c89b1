"""From a plain specification to a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.models.ensemble import Ensemble
from tgeokd_ray.models.images import ResNet, WideResNet
from tgeokd_ray.models.network import Shape
from tgeokd_ray.models.options import is_count, read_options, unknown
from tgeokd_ray.models.pixels import Pixels
from tgeokd_ray.models.tabular import MLP, DCNv2, WideDeep

TABULAR: Mapping[str, type[MLP | WideDeep | DCNv2]] = {"mlp": MLP, "wide_deep": WideDeep, "dcnv2": DCNv2}
IMAGES: Mapping[str, type[ResNet | WideResNet]] = {"resnet": ResNet, "wrn": WideResNet}
KINDS: Mapping[str, type[MLP | WideDeep | DCNv2 | ResNet | WideResNet]] = {**TABULAR, **IMAGES}
# A network of images has 6 n layers and so many more.
BEYOND_BLOCKS = {"resnet": 2, "wrn": 4}
ENSEMBLE = "ensemble"


def build(
    spec: Mapping[str, Any],
    *,
    num_numeric: int,
    num_ids: int,
    num_categorical: int,
    num_classes: int,
    generator: torch.Generator,
    image: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network that `spec` describes; the same generator state gives the same parameters, bit for bit.

    `{"kind": "mlp" | "wide_deep" | "dcnv2" | "resnet" | "wrn", ...}` with the fields of `ModelOptions`, or `{"kind":
    "ensemble", "members": k, "member": {...}}`. `image` is what the table's schema says of its images, without which
    there is neither resnet nor wrn. ConfigError with every unknown kind, unknown option and bad value at once, and for
    a table without columns. Parameters are float32 on the CPU; there are no buffers.
    """
    problems = _problems(spec, "model")
    if problems:
        raise ConfigError(problems)
    shape = Shape(num_numeric, num_categorical, num_ids, num_classes, None if image is None else Pixels.of(image))
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
    options, problems = read_options(_without_kind(spec), where)
    if problems or kind not in BEYOND_BLOCKS:
        return problems
    beyond, depth = BEYOND_BLOCKS[kind], options.depth or 0
    if depth <= beyond or (depth - beyond) % 6:
        problems.append(Problem(f"{where}.depth of a {kind} must be 6 n + {beyond}", got=repr(options.depth)))
    if options.dropout:
        problems.append(Problem(f"{where}.dropout must be 0: a {kind} drops nothing", got=repr(options.dropout)))
    return problems


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
