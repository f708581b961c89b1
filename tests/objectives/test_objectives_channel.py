"""The channel finds the noise that was made, leaves clean labels alone, and never sees a row's own label."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from channel_rows import CLASSES, ChannelRows, channel_rows
from torch import Tensor

from tgeokd_ray.objectives import channel_nets
from tgeokd_ray.objectives.channel import Channel, fit_channel, posteriors

NOISY = (0.0, 0.3, 0.6)


@cache
def fitted(rates: tuple[float, float, float], teacher: str = "right") -> tuple[ChannelRows, Channel]:
    rows = channel_rows(2000, rates, teacher=teacher)
    return rows, rows.fit()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> ChannelRows:
    """Few rows and few steps, for laws that hold at any number of steps."""
    monkeypatch.setattr(channel_nets, "STEPS", 50)
    return channel_rows(150, NOISY)


def at(values: Tensor, classes: Tensor) -> Tensor:
    return values.gather(-1, classes.unsqueeze(-1)).squeeze(-1)


def auc(scores: Tensor, positive: Tensor) -> float:
    """The share of pairs (positive, negative) in the right order; ties count half."""
    difference = scores[positive].unsqueeze(1) - scores[~positive]
    return ((difference > 0).double() + 0.5 * (difference == 0)).mean().item()


def test_noise_is_found_where_it_was_made() -> None:
    rows, channel = fitted(NOISY)
    assert rows.by_region(channel.noise) == pytest.approx(NOISY, abs=0.08)
    assert channel.mixture_nll < min(channel.student_nll, channel.teacher_nll) - 0.05
    right = rows.labels == rows.clean
    assert auc(at(channel.targets, rows.labels), right) > 0.96
    for targets in (channel.targets, channel.hard_targets):
        assert (targets.argmax(-1) == rows.clean).double().mean() > right.double().mean() + 0.12
        assert at(targets, rows.clean).mean() > at(torch.eye(CLASSES)[rows.labels], rows.clean).mean() + 0.1


def test_clean_labels_stay_as_they_are() -> None:
    rows, channel = fitted((0.0, 0.0, 0.0))
    assert channel.noise.mean() < 0.02
    assert at(channel.targets, rows.labels).mean() > 0.99
    assert (at(channel.targets, rows.labels) > 0.5).double().mean() > 0.995


def test_a_teacher_that_is_wrong_in_a_region_is_not_believed_there() -> None:
    rows, channel = fitted(NOISY, "wrong")
    credibility = rows.by_region(channel.credibility)
    assert credibility[0] < 0.15
    assert min(credibility[1:]) > 0.75
    there = rows.region == 0
    assert at(channel.targets, rows.labels)[there].mean() > 0.97, "its labels are clean, and are kept"
    assert rows.by_region(channel.noise)[1:] == pytest.approx(NOISY[1:], abs=0.15)


def test_a_teacher_of_the_same_noise_neither_helps_nor_harms() -> None:
    rows, channel = fitted(NOISY, "noisy")
    assert channel.noise.mean() < 0.1
    right = (rows.labels == rows.clean).double().mean()
    assert (channel.targets.argmax(-1) == rows.clean).double().mean() > right - 0.02


def test_the_order_of_classes_matters_no_more_than_a_seed() -> None:
    rows, channel = fitted(NOISY)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = rows.fit(
        student=rows.student[:, order], teacher=rows.teacher[:, order], labels=torch.argsort(order)[rows.labels]
    )
    assert moved.mixture_nll == pytest.approx(channel.mixture_nll, abs=0.005)
    assert rows.by_region(moved.noise) == pytest.approx(rows.by_region(channel.noise), abs=0.03)
    assert (moved.targets - channel.targets[:, order]).abs().mean() < 0.02, "seeds differ by .009"


def test_the_seed_decides(few: ChannelRows) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = few.fit(seed=3), few.fit(seed=3), few.fit(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.targets, same.targets)
    assert one.mixture_nll == same.mixture_nll
    assert not torch.equal(one.targets, other.targets)


def test_the_best_number_of_steps_is_kept(few: ChannelRows, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, channels = [], []
    for steps in (50, 200, 400):
        monkeypatch.setattr(channel_nets, "STEPS", steps)
        channels.append(few.fit())
        losses.append(channels[-1].mixture_nll)
    assert losses == sorted(losses, reverse=True)
    assert torch.equal(channels[1].targets, channels[2].targets), "150 rows are overfitted before 200 steps"


def test_no_net_learns_from_the_label_of_a_row_that_it_judges(few: ChannelRows) -> None:
    labels = few.labels.clone()
    labels[7] = (labels[7] + 1) % CLASSES
    before, after = few.fit(), few.fit(labels=labels)
    same = before.credibility == after.credibility
    assert torch.equal(same, few.folds == 7 % 5), "the fold's own net is the same bit for bit, all others moved"
    assert torch.equal(before.noise == after.noise, same)


def test_rows_without_weight_teach_nothing_and_outliers_are_cut(few: ChannelRows) -> None:
    known = torch.arange(150) < 120
    weights = known.double()
    labels = torch.where(known, few.labels, 0)
    whole = few.fit(labels=labels, row_weights=weights)
    alone = fit_channel(few.student[:120], few.teacher[:120], labels[:120], few.folds[:120], rows=few.inputs[:120])
    torch.testing.assert_close(whole.targets[:120], alone.targets, rtol=1e-6, atol=1e-6)
    assert whole.mixture_nll == pytest.approx(alone.mixture_nll, rel=1e-9)
    assert (whole.student_nll, whole.teacher_nll) == pytest.approx((alone.student_nll, alone.teacher_nll), rel=1e-12)
    far = torch.where(few.inputs.abs() > 3, 1e6 * few.inputs, few.inputs.clamp(-3, 3))
    assert (far.abs() > 3).any()
    assert torch.equal(few.fit(rows=far).targets, few.fit().targets)


def test_rows_may_be_left_out_and_types_are_kept(few: ChannelRows) -> None:
    without = few.fit(rows=None)
    assert not torch.equal(without.targets, few.fit().targets)
    single = few.fit(student=few.student.float(), teacher=few.teacher.float())
    for values in (single.credibility, single.noise, single.teacher_part, single.targets, single.hard_targets):
        assert values.dtype == torch.float32
        assert not values.requires_grad
    torch.testing.assert_close(single.targets.double(), few.fit().targets, rtol=0, atol=1e-2)


def test_posteriors_by_bayes_rule() -> None:
    student, teacher = [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]
    pi, rho, label = 0.7, 0.4, 1
    likelihood = [(1 - rho) * (c == label) + rho / 3 for c in range(3)]
    by_teacher = pi * sum(t * each for t, each in zip(teacher, likelihood, strict=True))
    total = by_teacher + (1 - pi) * student[label]
    joint = [t * each for t, each in zip(teacher, likelihood, strict=True)]
    values = [torch.tensor([each], dtype=torch.float64) for each in (student, teacher, pi, rho)]
    part, posterior = posteriors(values[0], values[1], torch.tensor([label]), values[2], values[3])
    assert part.item() == pytest.approx(by_teacher / total, rel=1e-12)
    assert posterior[0].tolist() == pytest.approx([each / sum(joint) for each in joint], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_noise_the_class_is_the_label_and_in_nothing_but_noise_the_teachers(dtype: torch.dtype) -> None:
    rows = channel_rows(150, NOISY)
    student, teacher = rows.student.to(dtype), rows.teacher.to(dtype)
    pi, none, all_of_it = (torch.full((150,), value, dtype=dtype) for value in (0.8, 0.0, 1.0))
    one_hot = torch.eye(CLASSES, dtype=dtype)[rows.labels]
    assert torch.equal(posteriors(student, teacher, rows.labels, pi, none)[1], one_hot)
    torch.testing.assert_close(posteriors(student, teacher, rows.labels, pi, all_of_it)[1], teacher)
    assert (posteriors(student, teacher, rows.labels, none, pi)[0] == 0).all(), "nobody believes the teacher"
    assert (posteriors(student, teacher, rows.labels, all_of_it, pi)[0] == 1).all()
    part, posterior = posteriors(
        *(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])), torch.tensor([1]), torch.ones(1) / 2, torch.zeros(1)
    )
    assert part.item() == 0
    assert posterior.sum() == 0, "impossible: nothing is made of it, and it has no part"


def test_targets_are_distributions_between_the_label_and_the_posterior() -> None:
    rows, channel = fitted(NOISY, "wrong")
    _, posterior = posteriors(rows.student, rows.teacher, rows.labels, channel.credibility, channel.noise)
    one_hot = torch.eye(CLASSES, dtype=torch.float64)[rows.labels]
    part = channel.teacher_part.unsqueeze(-1)
    torch.testing.assert_close(channel.targets, part * posterior + (1 - part) * one_hot, rtol=1e-12, atol=1e-12)
    expected = torch.where(part > 0.5, posterior, one_hot)
    torch.testing.assert_close(channel.hard_targets, expected, rtol=1e-12, atol=1e-12)
    assert 200 < (channel.teacher_part < 0.5).sum() < 1800, "both kinds of row are there"
    ones = torch.ones(2000, dtype=torch.float64)
    torch.testing.assert_close(channel.targets.sum(-1), ones, rtol=1e-9, atol=0)
    assert ((channel.noise > 0) & (channel.noise < 0.9)).all()


def test_the_offset_is_a_bounded_logit() -> None:
    _, channel = fitted(NOISY, "wrong")
    most = torch.logit(torch.tensor(0.95, dtype=torch.float64))
    assert channel.offset.abs().max() <= most + 1e-12
    inside = (channel.credibility > 0.05) & (channel.credibility < 0.95)
    torch.testing.assert_close(channel.offset[inside].sigmoid(), channel.credibility[inside])
    assert (channel.offset[channel.credibility > 0.95] - most).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": torch.zeros(20, dtype=torch.int64)}, "folds must be 0..F-1 with F >= 2"),
        ({"folds": torch.arange(20) % 2 * 2}, r"no fold empty, got sizes \[10, 0, 10\]"),
        ({"labels": torch.arange(20) % 5 - 1}, "labels must be classes 0..4"),
        ({"labels": torch.arange(20) % 6}, "labels must be classes 0..4"),
        ({"labels": torch.zeros(19, dtype=torch.int64)}, "must match the student's 20 rows of 5"),
        ({"rows": torch.zeros(19, 2)}, "must match the student's 20 rows of 5"),
        ({"teacher": torch.full((20, 4), 0.25)}, "must match the student's 20 rows of 5"),
        ({"teacher": torch.zeros(20, 5)}, "must be distributions"),
        ({"student": torch.full((20, 5), float("nan"))}, "must be distributions"),
        ({"rows": torch.full((20, 2), float("inf"))}, "rows finite numbers"),
    ],
)
def test_what_can_not_be_fitted_is_refused(changes: dict[str, Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        channel_rows(20, NOISY).fit(**changes)
