"""The two rules of the two phases: the shape that is learned, and the ratio that is given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives_pack import OptimizerSpec, Threads, make_bilevel, make_points
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import WLS, Constant, Given, Labels, TGeoOneStep, TGeoShape, build_rule
from tgeokd_ray.objectives.settings import LEARNED_RULES

CONTEXT = Context(progress=0.25)


def shape_omega(rule: TGeoShape, points: Points) -> dict[str, Tensor]:
    return {name: 3 * value.double() for name, value in rule.init([0, 1], 3, points.num_teachers).items()}


def stored(rows: int = 6, ratios: int = 3, teachers: int = 2) -> tuple[Points, Tensor, Tensor]:
    """Points that carry ratios, their logits [N, Q, M] and gates [N, Q]."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, ratios, teachers, generator=generator, dtype=torch.float64)
    gates = 0.5 + torch.rand(rows, ratios, generator=generator, dtype=torch.float64)
    points = make_points(rows=rows, teachers=teachers)
    return replace(points, ratio_logits=logits, ratio_gates=gates), logits, gates


def test_the_shape_with_one_teacher_is_the_centred_one_step_at_one_half() -> None:
    points, rule = make_points(teachers=1), TGeoShape(hidden=8)
    omega = shape_omega(rule, points)
    one_step = TGeoOneStep(hidden=8, centred=True, level=0.5)
    assert omega.keys() == one_step.init([0, 1], 3, 1).keys()
    weights = rule.weights(omega, points, CONTEXT)
    torch.testing.assert_close(weights, one_step.weights(omega, points, CONTEXT), rtol=1e-13, atol=1e-13)
    assert weights[..., 1].std() > 0.01


def test_several_teachers_have_a_gate_each() -> None:
    """Gates are those of the scores themselves: 2 sigmoid(f), in (0, 2), free of each other and of the batch's mean."""
    points, rule = make_points(teachers=2, rows=50), TGeoShape()
    omega = shape_omega(rule, points)
    assert omega["output.bias"].shape == (2, 3), "a gate's mean is learned too"
    gates = rule.weights(omega, points, CONTEXT)
    assert gates.shape == (2, 50, 3)
    assert ((gates > 0) & (gates < 2)).all()
    assert gates.sum(-1).std() > 0.01, "rows are not normalised"
    moved = {**omega, "output.bias": torch.tensor([0.0, 1.5, 0.0], dtype=torch.float64).expand(2, 3)}
    shifted = rule.weights(moved, points, CONTEXT)
    score = torch.logit(gates / 2)
    torch.testing.assert_close(shifted[..., 1], 2 * (score[..., 1] + 1.5).sigmoid(), rtol=1e-12, atol=1e-12)
    assert torch.equal(shifted[..., [0, 2]], gates[..., [0, 2]])
    indifferent = {name: torch.zeros_like(value) for name, value in omega.items()}
    assert (rule.weights(indifferent, points, CONTEXT) == 1).all()


@pytest.mark.parametrize("teachers", [1, 2])
def test_the_offset_is_added_less_its_mean(teachers: int) -> None:
    points = make_points(teachers=teachers)
    offset = torch.linspace(-3, 3, 6, dtype=torch.float64)
    rule = TGeoShape(offset=True)
    omega = shape_omega(rule, points)
    without = replace(rule, offset=False).weights(omega, points, CONTEXT)
    weights = rule.weights(omega, replace(points, offset=offset), CONTEXT)
    shares = points.row_weights / points.row_weights.sum()
    centred = offset - (offset * shares).sum()

    def scores(of: Tensor) -> Tensor:
        return torch.logit(of[..., 1]) if teachers == 1 else torch.logit(of[..., 1:] / 2).mean(-1)

    torch.testing.assert_close(scores(weights) - scores(without), centred.expand(2, 6), rtol=1e-10, atol=1e-10)
    if teachers > 1:
        assert torch.equal(weights[..., 0], without[..., 0]), "the label's gate has no offset"
    moved = rule.weights(omega, replace(points, offset=offset + 7), CONTEXT)
    torch.testing.assert_close(moved, weights, rtol=1e-12, atol=1e-12)


def test_the_offsets_mean_is_over_the_global_batch() -> None:
    problem = make_bilevel(OptimizerSpec("sgd", 0.01))
    rule, offset = TGeoShape(offset=True), torch.linspace(-2, 2, 12, dtype=torch.float64)
    omega = {name: 3 * value.double() for name, value in rule.init([0], 3, 2).items()}

    def weights(rows: slice, context: Context) -> Tensor:
        part = problem.inner.part(rows)
        points = replace(problem.points(part.teachers.transpose(0, 1)[:1], part), offset=offset[rows])
        return rule.weights(omega, points, context)

    threads, parts = Threads(2), [slice(0, 3), slice(3, 12)]
    found = threads.run(lambda rank: weights(parts[rank], Context(0.5, None, threads.global_mean)))
    alone = weights(slice(0, 12), Context(0.5))
    torch.testing.assert_close(torch.cat(found, 1), alone, rtol=1e-12, atol=1e-12)  # type: ignore[arg-type]


def test_the_shape_is_learned_and_its_options_are_checked() -> None:
    assert "tgeo_shape" in LEARNED_RULES
    assert build_rule("tgeo_shape", features="paper", hidden=4, offset=True) == TGeoShape("paper", 4, True)
    with pytest.raises(ConfigError, match=r"tgeo_shape.offset must be true or false; got 1"):
        build_rule("tgeo_shape", offset=1)
    points = make_points()
    with pytest.raises(ConfigError, match=r"tgeo_shape.offset needs the offset of every row"):
        TGeoShape(offset=True).weights(shape_omega(TGeoShape(), points), points, CONTEXT)


def test_a_given_ratio_with_one_teacher_is_a_sigmoid() -> None:
    points, logits, _ = stored(teachers=1)
    points = replace(points, ratio_gates=None)
    weights = Given(source=1, strength=0.5, shift=-1.5, mean=0.2).weights({}, points, CONTEXT)
    expected = torch.sigmoid(0.2 - 1.5 + 0.5 * (logits[:, 1, 0] - 0.2))
    torch.testing.assert_close(weights[..., 1], expected.expand(2, 6), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, dtype=torch.float64), rtol=1e-14, atol=1e-14)
    as_learned = Given(source=1, mean=0.2).weights({}, points, CONTEXT)
    torch.testing.assert_close(as_learned[0, :, 1], torch.sigmoid(logits[:, 1, 0]), rtol=1e-14, atol=1e-14)


def test_a_given_ratio_with_several_teachers_keeps_the_weight_of_its_row() -> None:
    points, logits, gates = stored(teachers=2)
    weights = Given(source=2, strength=2.0, shift=0.5, mean=-0.3).weights({}, points, CONTEXT)
    powers = torch.exp(-0.3 + 0.5 + 2.0 * (logits[:, 2] + 0.3))
    total = 1 + powers.sum(-1, keepdim=True)
    expected = torch.cat([1 / total, powers / total], -1) * gates[:, 2:] ** 2
    torch.testing.assert_close(weights, expected.expand(2, 6, 3), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("teachers", [1, 2])
def test_strength_zero_is_a_constant(teachers: int) -> None:
    points, _, _ = stored(teachers=teachers)
    weights = Given(strength=0.0, shift=1.0, mean=-0.4).weights({}, points, CONTEXT)
    power = torch.exp(torch.tensor(0.6, dtype=torch.float64)).item()
    constant = Constant(teachers * power / (1 + teachers * power)).weights({}, points, CONTEXT)
    torch.testing.assert_close(weights, constant, rtol=1e-13, atol=1e-13)


def test_gates_are_undone_by_what_they_were_made_from() -> None:
    """Strength 1 and no shift gives back, up to one factor, the gates that the logits and the sum were taken from."""
    learned = 0.1 + torch.rand(6, 3, dtype=torch.float64)
    total = learned.sum(-1)
    points = replace(
        make_points(teachers=2),
        ratio_logits=(learned[:, 1:] / learned[:, :1]).log().unsqueeze(1),
        ratio_gates=(total / total.mean()).unsqueeze(1),
    )
    weights = Given(mean=0.7).weights({}, points, CONTEXT)
    torch.testing.assert_close(weights * total.mean(), learned.expand(2, 6, 3), rtol=1e-12, atol=1e-12)


def test_what_a_given_ratio_lacks_is_said() -> None:
    points, _, _ = stored()
    with pytest.raises(ConfigError, match=r"given.source is ratio 0, but the rows carry 0"):
        Given().weights({}, make_points(), CONTEXT)
    with pytest.raises(ConfigError, match=r"given.source is ratio 3, but the rows carry 3"):
        Given(source=3).weights({}, points, CONTEXT)
    with pytest.raises(ConfigError, match="needs the rows' gates beside the ratio of several teachers"):
        Given().weights({}, replace(points, ratio_gates=None), CONTEXT)
    with pytest.raises(ConfigError) as caught:
        build_rule("given", source=-1, strength=-0.5, shift=float("nan"), mean="0")
    for name in ("source", "strength", "shift", "mean"):
        assert f"given.{name} must be" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_given_has_the_type_of_the_student_and_may_have_no_rows(dtype: torch.dtype) -> None:
    points, _, _ = stored()
    like = replace(points, student_logits=points.student_logits.to(dtype))
    assert Given().weights({}, like, CONTEXT).dtype == dtype
    empty, _, _ = stored(rows=0)
    assert Given().weights({}, empty, CONTEXT).shape == (2, 0, 3)


@pytest.mark.parametrize("teachers", [1, 2])
def test_stored_ratios_of_a_pack_are_each_students_own(teachers: int) -> None:
    """Beside other rules, in any order, with rows that lack a label and with a teacher that lacks rows."""
    rules = [
        Given(source=1, strength=0.5, shift=1.5, mean=0.2),
        Constant(0.3),
        Given(source=2, strength=2.0, mean=-0.3),
        Labels(),
        Given(source=1, strength=0.5, shift=1.5, mean=0.2),
        WLS(),
        Given(source=0, strength=0.0, shift=-3.0),
    ]
    points, _, _ = stored(teachers=teachers)
    points = replace(points, student_logits=torch.randn(len(rules), 6, 3, dtype=torch.float64))
    points = replace(points, labels=points.labels.index_fill(0, torch.tensor([2, 5]), -1))
    covered = torch.ones(6, teachers, dtype=torch.uint8)
    covered[[1, 5], 0] = 0
    together = RulePack.of(rules).mixture({}, points, covered, CONTEXT)
    for r, rule in enumerate(rules):
        own = replace(points, student_logits=points.student_logits[r : r + 1])
        alone = RulePack.of([rule]).mixture({}, own, covered, CONTEXT)
        torch.testing.assert_close(together[r : r + 1], alone, rtol=1e-14, atol=1e-14)
