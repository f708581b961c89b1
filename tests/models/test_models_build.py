"""Wrong specifications: every problem at once, each with a way out."""

from __future__ import annotations

import pytest
import torch

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.models import build
from tgeokd_ray.models.options import ModelOptions

SIZES = {"num_numeric": 2, "num_ids": 5, "num_categorical": 1, "num_classes": 2}


def make(spec: object) -> torch.nn.Module:
    return build(spec, **SIZES, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"kind": "dcn2"}, "unknown kind 'dcn2' in model; did you mean 'dcnv2'?"),
        ({"kind": "zzz"}, "unknown kind 'zzz' in model; known: mlp, wide_deep, dcnv2, resnet, wrn, ensemble"),
        ({}, "unknown kind None in model"),
        ({"kind": "mlp", "hiden": [3]}, "unknown option 'hiden' in model; did you mean 'hidden'?"),
        ({"kind": "mlp", "members": 3}, "unknown option 'members' in model"),
        ({"kind": "mlp", "hidden": [0]}, "model.hidden must be a list of whole numbers >= 1; got [0]"),
        ({"kind": "mlp", "hidden": 64}, "model.hidden must be a list of whole numbers >= 1; got 64"),
        ({"kind": "mlp", "embedding": True}, "model.embedding must be a whole number >= 1; got True"),
        ({"kind": "dcnv2", "cross_layers": 0}, "model.cross_layers must be a whole number >= 1; got 0"),
        ({"kind": "mlp", "dropout": 1.0}, "model.dropout must be >= 0 and < 1; got 1.0"),
        ({"kind": "mlp", "dropout": float("nan")}, "model.dropout must be >= 0 and < 1; got nan"),
        ({"kind": "ensemble", "members": 2}, "model.member must be the specification of one network; got None"),
        ({"kind": "ensemble", "member": {"kind": "mlp"}}, "model.members must be a whole number >= 1; got None"),
        ({"kind": "ensemble", "members": 2, "member": {"kind": "mpl"}}, "'mpl' in model.member; did you mean 'mlp'?"),
        (
            {"kind": "ensemble", "members": 2, "member": {"kind": "ensemble"}},
            "unknown kind 'ensemble' in model.member; known: mlp, wide_deep, dcnv2, resnet, wrn",
        ),
        (
            {"kind": "ensemble", "members": 2, "membre": {}, "member": {"kind": "mlp"}},
            "unknown option 'membre' in model; did you mean 'member'?",
        ),
        ({"kind": ["mlp"]}, "unknown kind ['mlp'] in model"),
    ],
)
def test_a_wrong_specification_says_what_and_what_instead(spec: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(spec)
    assert expected in str(caught.value)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make({"kind": "mlp", "hiden": [3], "dropout": 2, "embedding": 0})
    assert len(caught.value.problems) == 3


def test_defaults_are_those_of_the_options() -> None:
    default = ModelOptions()
    assert [layer.out_features for layer in make({"kind": "mlp"}).tower.layers] == list(default.hidden)
    assert make({"kind": "mlp"}).embedding.weight.shape == (5, default.embedding)
    assert len(make({"kind": "dcnv2"}).cross.layers) == default.cross_layers


def test_one_set_of_options_serves_every_kind() -> None:
    options = {"hidden": (4,), "embedding": 2, "cross_layers": 3, "dropout": 0.1}
    for kind in ("mlp", "wide_deep", "dcnv2"):
        make({"kind": kind, **options})
