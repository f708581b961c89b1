"""Networks by size: what they count, and that none of the kind is larger within the number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tgeokd_ray.models import build, count_parameters
from tgeokd_ray.models.sizing import Inputs, largest, parameters_of

INPUTS = Inputs(num_numeric=5, num_ids=300, num_categorical=4, num_classes=3)
SPECS: list[dict[str, Any]] = [
    {"kind": "mlp", "hidden": (16,), "embedding": 4},
    {"kind": "mlp", "hidden": (), "embedding": 4},
    {"kind": "wide_deep", "hidden": (64, 32), "embedding": 8},
    {"kind": "dcnv2", "hidden": (24, 12, 6), "embedding": 2, "cross_layers": 3},
]


def counted(spec: dict[str, Any], inputs: Inputs) -> int:
    facts = {name: getattr(inputs, name) for name in ("num_numeric", "num_ids", "num_categorical", "num_classes")}
    return count_parameters(build(spec, generator=torch.Generator(), **facts))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("inputs", [INPUTS, replace(INPUTS, num_ids=0, num_categorical=0)])
def test_what_is_counted_is_what_the_network_has(spec: dict[str, Any], inputs: Inputs) -> None:
    assert parameters_of(spec, inputs) == counted(spec, inputs)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("most", [1500, 2500, 12_345, 100_000])
def test_no_wider_layers_fit(spec: dict[str, Any], most: int) -> None:
    found = largest(spec, INPUTS, most, 64)
    assert found is not None
    assert counted(found, INPUTS) <= most
    widest = max(spec["hidden"], default=None)
    if widest is not None:
        units = max(found["hidden"])
        assert found["hidden"] == tuple(max(1, round(one * units / widest)) for one in spec["hidden"])
        wider = tuple(max(1, round(one * (units + 1) / widest)) for one in spec["hidden"])
        assert counted({**found, "hidden": wider}, INPUTS) > most
    table = found["embedding"] * INPUTS.num_ids
    assert found["embedding"] == 1 or table <= most / 2
    assert {**found, "hidden": spec["hidden"], "embedding": spec["embedding"]} == spec


def test_wider_embeddings_come_with_larger_sizes() -> None:
    found = [largest(SPECS[0], INPUTS, most, 16) for most in (500, 1200, 2400, 4800, 9600)]
    assert [one and one["embedding"] for one in found] == [1, 2, 4, 8, 16]
    narrow = largest(SPECS[0], INPUTS, 9600, 4)
    assert narrow is not None
    assert narrow["embedding"] == 4


def test_an_embedding_too_wide_for_the_dense_part_gives_way() -> None:
    spec = {"kind": "dcnv2", "hidden": (8,), "embedding": 4, "cross_layers": 2}
    inputs = replace(INPUTS, num_ids=4)  # half of the parameters would hold very wide embeddings, the cross layers none
    found = largest(spec, inputs, 2000, 1024)
    assert found is not None
    assert counted(found, inputs) <= 2000 < counted({**found, "embedding": 2 * found["embedding"]}, inputs)


def test_what_is_too_small_for_all_and_what_has_other_sizes() -> None:
    smallest = counted({"kind": "mlp", "hidden": (1,), "embedding": 1}, INPUTS)
    assert largest(SPECS[0], INPUTS, smallest - 1, 8) is None
    found = largest(SPECS[0], INPUTS, smallest, 8)
    assert found is not None
    assert (found["hidden"], found["embedding"]) == ((1,), 1)
    with pytest.raises(ValueError, match="depth and width"):
        largest({"kind": "resnet", "depth": 8}, INPUTS, 10_000, 8)
