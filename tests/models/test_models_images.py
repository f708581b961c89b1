"""Laws of the residual networks: sizes as published, packs, rows apart, gradients twice."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.models import Network, build, count_parameters
from tgeokd_ray.models.compiled import compiled
from tgeokd_ray.models.pixels import Pixels
from tgeokd_ray.objectives.points import row_shares
from tgeokd_ray.objectives.stacking import apply, stack
from tgeokd_ray.objectives.ways import WAYS, Inner

CIFAR = {"channels": 3, "height": 32, "width": 32, "means": [125.3, 123.0, 113.9], "stds": [63.0, 62.1, 66.7]}
TINY = {"channels": 2, "height": 8, "width": 8, "means": [100.0, 50.0], "stds": [40.0, 20.0]}
SPECS = [{"kind": "resnet", "depth": 8}, {"kind": "wrn", "depth": 10}]


def make(spec: dict, image: dict = TINY, classes: int = 4, seed: int = 0) -> nn.Module:
    size = image["channels"] * image["height"] * image["width"]
    shape = {"num_numeric": size, "num_ids": 0, "num_categorical": 0, "num_classes": classes}
    return build(spec, **shape, generator=torch.Generator().manual_seed(seed), image=image)


def batch(rows: int = 5, image: dict = TINY, seed: int = 1) -> tuple[Tensor, Tensor]:
    size = image["channels"] * image["height"] * image["width"]
    pixels = torch.randint(0, 256, (rows, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return pixels, torch.empty(rows, 0, dtype=torch.int64)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["kind"])
class TestLaws:
    @pytest.mark.parametrize("rows", [0, 1, 5])
    def test_logits_have_one_row_per_row(self, spec: dict, rows: int) -> None:
        assert make(spec)(*batch(rows)).shape == (rows, 4)
        assert make(spec, CIFAR)(*batch(rows, CIFAR)).shape == (rows, 4)

    def test_the_generator_decides_every_parameter_and_there_are_no_buffers(self, spec: dict) -> None:
        first, again, other = (make(spec, seed=seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["stem.weight"], other["stem.weight"])
        assert not list(make(spec).buffers())

    def test_a_row_does_not_depend_on_the_others(self, spec: dict) -> None:
        module, (pixels, none) = make(spec).double(), batch()
        alone = torch.cat([module(row[None].double(), none[:1]) for row in pixels])
        torch.testing.assert_close(module(pixels.double(), none), alone, rtol=0, atol=1e-12)

    def test_bytes_and_numbers_of_the_same_pixels_are_one(self, spec: dict) -> None:
        pixels, none = batch()
        torch.testing.assert_close(make(spec)(pixels, none), make(spec)(pixels.float(), none), rtol=0, atol=0)

    def test_scaled_images_keep_their_size_through_the_layers(self, spec: dict) -> None:
        assert 0.1 < make(spec, CIFAR)(*batch(4, CIFAR)).std() < 10

    def test_a_pack_of_three_equals_each_alone(self, spec: dict) -> None:
        modules, inputs = [make(spec, seed=seed).double() for seed in range(3)], batch()
        inputs = inputs[0].double(), inputs[1]
        together = apply(modules[0], stack(modules), *inputs)
        for logits, module in zip(together, modules, strict=True):
            torch.testing.assert_close(logits, module(*inputs), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("students", [1, 2])
    @pytest.mark.parametrize("way", ["split", "forward"])
    def test_the_hypergradient_and_hessian_products_are_those_of_central_differences(
        self, spec: dict, way: str, students: int
    ) -> None:
        exact, inner = _inner(spec, students)
        theta = {name: value.detach() for name, value in inner.theta.items()}
        generator = torch.Generator().manual_seed(5)
        w = {n: torch.randn(v.shape, dtype=v.dtype, generator=generator) for n, v in theta.items()}
        length = torch.stack([value.square().sum() for value in w.values()]).sum().sqrt()
        w = {name: value / length for name, value in w.items()}  # so short that no ReLU turns on the way
        found = WAYS[way](inner)
        hessian, ratio = found.hessian(w), found.ratio_gradient(w)
        size = 1e-6
        above, below = (exact({n: v + sign * size * w[n] for n, v in theta.items()}) for sign in (1, -1))
        for name, value in hessian.items():
            torch.testing.assert_close(value, (above[0][name] - below[0][name]) / (2 * size), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(ratio, -(above[1] - below[1]) / (2 * size), rtol=1e-6, atol=1e-8)


def _inner(spec: dict, students: int):  # type: ignore[no-untyped-def]
    """The inner loss of a pack in float64, and its gradient and per-row losses as a function of theta."""
    modules = [make(spec, seed=seed).double() for seed in range(students)]
    pixels, none = batch(3)
    pixels = pixels.double()
    generator = torch.Generator().manual_seed(4)
    targets = torch.randn(3, 4, 2, dtype=torch.float64, generator=generator).softmax(1)
    weights = torch.rand(students, 3, 2, dtype=torch.float64, generator=generator)
    row_weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)

    def losses_of(theta):  # type: ignore[no-untyped-def]
        logits = apply(modules[0], theta, pixels, none)
        return -(logits.log_softmax(-1).unsqueeze(-1) * targets).sum(-2)

    def exact(theta):  # type: ignore[no-untyped-def]
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        losses = losses_of(leaves)
        shares = row_shares(row_weights, losses.dtype).unsqueeze(-1)
        gradients = torch.autograd.grad((losses * weights * shares).sum(), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True)), losses.detach() * shares

    leaves = {name: value.requires_grad_() for name, value in stack(modules).items()}
    return exact, Inner(leaves, losses_of(leaves), losses_of, weights, row_weights)


@pytest.mark.parametrize(
    ("spec", "classes", "expected"),
    [
        # He et al. (2016), table 6, for ten classes.
        ({"kind": "resnet", "depth": 20}, 10, "0.27"),
        ({"kind": "resnet", "depth": 32}, 10, "0.46"),
        ({"kind": "resnet", "depth": 56}, 10, "0.85"),
        ({"kind": "resnet", "depth": 110}, 10, "1.7"),
        # Zagoruyko & Komodakis (2016), table 4.
        ({"kind": "wrn", "depth": 40, "width": 1}, 10, "0.6"),
        ({"kind": "wrn", "depth": 40, "width": 2}, 10, "2.2"),
        ({"kind": "wrn", "depth": 16, "width": 2}, 10, "0.7"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_parameters_are_as_many_as_published(spec: dict, classes: int, expected: str) -> None:
    """In millions. He et al. count shortcuts that have no parameters: two less of 1 x 1, with their norms."""
    beside = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64 if spec["kind"] == "resnet" else 0
    counted = (count_parameters(make(spec, CIFAR, classes)) - beside) / 1e6
    assert f"{counted:.{len(expected) - 2}f}" == expected


@pytest.mark.parametrize(("depth", "blocks"), [(8, 1), (32, 5)])
def test_the_stem_of_a_four_times_as_wide_one_has_32_channels(depth: int, blocks: int) -> None:
    widths = [32, 64, 128, 256]
    expected = 9 * 3 * 32 + 2 * 32 + 256 * 100 + 100
    for inputs, outputs in pairwise(widths):
        expected += inputs * outputs + 2 * outputs + 9 * inputs * outputs + 9 * outputs**2 + 4 * outputs
        expected += (blocks - 1) * (18 * outputs**2 + 4 * outputs)
    assert count_parameters(make({"kind": "resnet", "depth": depth, "width": 4}, CIFAR, 100)) == expected


def test_the_parameters_of_a_small_one_by_hand() -> None:
    def block(inputs: int, outputs: int) -> int:
        beside = inputs * outputs + 2 * outputs if inputs != outputs else 0
        return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs + beside

    stem, head = 9 * 3 * 16 + 2 * 16, 64 * 10 + 10
    expected = stem + block(16, 16) + block(16, 32) + block(32, 64) + head
    assert count_parameters(make({"kind": "resnet", "depth": 8}, CIFAR, 10)) == expected == 78_042


def test_a_network_is_as_deep_as_it_says() -> None:
    for spec in ({"kind": "resnet", "depth": 20}, {"kind": "wrn", "depth": 16}):
        module = make(spec, CIFAR)
        layers = [n for n, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        assert len([name for name in layers if "beside" not in name]) == spec["depth"] - (spec["kind"] == "wrn") * 2


def test_an_mlp_takes_scaled_pixels_and_knows_its_derivatives() -> None:
    module, (pixels, none) = make({"kind": "mlp", "hidden": [6]}).double(), batch()
    scaled = (pixels.double().reshape(-1, 2, 64) - torch.tensor([[100.0], [50.0]])) / torch.tensor([[40.0], [20.0]])
    plain = functional_call(module.tower, dict(module.tower.named_parameters()), (scaled.flatten(1),))
    torch.testing.assert_close(module(pixels.double(), none), module.head(plain), rtol=0, atol=1e-12)
    theta = {name: value.detach()[None] for name, value in module.named_parameters()}
    at = module.at(theta, pixels.double(), none)
    torch.testing.assert_close(at.logits[0], module(pixels.double(), none).detach(), rtol=0, atol=1e-12)


def test_pixels_are_scaled_by_channel() -> None:
    found = Pixels.of(TINY).scaled(torch.full((1, 128), 120, dtype=torch.uint8))
    assert found.dtype == torch.float32
    assert found[0, [0, 63, 64, 127]].tolist() == [0.5, 0.5, 3.5, 3.5]


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"kind": "resnet"}, "model.depth of a resnet must be 6 n + 2; got None"),
        ({"kind": "resnet", "depth": 2}, "model.depth of a resnet must be 6 n + 2; got 2"),
        ({"kind": "wrn", "depth": 20}, "model.depth of a wrn must be 6 n + 4; got 20"),
        ({"kind": "wrn", "depth": 10, "dropout": 0.1}, "model.dropout must be 0: a wrn drops nothing; got 0.1"),
        ({"kind": "wrn", "depth": 10, "width": 0}, "model.width must be a whole number >= 1; got 0"),
    ],
)
def test_wrong_specifications(spec: dict, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(spec)
    assert what in str(caught.value)


def test_a_table_without_images_has_no_residual_network() -> None:
    shape = {"num_numeric": 4, "num_ids": 0, "num_categorical": 0, "num_classes": 2}
    with pytest.raises(ConfigError, match="this network is for images, and the table has none"):
        build({"kind": "resnet", "depth": 8}, **shape, generator=torch.Generator())


def test_networks_of_images_are_not_compiled() -> None:
    module = make({"kind": "resnet", "depth": 8})
    assert isinstance(module, Network)
    with pytest.raises(ConfigError, match=r"training\.compile is not for networks of images"):
        compiled(module)
