"""Rules give weights on the simplex, and each what its name says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives_pack import make_points
from torch import Tensor

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.fusion import FusionNetwork
from tgeokd_ray.objectives.geometry import FEATURES
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rules import ADA, ANL, RULES, Constant, Frozen, Labels, Rule, TGeoOneStep, build_rule
from tgeokd_ray.objectives.stacking import stack

CONTEXT = Context(progress=0.25)
ALL_RULES: list[Rule] = [
    Labels(),
    Constant(0.0),
    Constant(0.7),
    Constant(1.0),
    ADA(),
    ANL(),
    Frozen(),
    Frozen("label_aligned", 5),
    *[TGeoOneStep(name, 8, centred, 0.3) for name in FEATURES for centred in (True, False)],
]


def omega_of(rule: Rule, points: Points, scale: float = 3.0) -> dict[str, Tensor]:
    students, _, classes = points.student_logits.shape
    start = rule.init(list(range(students)), classes, points.num_teachers)
    return {name: (scale * value).to(points.student_logits.dtype) for name, value in start.items()}


@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
def test_weights_are_on_the_simplex(rule: Rule, dtype: torch.dtype, teachers: int) -> None:
    points = make_points(teachers=teachers)
    points = replace(points, student_logits=points.student_logits.to(dtype))
    weights = rule.weights(omega_of(rule, points), points, CONTEXT)
    assert weights.shape == (2, 6, 1 + teachers)
    assert weights.dtype == dtype
    assert (weights >= 0).all()
    ones = torch.ones(2, 6, dtype=dtype)
    torch.testing.assert_close(weights.sum(-1), ones, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_labels_and_constants() -> None:
    points = make_points(teachers=2)
    assert (Labels().weights({}, points, CONTEXT) == torch.tensor([1.0, 0.0, 0.0])).all()
    expected = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    torch.testing.assert_close(Constant(0.6).weights({}, points, CONTEXT)[1, 3], expected, rtol=0, atol=1e-15)
    each = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(Constant((0.5, 0.25)).weights({}, points, CONTEXT)[1, 3], each, rtol=0, atol=1e-15)
    with pytest.raises(ConfigError, match=r"one weight for each of 3 teachers; got \[0.5, 0.25\]"):
        Constant((0.5, 0.25)).init([0], 3, 3)
    no_teacher = replace(points, teacher_logits=points.teacher_logits[:, :0], class_means=points.class_means[:0])
    assert (Labels().weights({}, no_teacher, CONTEXT) == 1).all()


def test_one_teacher_is_a_sigmoid_around_the_level() -> None:
    """a = sigmoid(f - mean f + logit level), f the difference of the two scores, mean weighted by rows."""
    points, rule = make_points(teachers=1), TGeoOneStep(level=0.3)
    omega = omega_of(rule, points)
    teacher = rule.weights(omega, points, CONTEXT)[..., 1]
    biased = {**omega, "output.bias": torch.zeros(2, 2, dtype=torch.float64)}
    uncentred = replace(rule, centred=False, level=0.5).weights(biased, points, CONTEXT)
    f = torch.logit(uncentred[..., 1])
    assert f.std(1).min() > 0.05
    shares = points.row_weights / points.row_weights.sum()
    centred = f - (f * shares).sum(1, keepdim=True)
    expected = torch.sigmoid(centred + torch.logit(torch.tensor(0.3, dtype=torch.float64)))
    torch.testing.assert_close(teacher, expected, rtol=1e-12, atol=1e-12)
    mean_logit = (torch.logit(teacher) * shares).sum(1)
    level = torch.logit(torch.tensor([0.3, 0.3], dtype=torch.float64))
    torch.testing.assert_close(mean_logit, level, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("centred", [True, False])
def test_indifferent_scores_give_the_level(centred: bool) -> None:
    """With all scores zero the teachers share the level in equal parts."""
    points, rule = make_points(teachers=2), TGeoOneStep(centred=centred, level=0.6)
    weights = rule.weights(omega_of(rule, points, scale=0.0), points, CONTEXT)
    expected = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64).expand(2, 6, 3)
    torch.testing.assert_close(weights, expected, rtol=1e-14, atol=1e-14)


def test_centring_is_part_of_the_graph() -> None:
    """The mean logit does not move with any parameter once the mean is taken off; uncentred it does."""
    points = make_points(teachers=1)
    for centred in (True, False):
        rule = TGeoOneStep(centred=centred)
        omega = {name: value.requires_grad_() for name, value in omega_of(rule, points).items()}
        logit = torch.logit(rule.weights(omega, points, CONTEXT)[..., 1])
        mean = (logit * points.row_weights / points.row_weights.sum()).sum()
        gradients = torch.autograd.grad(mean, list(omega.values()))
        assert all(gradient.abs().max() < 1e-12 for gradient in gradients) == centred
        assert ("output.bias" in omega) != centred, "a bias would have no gradient but rounding"


def test_only_the_fusion_network_is_differentiated() -> None:
    points = make_points()
    points = replace(points, student_logits=points.student_logits.requires_grad_())
    rule = TGeoOneStep()
    omega = {name: value.requires_grad_() for name, value in omega_of(rule, points).items()}
    weights = rule.weights(omega, points, CONTEXT)
    gradients = torch.autograd.grad(
        weights[..., 0].square().sum(), [*omega.values(), points.student_logits], allow_unused=True
    )
    assert gradients[-1] is None
    assert all(gradient.abs().max() > 0 for gradient in gradients[:-1])


def test_frozen_never_changes() -> None:
    """It stays at its initialisation, near one half, whatever is asked of it: no graph leads to its parameters."""
    points, rule = make_points(), Frozen()
    assert not rule.learned
    omega = {name: value.double().requires_grad_() for name, value in rule.init([1, 2], 3, 2).items()}
    weights = rule.weights(omega, points, CONTEXT)
    assert not weights.requires_grad
    assert torch.equal(weights, rule.weights(omega, points, Context(progress=1.0)))
    assert (weights[..., 0] - 0.5).abs().max() < 0.2
    same = {name: value.double() for name, value in rule.init([1, 2], 3, 2).items()}
    assert all(torch.equal(same[name], value) for name, value in omega.items())


def test_students_differ_by_their_seeds_only() -> None:
    rule = TGeoOneStep()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    pack = rule.init([3, 4, 3], 3, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(pack["hidden.weight"][0], pack["hidden.weight"][2])
    assert not torch.equal(pack["hidden.weight"][0], pack["hidden.weight"][1])
    assert torch.equal(pack["output.weight"][1:2], rule.init([4], 3, 2)["output.weight"])


def test_the_fusion_networks_initial_scale() -> None:
    network = FusionNetwork(2000, 3, hidden=1000, generator=torch.Generator().manual_seed(0))
    assert network.hidden.weight.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.01)
    assert network.output.weight.std().item() == pytest.approx(0.1 * (1 / 1000) ** 0.5, rel=0.05)
    assert (network.hidden.bias == 0).all()
    assert network.output.weight.shape == (4, 1000)
    assert set(stack([network])) == {"hidden.weight", "hidden.bias", "output.weight", "output.bias"}
    assert FusionNetwork(4, 1).hidden.weight.is_meta


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
def test_no_rows(rule: Rule) -> None:
    points = make_points(rows=0)
    assert rule.weights(omega_of(rule, points), points, CONTEXT).shape == (2, 0, 3)


def test_build_rule() -> None:
    assert build_rule("labels") == Labels()
    assert build_rule("constant", value=0.25) == Constant(0.25)
    assert build_rule("frozen", hidden=4) == Frozen(hidden=4)
    assert build_rule("tgeo_one_step", features="paper", centred=False) == TGeoOneStep("paper", centred=False)
    assert {kind: rule.kind for kind, rule in RULES.items()} == {kind: kind for kind in RULES}
    assert [kind for kind, rule in RULES.items() if rule.learned] == ["bikd", "tgeo_one_step", "tgeo_shape"]


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("tgeo_onestep", {}, ["unknown rule kind 'tgeo_onestep'; did you mean 'tgeo_one_step'?"]),
        ("xyzzy", {}, [f"unknown rule kind 'xyzzy'; known: {', '.join(RULES)}"]),
        ("constant", {"vaule": 0.5}, ["unknown option 'vaule' of rule 'constant'; did you mean 'value'?"]),
        ("labels", {"value": 0.5}, ["unknown option 'value' of rule 'labels'; there are no options"]),
        ("tgeo_one_step", {"levle": 0.5, "hiden": 3}, ["did you mean 'level'?", "did you mean 'hidden'?"]),
        ("constant", {"value": 1.5}, ["constant.value must be in [0, 1]; got 1.5"]),
        ("constant", {"value": [0.7, 0.4]}, ["constant.value must be weights >= 0 whose sum is at most 1; got [0.7"]),
        ("constant", {"value": [0.7, -0.1]}, ["constant.value must be weights >= 0"]),
        ("constant", {"value": True}, ["constant.value must be in [0, 1]; got True"]),
        ("frozen", {"hidden": 0}, ["frozen.hidden must be an integer >= 1; got 0"]),
        (
            "tgeo_one_step",
            {"level": 1, "features": "edge", "centred": 1, "hidden": 2.5},
            [
                "tgeo_one_step.level must be in (0, 1)",
                "features must be one of paper",
                "centred must be",
                "hidden must",
            ],
        ),
    ],
)
def test_wrong_rules_are_explained_at_once(kind: str, options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_rule(kind, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("rule", [rule() for kind, rule in RULES.items() if kind != "labels"], ids=repr)
def test_a_rule_that_needs_a_teacher_says_so(rule: Rule) -> None:
    with pytest.raises(ConfigError, match="needs at least one teacher, got 0"):
        rule.init([0], 3, 0)
