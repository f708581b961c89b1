"""Rows without a label in the objectives: no loss of labels, no part in statistics, all weight on the teachers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives_pack import Threads, make_points
from torch import Tensor

from tgeokd_ray.objectives.geometry import FEATURES, standardise
from tgeokd_ray.objectives.losses import cross_entropy, source_losses
from tgeokd_ray.objectives.points import Context, Points, batch_mean, on_labelled, on_labels_alone
from tgeokd_ray.objectives.rules import RULES, Rule, TGeoOneStep, build_rule

ALONE = Context(progress=0.5)
HIDDEN = torch.tensor([1, 4, 5])  # of six rows
KNOWN = torch.tensor([0, 2, 3])
WHOLE = torch.empty(6, 0, dtype=torch.uint8)


def hide(points: Points) -> Points:
    return replace(points, labels=points.labels.index_fill(0, HIDDEN, -1))


# The ratio of the first is stored with the row, and that of the second depends on all gradients of a step.
OF_THE_BATCH = sorted(kind for kind in RULES.keys() - {"given"} if not RULES[kind].needs)


def part(points: Points, index: Tensor) -> Points:
    return replace(
        points,
        student_logits=points.student_logits[:, index],
        teacher_logits=points.teacher_logits[index],
        labels=points.labels[index],
        row_weights=points.row_weights[index],
    )


def omega_of(rule: Rule) -> dict[str, Tensor]:
    return {name: 3 * value.double() for name, value in rule.init((0, 1), 3, 2).items()}


def test_such_a_row_has_no_loss_of_labels_and_no_gradient() -> None:
    logits = make_points().student_logits.requires_grad_()
    labels = hide(make_points()).labels
    losses = cross_entropy(logits, labels)
    assert (losses[:, HIDDEN] == 0).all()
    torch.testing.assert_close(losses[:, KNOWN], cross_entropy(logits[:, KNOWN], labels[KNOWN]))
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    assert (slope[:, HIDDEN] == 0).all()
    assert (slope[:, KNOWN] != 0).all()


def test_the_teachers_losses_are_as_with_a_label() -> None:
    points = make_points()
    shown, hidden = (
        source_losses(points.student_logits, points.teacher_logits, one.labels, temperature=2.0)
        for one in (points, hide(points))
    )
    assert torch.equal(shown[..., 1:], hidden[..., 1:])


class TestMixture:
    labelled = torch.tensor([True, False, False, False])
    weights = torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.2, 0.3], [1.0, 0.0, 0.0], [0.5, 0.2, 0.3]], dtype=torch.float64)

    def test_all_weight_goes_to_the_teachers_in_their_proportions(self) -> None:
        found = on_labelled(self.weights.unsqueeze(0), self.labelled, torch.empty(4, 0, dtype=torch.uint8))
        expected = [[0.5, 0.2, 0.3], [0.0, 0.4, 0.6], [0.0, 0.5, 0.5], [0.0, 0.4, 0.6]]
        torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))

    def test_only_to_teachers_that_scored_the_row(self) -> None:
        covered = torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]], dtype=torch.uint8)
        found = on_labelled(self.weights.unsqueeze(0), self.labelled, covered)
        expected = [[0.5, 0.2, 0.3], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
        torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))

    def test_the_rule_gets_the_slope_of_labelled_rows_alone(self) -> None:
        weights = self.weights.unsqueeze(0).requires_grad_()
        (slope,) = torch.autograd.grad(on_labelled(weights, self.labelled, WHOLE[:4])[..., 1].sum(), weights)
        assert slope.tolist() == [[[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]]


class TestStatistics:
    """The global mean, the z-scores and the centring of labelled rows do not know that there are others."""

    @pytest.mark.parametrize("name", FEATURES)
    def test_features_of_labelled_rows_are_those_without_the_others(self, name: str) -> None:
        points = hide(make_points())
        found = standardise(FEATURES[name].compute(points), points, ALONE)[:, KNOWN]
        rest = part(points, KNOWN)
        torch.testing.assert_close(
            found, standardise(FEATURES[name].compute(rest), rest, ALONE), rtol=1e-12, atol=1e-14
        )

    @pytest.mark.parametrize("kind", OF_THE_BATCH)
    def test_weights_of_labelled_rows_are_those_without_the_others(self, kind: str) -> None:
        rule = build_rule(kind)
        points = hide(make_points())
        found = rule.weights(omega_of(rule), points, ALONE)
        expected = rule.weights(omega_of(rule), part(points, KNOWN), ALONE)
        torch.testing.assert_close(found[:, KNOWN], expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("kind", OF_THE_BATCH)
    def test_the_teachers_proportions_do_not_depend_on_a_class_in_place_of_the_label(self, kind: str) -> None:
        """The same for all rows without a label, whatever student and teachers say of them."""
        rule = build_rule(kind)
        weights = rule.weights(omega_of(rule), hide(make_points()), ALONE)[:, HIDDEN, 1:]
        # Through a network and a softmax, whose last rows a processor may take otherwise: to the last place.
        rtol = torch.finfo(weights.dtype).eps if kind == "tgeo_one_step" else 0.0
        torch.testing.assert_close(weights, weights[:, :1].expand_as(weights), rtol=rtol, atol=0.0)

    def test_ada_has_no_class_to_go_by(self) -> None:
        weights = build_rule("ada").weights(
            {}, replace(hide(make_points()), class_means=torch.eye(3).expand(2, 3, 3)), ALONE
        )
        assert (weights[:, HIDDEN, 1:] == 0).all()
        assert (weights[:, KNOWN, 1:] == 0.5).all()

    def test_zeros_where_no_row_has_a_label(self) -> None:
        points = replace(make_points(), labels=torch.full((6,), -1))
        assert (batch_mean(points.student_logits, points, ALONE) == 0).all()

    def test_where_all_rows_have_one_the_mean_is_the_plain_one(self) -> None:
        points = make_points()
        shares = points.row_weights / points.row_weights.sum()
        expected = (points.student_logits * shares.unsqueeze(-1)).sum(-2)
        torch.testing.assert_close(batch_mean(points.student_logits, points, ALONE), expected, rtol=1e-14, atol=1e-15)


def slopes(points: Points, context: Context) -> dict[str, Tensor]:
    """Gradients of omega of the weighted mean, over the local rows, of a bent sum of the weights."""
    rule = TGeoOneStep()
    omega = {name: value.requires_grad_() for name, value in omega_of(rule).items()}
    weights = on_labelled(rule.weights(omega, points, context), points.labelled, WHOLE[: len(points.labels)])
    bent = (weights[..., 1] ** 2 + weights[..., 2]) * points.row_weights / points.row_weights.sum()
    return dict(zip(omega, torch.autograd.grad(bent.sum(), list(omega.values())), strict=True))


def test_workers_with_other_shares_of_labels_give_the_gradient_of_one_process() -> None:
    points = hide(make_points(seed=3))
    alone = slopes(points, ALONE)
    shards = [part(points, torch.tensor(index)) for index in ([0, 1, 4, 5], [2], [3])]  # one label in four rows, in one
    threads = Threads(3)

    def work(rank: int) -> dict[str, Tensor]:
        own = slopes(shards[rank], Context(0.5, None, threads.global_mean))
        return threads.mean(own, shards[rank].row_weights.sum())

    for found in threads.run(work):
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-15)  # type: ignore[index]


def test_for_labels_alone_the_share_is_that_of_all_workers() -> None:
    points = hide(make_points(seed=3))
    total, known = points.row_weights.sum(), points.row_weights[KNOWN].sum()
    shards = [part(points, torch.tensor(index)) for index in ([0, 1, 4, 5], [2], [3])]
    threads = Threads(3)

    def work(rank: int) -> Tensor:
        ones = torch.ones(2, len(shards[rank].labels), 1, dtype=torch.float64)
        return on_labels_alone(ones, shards[rank], Context(0.5, None, threads.global_mean))

    for found, shard in zip(threads.run(work), shards, strict=True):
        expected = shard.labelled.double() * total / known
        torch.testing.assert_close(found, expected.reshape(1, -1, 1).expand(2, -1, -1), rtol=1e-12, atol=0)
