"""Laws of the networks: shapes, sizes, determinism, gradients, and the cross layer against plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.models import Ensemble, FusedEmbedding, Network, build, count_parameters
from tgeokd_ray.models.layers import CrossNetwork, Tower, linear
from tgeokd_ray.objectives.stacking import apply, stack

P, F, V, C, D = 3, 4, 11, 3, 5
HIDDEN = [7, 6]
TABULAR = ["mlp", "wide_deep", "dcnv2"]
MEMBER = {"kind": "mlp", "hidden": HIDDEN, "embedding": D}
SPECS = [{"kind": kind, "hidden": HIDDEN, "embedding": D, "cross_layers": 2} for kind in TABULAR]
SPECS.append({"kind": "ensemble", "members": 3, "member": MEMBER})


def make(spec: dict, seed: int = 0, **shape: int) -> nn.Module:
    sizes = {"num_numeric": P, "num_ids": V, "num_categorical": F, "num_classes": C} | shape
    return build(spec, **sizes, generator=torch.Generator().manual_seed(seed))


def batch(rows: int = 9, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, P, generator=generator), torch.randint(0, V, (rows, F), generator=generator)


@pytest.fixture(params=SPECS, ids=lambda spec: spec["kind"])
def spec(request: pytest.FixtureRequest) -> dict:
    return request.param


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_logits_have_one_row_per_row(spec: dict, rows: int) -> None:
    assert make(spec)(*batch(rows)).shape == (rows, C)


def test_the_generator_decides_every_parameter(spec: dict) -> None:
    first, again, other = make(spec, 0).state_dict(), make(spec, 0).state_dict(), make(spec, 1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_global_generator_is_left_alone(spec: dict) -> None:
    before = torch.get_rng_state()
    make(spec)
    assert torch.equal(before, torch.get_rng_state())


def test_parameters_are_float32_without_buffers(spec: dict) -> None:
    module = make(spec)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert not list(module.buffers())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # W = 3 + 4 * 5 = 23 features; tower 23-7-6; table 11 x 5
        ("mlp", 11 * 5 + (23 * 7 + 7) + (7 * 6 + 6) + (6 * 3 + 3)),
        ("wide_deep", 11 * (5 + 3) + 3 * 3 + (23 * 7 + 7) + (7 * 6 + 6) + (6 * 3 + 3)),
        ("dcnv2", 11 * 5 + 2 * (23 * 23 + 23) + (23 * 7 + 7) + (7 * 6 + 6) + ((23 + 6) * 3 + 3)),
        ("ensemble", 3 * (11 * 5 + (23 * 7 + 7) + (7 * 6 + 6) + (6 * 3 + 3))),
    ],
)
def test_number_of_parameters(kind: str, expected: int) -> None:
    [spec] = [spec for spec in SPECS if spec["kind"] == kind]
    assert count_parameters(make(spec)) == expected


def test_a_pack_of_three_equals_each_alone(spec: dict) -> None:
    modules = [make(spec, seed) for seed in range(3)]
    inputs = batch()
    together = apply(modules[0], stack(modules), *inputs)
    alone = torch.stack([module(*inputs) for module in modules])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_gradients_of_a_pack_equal_each_alone(spec: dict) -> None:
    modules = [make(spec, seed).double() for seed in range(3)]
    numeric, categorical = batch()
    state = {name: value.requires_grad_() for name, value in stack(modules).items()}
    apply(modules[0], state, numeric.double(), categorical).square().sum().backward()
    for index, module in enumerate(modules):
        module(numeric.double(), categorical).square().sum().backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(state[name].grad[index], parameter.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", TABULAR)
@pytest.mark.parametrize("columns", [{"num_numeric": 0}, {"num_ids": 0, "num_categorical": 0}, {}])
def test_a_pack_on_columns_of_one_kind_or_with_masks_equals_each_alone(kind: str, columns: dict) -> None:
    spec = {"kind": kind, "hidden": HIDDEN, "embedding": D}
    modules = [make(spec, seed, **columns).double() for seed in range(3)]
    numeric, categorical = batch()
    inputs = numeric.double()[:, : columns.get("num_numeric", P)], categorical[:, : columns.get("num_categorical", F)]
    masks = torch.rand(3, 9, sum(HIDDEN), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    together = apply(modules[0], stack(modules), *inputs, own=[masks])
    alone = torch.stack([module(*inputs, mask) for module, mask in zip(modules, masks, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [*TABULAR, "ensemble"])
def test_first_and_second_derivatives_against_differences(kind: str) -> None:
    member = {"kind": "mlp" if kind == "ensemble" else kind, "hidden": [3], "embedding": 2}
    spec = {"kind": "ensemble", "members": 2, "member": member} if kind == "ensemble" else member
    sizes = {"num_numeric": 2, "num_categorical": 2, "num_ids": 4, "num_classes": 2}
    module = make(spec, seed=4, **sizes).double()
    names = [name for name, _ in module.named_parameters()]
    generator = torch.Generator().manual_seed(2)
    numeric = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    categorical = torch.tensor([[0, 2], [1, 2], [0, 3]])  # an id in two rows: its gradients add up

    def function(*values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (numeric, categorical))

    values = tuple(parameter.detach().clone().requires_grad_() for parameter in module.parameters())
    assert torch.autograd.gradcheck(function, values)
    assert torch.autograd.gradgradcheck(function, values)


@pytest.mark.parametrize("kind", TABULAR)
def test_renaming_ids_with_their_rows_changes_nothing(kind: str) -> None:
    module = make({"kind": kind, "hidden": HIDDEN, "embedding": D})
    numeric, categorical = batch()
    before = module(numeric, categorical)
    renamed = torch.randperm(V, generator=torch.Generator().manual_seed(3))  # id k becomes renamed[k]
    with torch.no_grad():
        module.embedding.weight[renamed] = module.embedding.weight.clone()
    assert torch.equal(module(numeric, renamed[categorical]), before)


@pytest.mark.parametrize("kind", TABULAR)
def test_forward_is_dense_of_the_gathered_table(kind: str) -> None:
    module = make({"kind": kind, "hidden": HIDDEN, "embedding": D})
    assert isinstance(module, Network)
    numeric, categorical = batch()
    gathered = module.embedding.weight[categorical.flatten()].reshape(*categorical.shape, -1)
    assert torch.equal(module.dense(numeric, gathered), module(numeric, categorical))


@pytest.mark.parametrize("kind", TABULAR)
def test_tables_of_one_kind_of_column(kind: str) -> None:
    spec = {"kind": kind, "hidden": HIDDEN, "embedding": D}
    numeric, categorical = batch()
    only_numeric = make(spec, num_ids=0, num_categorical=0)
    assert only_numeric.embedding is None
    logits = only_numeric(numeric, categorical[:, :0])
    assert logits.shape == (9, C)
    assert torch.autograd.grad(logits.sum(), [*only_numeric.parameters()])[0].isfinite().all()
    assert make(spec, num_numeric=0)(numeric[:, :0], categorical).shape == (9, C)
    with pytest.raises(ConfigError, match="at least one"):
        make(spec, num_numeric=0, num_ids=0, num_categorical=0)


def test_cross_layers_against_numpy() -> None:
    network = CrossNetwork(5, 3, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for layer in network.layers:
            layer.bias.uniform_(-1, 1)
    start = np.random.default_rng(0).normal(size=(4, 5))
    expected = start
    for layer in network.layers:
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        expected = np.stack([start[n] * (weight @ expected[n] + bias) + expected[n] for n in range(4)])
    np.testing.assert_allclose(network(torch.from_numpy(start)).detach().numpy(), expected, rtol=1e-12)


def test_a_dcn_without_hidden_layers_is_its_cross_network() -> None:
    module = make({"kind": "dcnv2", "hidden": [], "embedding": D})
    numeric, categorical = batch()
    features = torch.cat([numeric, module.embedding(categorical).flatten(1)], 1)
    assert torch.equal(module(numeric, categorical), module.head(module.cross(features)))


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    module = make({"kind": "mlp", "hidden": [], "embedding": D})
    numeric, categorical = batch()
    features = torch.cat([numeric, module.embedding(categorical).flatten(1)], 1)
    torch.testing.assert_close(module(numeric, categorical), module.head(features))


def test_wide_and_deep_is_the_deep_part_plus_a_linear_model() -> None:
    module = make(SPECS[1])
    numeric, categorical = batch()
    with torch.no_grad():
        module.wide.normal_()
        module.embedding.weight.normal_()
    deep, first_order = module.embedding.weight[:, :D], module.embedding.weight[:, D:]
    features = torch.cat([numeric, deep[categorical].flatten(1)], 1)
    linear_part = numeric @ module.wide + sum(first_order[categorical[:, column]] for column in range(F))
    expected = module.head(module.tower(features)) + linear_part
    torch.testing.assert_close(module(numeric, categorical), expected)


def test_the_wide_part_starts_at_zero() -> None:
    module = make(SPECS[1])
    assert not module.wide.any()
    assert not module.embedding.weight[:, D:].any()
    assert module.embedding.weight[:, :D].all()


def test_an_ensemble_is_the_log_of_the_mean_probability() -> None:
    ensemble = make(SPECS[3])
    assert isinstance(ensemble, Ensemble)
    inputs = batch()
    probabilities = torch.stack([member(*inputs).double().softmax(-1) for member in ensemble.members]).mean(0)
    torch.testing.assert_close(ensemble(*inputs).double(), probabilities.log(), rtol=1e-5, atol=1e-6)
    weights = [member.head.weight for member in ensemble.members]
    assert not torch.equal(weights[0], weights[1])


def test_an_ensemble_of_sure_members_stays_finite() -> None:
    class Sure(nn.Module):
        def __init__(self, logits: list[float]) -> None:
            super().__init__()
            self.logits = torch.tensor([logits])

        def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
            return self.logits

    logits = Ensemble([Sure([1e4, 0.0]), Sure([0.0, 1e4])])(*batch())
    torch.testing.assert_close(logits, torch.full((1, 2), math.log(0.5)))


def test_masks_multiply_the_hidden_units_and_nothing_is_drawn_inside() -> None:
    tower = Tower(4, [3, 2], torch.Generator().manual_seed(0))
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(5, 5, generator=torch.Generator().manual_seed(1))
    first = tower.layers[0](features).relu() * masks[:, :3]
    torch.testing.assert_close(tower(features, masks), tower.layers[1](first).relu() * masks[:, 3:])
    torch.testing.assert_close(tower(features), tower(features, torch.ones(5, 5)))


@pytest.mark.parametrize("kind", ["mlp", "wide_deep", "dcnv2"])
def test_every_network_takes_masks(kind: str) -> None:
    module, inputs = make({"kind": kind, "hidden": [64, 8], "embedding": D, "dropout": 0.5}), batch()
    assert torch.equal(module(*inputs), module.eval()(*inputs))
    ones, zeros = (torch.full((len(inputs[0]), 72), value) for value in (1.0, 0.0))
    assert torch.equal(module(*inputs, ones), module(*inputs))
    assert not torch.equal(module(*inputs, zeros), module(*inputs))


@pytest.mark.parametrize(("gain", "expected"), [(1.0, 1 / 400), (math.sqrt(2), 2 / 400)])
def test_initial_weights_have_the_variance_they_should(gain: float, expected: float) -> None:
    layer = linear(400, 500, torch.Generator().manual_seed(0), gain)
    assert layer.weight.var().item() == pytest.approx(expected, rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert not layer.bias.any()


def test_the_initial_table_is_small() -> None:
    table = FusedEmbedding(2000, 16, torch.Generator().manual_seed(0))
    assert table.weight.std().item() == pytest.approx(0.05, rel=0.02)
    assert table(torch.zeros(3, 2, dtype=torch.int64)).shape == (3, 2, 16)


@pytest.mark.parametrize("kind", TABULAR)
def test_under_autocast_embeddings_that_only_go_into_products_come_in_its_type(kind: str) -> None:
    network = make({"kind": kind, "hidden": HIDDEN, "embedding": D, "cross_layers": 2})
    numeric, categorical = batch(40)
    plain = network.embedding(categorical)
    with torch.autocast("cpu", torch.bfloat16):
        seen = network.embedding(categorical, network.narrow)
        logits = network(numeric, categorical)
        assert torch.equal(logits, network.dense(numeric, plain))
        assert make(SPECS[TABULAR.index(kind)]).double().embedding(categorical, True).dtype is torch.float64
    assert seen.dtype is (torch.bfloat16 if kind == "mlp" else torch.float32)
    logits.float().square().sum().backward()
    assert network.embedding.weight.grad.dtype is torch.float32


@pytest.mark.parametrize("kind", TABULAR)
def test_under_autocast_students_of_a_pack_get_the_numbers_that_they_get_alone(kind: str) -> None:
    """Up to single roundings: the order in which a product is added up is the processor's own."""
    networks = [make(SPECS[TABULAR.index(kind)], seed) for seed in range(3)]
    with torch.no_grad():
        for parameter in (one for network in networks for one in network.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter))))
    numeric, categorical = batch(200)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pack = apply(networks[0], stack(networks), numeric, categorical)
        alone = torch.stack([network(numeric, categorical) for network in networks])
    assert pack.dtype == alone.dtype
    assert (pack != alone).double().mean() < 0.05
