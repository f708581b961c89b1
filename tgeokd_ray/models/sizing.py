"""Networks by size: the largest of one kind that a number of parameters allows.

V ids, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tgeokd_ray.models.build import IMAGES, build, count_parameters

MOST = 1 << 16  # units of a layer
DENSE_SHARE = 0.5  # of the parameters, at least, as far as embeddings of width 1 allow


@dataclass(frozen=True)
class Inputs:
    """What a network is for: the numbers of columns, ids and classes, as `build` takes them."""

    num_numeric: int
    num_ids: int
    num_categorical: int
    num_classes: int


def parameters_of(spec: Mapping[str, Any], inputs: Inputs) -> int:
    """How many parameters the network of `spec` has, without making its table of V ids.

    Those of the table grow by the same number with each id, so that two small tables tell. ConfigError as `build`.
    """
    if not inputs.num_categorical:
        return _counted(spec, inputs, 1)
    first, second = (_counted(spec, inputs, ids) for ids in (1, 2))
    return first + (second - first) * (inputs.num_ids - 1)


def largest(spec: Mapping[str, Any], inputs: Inputs, most: int, widest: int) -> dict[str, Any] | None:
    """The spec of the largest network of its kind with at most `most` parameters; None where none is so small.

    Embeddings have the widest power of two, `widest` at most, that leaves half of the parameters to the dense part, or
    width 1. Hidden layers keep the proportions of `spec`, each at least one unit. ValueError for networks of images,
    whose sizes are those of their depth and width.
    """
    if spec["kind"] in IMAGES:
        raise ValueError(f"a {spec['kind']} has the sizes of its depth and width")
    for width in _widths(spec, inputs, most, widest):
        found = _widest({**spec, "embedding": width}, inputs, most)
        if found is not None:
            return found
    return None


def _widths(spec: Mapping[str, Any], inputs: Inputs, most: int, widest: int) -> Iterator[int]:
    """Widths of embeddings, the widest first."""
    if not inputs.num_categorical:
        yield spec["embedding"]
        return
    width = 1
    while 2 * width <= widest and 2 * width * inputs.num_ids <= (1 - DENSE_SHARE) * most:
        width *= 2
    while width:
        yield width
        width //= 2


def _widest(spec: Mapping[str, Any], inputs: Inputs, most: int) -> dict[str, Any] | None:
    """The spec with the hidden layers as wide as they may be: bisection of their scale."""

    def scaled(units: int) -> dict[str, Any]:
        """With so many units in the widest layer."""
        hidden = spec["hidden"]
        return {**spec, "hidden": tuple(max(1, round(one * units / max(hidden))) for one in hidden)}

    def fits(units: int) -> bool:
        return parameters_of(scaled(units), inputs) <= most

    if not spec["hidden"]:
        return dict(spec) if parameters_of(spec, inputs) <= most else None
    if not fits(1):
        return None
    low, high = 1, 2
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return scaled(low)


def _counted(spec: Mapping[str, Any], inputs: Inputs, num_ids: int) -> int:
    network = build(
        spec,
        num_numeric=inputs.num_numeric,
        num_ids=num_ids,
        num_categorical=inputs.num_categorical,
        num_classes=inputs.num_classes,
        generator=torch.Generator(),
    )
    return count_parameters(network)
