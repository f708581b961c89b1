"""DKD and DIST, rules that name another loss in place of KD: their papers' identities, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objectives_pack import make_points
from torch import Tensor
from worker_threads import Threads

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.objectives.losses import Sources, cross_entropy, distillation
from tgeokd_ray.objectives.points import ALONE, Context, Points
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import DIST, DKD, MGDA, Constant, Labels, Rule, build_rule

TEMPERATURES = torch.tensor([1.0, 3.0], dtype=torch.float64)


def sources_of(points: Points, temperature: float | Tensor = TEMPERATURES, **changes: object) -> Sources:
    known = Sources(points.labels, points.teacher_logits, temperature, points.row_weights)
    return known._replace(**changes)


def kd(points: Points, temperature: Tensor = TEMPERATURES) -> Tensor:
    return distillation(
        points.student_logits.unsqueeze(-2), points.teacher_logits, temperature=temperature.reshape(-1, 1, 1)
    )


class TestDKD:
    @pytest.mark.parametrize("teachers", [1, 3])
    def test_it_is_kd_by_the_identity_of_the_paper(self, teachers: int) -> None:
        """KD = TCKD + (1 - p) NCKD: from alpha TCKD and beta NCKD alone, at each student's temperature."""
        points = make_points(rows=20, classes=5, teachers=teachers)
        known = sources_of(points)
        target = DKD(alpha=1.0, beta=0.0).distillation(points.student_logits, known, ALONE)
        others = DKD(alpha=0.0, beta=1.0).distillation(points.student_logits, known, ALONE)
        assert target.shape == (2, 20, teachers)
        softened = points.teacher_logits.unsqueeze(0) / TEMPERATURES.reshape(-1, 1, 1, 1)
        own = softened.softmax(-1).gather(-1, points.labels.reshape(1, -1, 1, 1).expand(2, 20, teachers, 1)).squeeze(-1)
        torch.testing.assert_close(target + (1 - own) * others, kd(points), rtol=1e-12, atol=1e-13)
        both = DKD(alpha=0.3, beta=4.0).distillation(points.student_logits, known, ALONE)
        torch.testing.assert_close(both, 0.3 * target + 4 * others, rtol=1e-12, atol=1e-13)

    def test_by_its_definition(self) -> None:
        points = make_points(rows=8, classes=4, teachers=1, students=1)
        label = points.labels
        found = DKD(alpha=0.0, beta=1.0).distillation(points.student_logits, sources_of(points, 2.0), ALONE)[0, :, 0]
        for i in range(8):
            rest = [c for c in range(4) if c != label[i]]
            teacher, student = (
                (logits[rest] / 2).log_softmax(-1)
                for logits in (points.teacher_logits[i, 0], points.student_logits[0, i])
            )
            assert found[i].item() == pytest.approx(4 * (teacher.exp() * (teacher - student)).sum().item(), rel=1e-11)

    def test_a_row_without_a_label_has_kd(self) -> None:
        points = make_points(rows=6, classes=4)
        hidden = replace(points, labels=points.labels.index_fill(0, torch.tensor([1, 4]), -1))
        found = DKD(alpha=2.0, beta=5.0).distillation(points.student_logits, sources_of(hidden), ALONE)
        torch.testing.assert_close(found[:, [1, 4]], kd(points)[:, [1, 4]], rtol=1e-12, atol=1e-13)
        assert (found[:, [0, 2]] - kd(points)[:, [0, 2]]).abs().min() > 1e-3

    def test_gradients_are_finite_for_certain_predictions(self) -> None:
        logits = torch.tensor([[[80.0, 0, 0, -80], [-300, 300, 0, 0]]], dtype=torch.float32, requires_grad=True)
        teacher = torch.tensor([[[-90.0, 0, 0, 90]], [[0, 400, 0, 0]]])
        known = Sources(torch.tensor([0, 1]), teacher, 1.0)
        (slope,) = torch.autograd.grad(DKD().distillation(logits, known, ALONE).sum(), logits)
        assert torch.isfinite(slope).all()

    def test_two_classes_are_refused_with_the_way_out(self) -> None:
        with pytest.raises(ConfigError, match=r"'dkd': its term of the other classes is 0 for 2 classes") as caught:
            DKD().init([0], 2, 1)
        assert "use the rule 'constant'" in str(caught.value)
        assert DKD().init([0], 3, 1) == {}


def affine(values: Tensor) -> Tensor:
    """Other probabilities [N, C] whose correlations with `values` are 1 along both axes: their mean with the uniform
    distribution."""
    return 0.3 * values + 0.7 / values.shape[-1]


class TestDIST:
    def test_nothing_is_asked_of_affinely_related_predictions(self) -> None:
        points = make_points(rows=9, classes=4, teachers=1, students=1)
        student = affine(points.teacher_logits[:, 0].softmax(-1)).log().unsqueeze(0).requires_grad_()
        losses = DIST().distillation(student, sources_of(points, 1.0), ALONE)
        torch.testing.assert_close(losses, torch.zeros(1, 9, 1).double(), rtol=0, atol=1e-12)
        (slope,) = torch.autograd.grad(losses.sum(), student)
        assert slope.abs().max() < 1e-6
        assert DIST().distillation(points.student_logits, sources_of(points, 1.0), ALONE).min() > 0.1

    def test_by_its_definition(self) -> None:
        points = make_points(rows=7, classes=4, teachers=2)
        found = DIST(beta=2.0, gamma=3.0).distillation(points.student_logits, sources_of(points), ALONE)
        weights = points.row_weights
        for r, tau in enumerate(TEMPERATURES.tolist()):
            for m in range(2):
                s, t = (points.student_logits[r] / tau).softmax(-1), (points.teacher_logits[:, m] / tau).softmax(-1)
                inter = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(s, t, strict=True)])
                intra = [weighted(s[:, c], t[:, c], weights) for c in range(4)]
                expected = tau**2 * (2 * (1 - inter) + 3 * (1 - sum(intra) / 4))
                torch.testing.assert_close(found[r, :, m], expected, rtol=1e-10, atol=1e-10)

    def test_rows_that_a_teacher_did_not_score_are_no_part_of_the_batch(self) -> None:
        points = make_points(rows=8, classes=4, teachers=2)
        covered = torch.ones(8, 2, dtype=torch.uint8)
        covered[[1, 5], 0] = 0
        known = sources_of(points, covered=covered)
        filled = known._replace(teachers=points.teacher_logits.clone())
        filled.teachers[[1, 5], 0] = 0.0  # type: ignore[index]
        one, other = (DIST().distillation(points.student_logits, given, ALONE) for given in (known, filled))
        kept = [0, 2, 3, 4, 6, 7]
        assert torch.equal(one[:, kept, 0], other[:, kept, 0])
        rest = Sources(points.labels[kept], points.teacher_logits[kept], TEMPERATURES, points.row_weights[kept])
        alone = DIST().distillation(points.student_logits[:, kept], rest, ALONE)
        torch.testing.assert_close(one[:, kept, 0], alone[..., 0], rtol=1e-12, atol=1e-12)

    def test_of_two_classes_the_rows_alone_teach(self) -> None:
        points = make_points(rows=9, classes=2, teachers=1, students=1)
        logits = points.student_logits.requires_grad_()
        both, rows = (
            DIST(beta=beta, gamma=2.0).distillation(logits, sources_of(points, 1.0), ALONE) for beta in (2.0, 0.0)
        )
        torch.testing.assert_close((both - rows).round(), both - rows, rtol=0, atol=1e-9)
        slopes = [torch.autograd.grad(losses.sum(), logits)[0] for losses in (both, rows)]
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-9)
        assert slopes[1].abs().max() > 1e-3

    def test_nothing_is_said_where_nothing_varies(self) -> None:
        logits = torch.zeros(1, 4, 3).double().requires_grad_()
        known = Sources(torch.zeros(4, dtype=torch.int64), torch.zeros(4, 1, 3).double(), 1.0)
        losses = DIST(beta=1.0, gamma=1.0).distillation(logits, known, ALONE)
        assert losses.tolist() == [[[2.0]] * 4]
        assert (torch.autograd.grad(losses.sum(), logits)[0] == 0).all()

    @pytest.mark.parametrize("sizes", [[3, 5, 4], [12, 0], [1, 11]])
    def test_workers_give_the_loss_and_the_gradient_of_one_process(self, sizes: list[int]) -> None:
        points = make_points(rows=12, classes=4)
        draw = torch.Generator().manual_seed(2)
        numbers, start = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((12, 3), (2, 3, 4)))

        def gradient(rows: slice, context: Context) -> tuple[Tensor, Tensor]:
            theta = start.clone().requires_grad_()
            weights = points.row_weights[rows]
            known = Sources(points.labels[rows], points.teacher_logits[rows], TEMPERATURES, weights)
            losses = DIST().distillation(numbers[rows] @ theta, known, context)
            shares = weights / weights.sum().clamp_min(1e-300)
            (slope,) = torch.autograd.grad((losses.sum(-1) * shares).sum(), theta)
            return losses.detach(), slope

        losses, slope = gradient(slice(None), ALONE)
        ends = torch.tensor(sizes).cumsum(0).tolist()
        threads = Threads(len(sizes))

        def work(rank: int) -> tuple[Tensor, Tensor]:
            rows = slice(ends[rank] - sizes[rank], ends[rank])
            own, local = gradient(rows, Context(0.0, None, threads.global_mean))
            return own, threads.mean({"slope": local}, points.row_weights[rows].sum())["slope"]

        found = threads.run(work)
        torch.testing.assert_close(torch.cat([one for one, _ in found], 1), losses, rtol=1e-12, atol=1e-12)  # type: ignore
        for _, one in found:  # type: ignore[misc]
            torch.testing.assert_close(one, slope, rtol=1e-11, atol=1e-13)


def weighted(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """Pearson's correlation of values [N] by their weights."""
    cov = torch.cov(torch.stack([one, other]), aweights=weights, correction=0)
    return cov[0, 1] / (cov[0, 0] * cov[1, 1]).sqrt()


def test_each_student_of_a_pack_has_its_own_loss() -> None:
    rules: list[Rule] = [DKD(), Constant(0.3), DIST(), Labels(), DKD(beta=1.0), MGDA()]
    points = make_points(students=6, classes=4)
    temperature = torch.linspace(1, 3, 6).double()
    known = sources_of(points, temperature)
    found = RulePack.of(rules).losses(points.student_logits, known, ALONE)
    assert found.shape == (6, 6, 3)
    torch.testing.assert_close(found[..., 0], cross_entropy(points.student_logits, points.labels))
    torch.testing.assert_close(found[[1, 3, 5], :, 1:], kd(points, temperature)[[1, 3, 5]], rtol=1e-12, atol=1e-13)
    for r, rule in enumerate(rules):
        alone = RulePack.of([rule]).losses(points.student_logits[r : r + 1], known.take([r]), ALONE)
        torch.testing.assert_close(found[r], alone[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", [DKD(), DIST()], ids=lambda rule: rule.kind)
def test_other_losses_have_a_constant_weight(rule: Rule) -> None:
    points = make_points(teachers=4)
    assert torch.equal(rule.weights({}, points, ALONE), Constant(0.5).weights({}, points, ALONE))
    other = build_rule(rule.kind, value=0.2).weights({}, points, ALONE)
    assert torch.equal(other, Constant(0.2).weights({}, points, ALONE))
    with pytest.raises(ConfigError, match=r"value must be in \[0, 1\]; got 1.5"):
        build_rule(rule.kind, value=1.5)
    for wrong in (-1, True, float("inf")):
        with pytest.raises(ConfigError, match="must be finite and >= 0"):
            build_rule(rule.kind, beta=wrong)
