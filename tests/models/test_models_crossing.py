"""The cross layer under autocast: the same bits as torch's operations give, and the same derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tgeokd_ray.models import build
from tgeokd_ray.models.autocast import narrow_type
from tgeokd_ray.models.crossing import cross
from tgeokd_ray.models.layers import CrossNetwork
from tgeokd_ray.objectives.stacking import apply, stack

N, W, LAYERS = 50, 13, 3
BF16 = torch.bfloat16


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int = 0) -> CrossNetwork:
    found = CrossNetwork(W, LAYERS, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for layer in found.layers:
            layer.bias.copy_(drawn(W, seed=seed + 1))
    return found


def plain(net: CrossNetwork, features: Tensor) -> Tensor:
    """By torch's operations alone."""
    crossed = features
    for layer in net.layers:
        crossed = features * layer(crossed) + crossed
    return crossed.to(BF16)


def gradients(of: Callable[[CrossNetwork, Tensor], Tensor], features: Tensor) -> list[Tensor]:
    net, leaf = network(), features.clone().requires_grad_()
    with torch.autocast("cpu", BF16):
        seen = of(net, leaf)
    (seen.float() * drawn(*seen.shape, seed=5)).sum().backward()
    return [seen, leaf.grad, *(parameter.grad for parameter in net.parameters())]


def test_under_autocast_what_is_crossed_and_all_gradients_have_the_bits_of_plain_operations() -> None:
    features = drawn(N, W, seed=3)
    for ours, theirs in zip(gradients(CrossNetwork.forward, features), gradients(plain, features), strict=True):
        assert ours.dtype is theirs.dtype
        assert torch.equal(ours, theirs)


def test_without_autocast_and_in_float64_it_is_plain() -> None:
    features = drawn(N, W)
    assert narrow_type(features) is None
    assert network()(features).dtype is torch.float32
    with torch.autocast("cpu", BF16):
        assert narrow_type(features) is BF16
        assert narrow_type(features.double()) is None
        assert network()(features).dtype is BF16


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    return drawn(N, W), drawn(N, W, seed=1).to(BF16), drawn(N, W, seed=2)


def by_torch(features: Tensor, product: Tensor, crossed: Tensor) -> tuple[Tensor, Tensor]:
    total = features * product + crossed
    return total, total.to(product.dtype)


@pytest.mark.parametrize("which", [0, 1], ids=["wide", "narrow"])
def test_second_derivatives_are_those_of_plain_operations(which: int) -> None:
    found = []
    for of in (cross, by_torch):
        leaves = [value.clone().requires_grad_() for value in arguments()]
        weight = drawn(N, W, seed=4).requires_grad_()
        first = torch.autograd.grad((of(*leaves)[which] * weight).sum(), leaves, create_graph=True)
        loss = sum((one.float().square() * drawn(N, W, seed=6)).sum() for one in first)
        found.append(torch.autograd.grad(loss, [*leaves, weight], allow_unused=True))
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("moving", [(0,), (1,), (2,), (0, 1, 2)])
def test_forward_mode_is_that_of_plain_operations(moving: tuple[int, ...]) -> None:
    found = []
    for of in (cross, by_torch):
        with torch.autograd.forward_ad.dual_level():
            values = [
                torch.autograd.forward_ad.make_dual(value, drawn(N, W, seed=7).to(value)) if place in moving else value
                for place, value in enumerate(arguments())
            ]
            found.append([torch.autograd.forward_ad.unpack_dual(one).tangent for one in of(*values)])
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype is theirs.dtype
        assert torch.equal(ours, theirs)


def test_compiled_code_has_torchs_own_operations() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    features = drawn(N, W)
    with torch.autocast("cpu", BF16):
        found = torch.compile(network(), backend=backend, fullgraph=True)(features)
        assert torch.equal(found.to(BF16), network()(features))
    assert all("autograd_function" not in graph.print_readable(print_output=False) for graph in graphs)


def test_only_float32_on_a_cpu_is_narrowed() -> None:
    with torch.autocast("cpu", BF16):
        assert narrow_type(torch.empty(2, device="meta")) is None
        assert narrow_type(torch.empty(2, dtype=BF16)) is None


def test_an_output_that_nobody_uses_changes_nothing() -> None:
    features, product, crossed = (value.requires_grad_() for value in arguments())
    cross(features, product, crossed)[0].sum().backward()
    assert torch.equal(features.grad, product.float())
    assert torch.equal(product.grad, features.to(BF16))
    assert torch.equal(crossed.grad, torch.ones(N, W))


def test_students_of_a_pack_may_share_their_features() -> None:
    """Those of a table without categorical columns are one [N, P] for all students."""
    spec = {"kind": "dcnv2", "hidden": [], "cross_layers": 2}
    shape = {"num_numeric": W, "num_ids": 0, "num_categorical": 0, "num_classes": 2}
    networks = [build(spec, **shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    numeric, ids = drawn(N, W).requires_grad_(), torch.empty(N, 0, dtype=torch.int64)
    with torch.autocast("cpu", BF16):
        pack = apply(networks[0], stack(networks), numeric, ids)
        alone = torch.stack([one(numeric, ids) for one in networks])
    torch.testing.assert_close(pack, alone, rtol=2e-2, atol=2e-2)
    (of_pack,) = torch.autograd.grad(pack.float().sum(), numeric)
    (of_alone,) = torch.autograd.grad(alone.float().sum(), numeric)
    torch.testing.assert_close(of_pack, of_alone, rtol=2e-2, atol=2e-2)
