"""ANL, MGDA, RW and BiKD: what their papers say of them, in closed form and float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives_pack import make_points
from torch import Tensor
from torch.func import vmap

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.losses import cross_entropy
from tgeokd_ray.objectives.points import ALONE, Context
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import ANL, MGDA, RW, BiKD, Constant, Labels, build_rule


@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_anl_is_the_constant_of_its_progress(progress: float, teachers: int) -> None:
    points = make_points(teachers=teachers)
    found = ANL().weights({}, points, Context(progress))
    assert torch.equal(found, Constant(1 - progress).weights({}, points, Context(progress)))


class TestMGDA:
    @pytest.mark.parametrize("seed", range(6))
    def test_no_point_between_the_two_gradients_is_shorter(self, seed: int) -> None:
        """Brute force over 10,001 mixtures: acute and obtuse pairs, and ends of the segment."""
        draw = torch.Generator().manual_seed(seed)
        ends = torch.randn(2, 2, 5, generator=draw, dtype=torch.float64)
        ends[:, 1] = ends[:, 1] * torch.tensor([[0.1], [3.0]]) + ends[:, 0] * (seed % 3)
        points = replace(make_points(teachers=3), gradient_products=ends @ ends.mT)
        weights = MGDA().weights({}, points, ALONE)
        assert torch.equal(weights, weights[:, :1].expand(2, 6, 4))
        ratio = weights[:, 0, 1:].sum(-1)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6).double())
        grid = torch.linspace(0, 1, 10_001, dtype=torch.float64)
        mixtures = ends[:, :1] + grid.reshape(1, -1, 1) * (ends[:, 1:] - ends[:, :1])
        best = grid[mixtures.norm(dim=-1).argmin(1)]
        torch.testing.assert_close(ratio, best, rtol=0, atol=1e-4)

    def test_the_limits(self) -> None:
        def ratio(labels: float, both: float, teachers: float) -> float:
            products = torch.tensor([[[labels, both], [both, teachers]]] * 2, dtype=torch.float64)
            return (
                MGDA().weights({}, replace(make_points(teachers=1), gradient_products=products), ALONE)[0, 0, 1].item()
            )

        assert ratio(1, 0, 1) == 0.5, "perpendicular and of one length"
        assert ratio(1, 2, 9) == 0, "the labels' gradient is the shorter and points the same way"
        assert ratio(9, 2, 1) == 1
        assert ratio(4, 4, 4) == 0, "nothing to choose"
        assert ratio(0, 0, 0) == 0

    def test_it_needs_a_step(self) -> None:
        assert RulePack.of([MGDA(), Labels()]).needs == ("gradient_products",)
        with pytest.raises(ConfigError, match="needs the gradients of a step"):
            MGDA().weights({}, make_points(), ALONE)


class TestRW:
    def test_by_its_definition(self) -> None:
        slopes = torch.tensor([[[3.0, 1.0, -2.0], [-1.0, -1.0, -1.0], [0.5, 0.0, 1.5]]]).double()
        points = replace(make_points(rows=3, students=1), outer_slopes=slopes)
        found = RW().weights({}, points, ALONE)[0]
        third = torch.full((3,), 1 / 3).double()
        expected = torch.stack([torch.tensor([0.75, 0.25, 0]).double(), third, torch.tensor([0.25, 0, 0.75]).double()])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
        assert (found > 0).all(), "1e-8 is left for what does harm"

    def test_it_needs_outer_rows_at_every_step(self) -> None:
        assert RulePack.of([RW()]).outer
        assert not RulePack.of([RW()]).learned
        with pytest.raises(ConfigError, match="needs outer rows at every step"):
            RW().weights({}, make_points(), ALONE)


class TestBiKD:
    def test_it_sees_the_losses_of_the_label_and_nothing_else(self) -> None:
        points, rule = make_points(), BiKD(hidden=5)
        omega = {name: value.double() for name, value in rule.init([1, 2], 3, 2).items()}
        weights = rule.weights(omega, points, ALONE)
        losses = torch.cat(
            [
                cross_entropy(points.student_logits, points.labels).unsqueeze(-1),
                torch.stack([cross_entropy(t, points.labels) for t in points.teacher_logits.unbind(1)], -1).expand(
                    2, -1, -1
                ),
            ],
            -1,
        )

        def network(own: dict[str, Tensor], seen: Tensor) -> Tensor:
            hidden = (seen @ own["hidden.weight"].T + own["hidden.bias"]).relu()
            return (hidden @ own["output.weight"].T + own["output.bias"]).sigmoid()

        torch.testing.assert_close(weights, vmap(network)(omega, losses), rtol=1e-12, atol=1e-12)
        shifted = replace(points, student_logits=points.student_logits + 7.0)
        torch.testing.assert_close(rule.weights(omega, shifted, ALONE), weights, rtol=1e-12, atol=1e-12)

    def test_its_weights_sum_to_anything(self) -> None:
        points, rule = make_points(rows=200), BiKD()
        omega = {name: 6 * value.double() for name, value in rule.init([3, 4], 3, 2).items()}
        weights = rule.weights(omega, points, ALONE)
        assert ((weights > 0) & (weights < 1)).all()
        assert weights.sum(-1).std() > 0.1
        assert rule.learned
        assert rule.additive

    def test_the_network_alone_is_differentiated(self) -> None:
        points, rule = make_points(), BiKD()
        points = replace(points, student_logits=points.student_logits.requires_grad_())
        omega = {name: value.double().requires_grad_() for name, value in rule.init([1, 2], 3, 2).items()}
        gradients = torch.autograd.grad(rule.weights(omega, points, ALONE).square().sum(), list(omega.values()))
        assert all(gradient.abs().max() > 0 for gradient in gradients)
        with pytest.raises(ConfigError, match=r"bikd.hidden must be an integer >= 1; got 0"):
            build_rule("bikd", hidden=0)
