"""A pack runs each student as the plain module does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tgeokd_ray.objectives.stacking import affine, apply, stack
from tgeokd_ray.objectives.vectors import flattened, unflattened


class Tabular(nn.Module):
    """An embedding beside a dense layer, as the package's own students have."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(7, 2)
        self.dense = nn.Linear(4, 3)

    def forward(self, numeric: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.dense(torch.cat([numeric, self.table(ids)], -1))


NUMERIC, IDS = torch.linspace(-1, 1, 10).reshape(5, 2), torch.tensor([0, 3, 6, 3, 1])


def test_stack_copies_the_parameters() -> None:
    modules = [Tabular(0), Tabular(1)]
    state = stack(modules)
    assert list(state) == ["table.weight", "dense.weight", "dense.bias"]
    assert state["table.weight"].shape == (2, 7, 2)
    assert not any(value.requires_grad for value in state.values())
    before = state["dense.bias"].clone()
    with torch.no_grad():
        modules[1].dense.bias.add_(1)
    assert torch.equal(state["dense.bias"], before)


def test_one_student_is_the_plain_module_bit_for_bit() -> None:
    module = Tabular(0)
    result = apply(Tabular(1), stack([module]), NUMERIC, IDS)
    assert torch.equal(result[0], module(NUMERIC, IDS))


def test_many_students_equal_the_plain_modules_and_their_gradients() -> None:
    modules = [Tabular(seed).double() for seed in range(3)]
    state = {name: value.requires_grad_() for name, value in stack(modules).items()}
    result = apply(Tabular(9).double(), state, NUMERIC.double(), IDS)
    result.square().sum().backward()
    for index, module in enumerate(modules):
        alone = module(NUMERIC.double(), IDS)
        alone.square().sum().backward()
        torch.testing.assert_close(result[index], alone, rtol=1e-13, atol=1e-13)
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(state[name].grad[index], parameter.grad, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("students", [1, 3])
def test_gradients_can_be_differentiated_again(students: int) -> None:
    """Also through an embedding: what the hypergradient needs."""
    modules = [Tabular(seed).double() for seed in range(students)]
    state = {name: value.requires_grad_() for name, value in stack(modules).items()}
    ratio = torch.linspace(0.1, 0.9, 5, dtype=torch.float64).expand(students, 5).clone().requires_grad_()

    def slopes(outputs: torch.Tensor, parameters: list[torch.Tensor], by: torch.Tensor) -> torch.Tensor:
        loss = (by * outputs.square().sum(-1)).sum()
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        return torch.autograd.grad(sum(each.sin().sum() for each in first), by)[0]

    together = slopes(apply(Tabular(9).double(), state, NUMERIC.double(), IDS), list(state.values()), ratio)
    for index, module in enumerate(modules):
        own = ratio[index].detach().requires_grad_()
        alone = slopes(module(NUMERIC.double(), IDS), list(module.parameters()), own)
        torch.testing.assert_close(together[index], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("students", [1, 3])
def test_stacked_inputs_go_to_their_own_student(students: int) -> None:
    modules = [nn.Linear(2, 3) for _ in range(students)]
    inputs = torch.randn(students, 5, 2)
    result = apply(nn.Linear(2, 3), stack(modules), inputs, stacked=True)
    for index, module in enumerate(modules):
        torch.testing.assert_close(result[index], module(inputs[index]))


@pytest.mark.parametrize("students", [1, 3])
def test_each_student_has_its_own_inputs_beside_shared_ones(students: int) -> None:
    class Product(nn.Linear):
        def forward(self, features: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(features) * factors

    module = Product(2, 3)
    shared, own = torch.randn(5, 2), torch.randn(students, 5, 3)
    found = apply(module, stack([module] * students), shared, own=(own,))
    expected = torch.stack([module(shared, each) for each in own])
    torch.testing.assert_close(found, expected)


def test_an_empty_batch_has_a_graph() -> None:
    for students in (1, 2):
        state = {k: v.requires_grad_() for k, v in stack([Tabular(s) for s in range(students)]).items()}
        result = apply(Tabular(5), state, NUMERIC[:0], IDS[:0])
        assert result.shape == (students, 0, 3)
        gradients = torch.autograd.grad(result.sum(), list(state.values()))
        assert all((gradient == 0).all() for gradient in gradients)


def test_buffers_are_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=r"buffers can not be stacked: 1\.num_batches_tracked, 1\.running_mean"):
        stack([module])


def test_modules_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="module 1 has other parameters"):
        stack([nn.Linear(2, 3), nn.Linear(3, 2)])
    with pytest.raises(ValueError, match="at least one"):
        stack([])


@pytest.mark.parametrize("students", [None, 1, 3])
def test_features_in_parts_are_those_side_by_side(students: int | None) -> None:
    """Shared by all students or each one's own; values and gradients of both orders."""
    generator = torch.Generator().manual_seed(0)
    leading = () if students is None else (students,)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    weight, bias, shared, own = normal(*leading, 4, 5), normal(*leading, 4), normal(6, 2), normal(*leading, 6, 3)
    whole = torch.cat([shared.expand(*leading, 6, 2), own], -1) @ weight.mT + bias.unsqueeze(-2)
    torch.testing.assert_close(affine([shared, own], weight, bias), whole, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(affine([shared, own], weight), whole - bias.unsqueeze(-2), rtol=1e-13, atol=1e-13)
    leaves = (weight, bias, shared, own)
    found, expected = (
        torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        for y in (affine([shared, own], weight, bias), whole)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    again, wanted = (torch.autograd.grad(sum(g.cos().sum() for g in side), leaves) for side in (found, expected))
    torch.testing.assert_close(again, wanted, rtol=1e-12, atol=1e-12)


def test_a_module_that_stacks_is_asked_once_with_all_parameters() -> None:
    class Scaled(nn.Module):
        stacks = True

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, numeric: torch.Tensor) -> torch.Tensor:
            self.seen = self.scale.shape
            return self.scale.unsqueeze(-2) * numeric

    module = Scaled()
    assert apply(module, stack([module] * 3), NUMERIC).shape == (3, 5, 2)
    assert module.seen == (3, 2)


def test_a_vector_of_all_parameters_and_back() -> None:
    state = stack([Tabular(0), Tabular(1)])
    flat = flattened(state)
    assert flat.shape == (2, sum(value[0].numel() for value in state.values()))
    back = unflattened(flat, state)
    assert list(back) == list(state)
    for name, value in state.items():
        assert torch.equal(back[name], value)
