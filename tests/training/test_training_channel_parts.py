"""Parts of a channel by themselves: what counts, whom the teacher is, what surprises it, segments, the outer loss."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_table import Small, make_small
from test_training_bilevel import CLASSES, some_rows

from tgeokd_ray.feed.rows import decode
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.models import build
from tgeokd_ray.objectives.points import Context
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import TGeoShape
from tgeokd_ray.objectives.stacking import stack
from tgeokd_ray.training import channel
from tgeokd_ray.training.channel import mean_teacher
from tgeokd_ray.training.evaluation import outcomes
from tgeokd_ray.training.problem import Problem
from tgeokd_ray.training.segments import by_class, by_column
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.surprise import surprise


def distributions(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)


def evaluated(logits: torch.Tensor, *counted: object) -> dict[str, object]:
    index, labels, weights = counted
    evaluation = Evaluation(CLASSES)
    evaluation.add(logits.numpy()[index], labels, weights)  # type: ignore[index, arg-type]
    return evaluation.results()


def test_a_denoised_label_counts_once_for_each_class_and_a_sure_one_as_the_label_itself() -> None:
    rows, logits = some_rows(40, 1), torch.randn(40, CLASSES, generator=torch.Generator().manual_seed(2))
    sure = replace(rows, targets=torch.nn.functional.one_hot(rows.labels, CLASSES).float())
    plain, by_target = (evaluated(logits, *outcomes(one, weighted=True)) for one in (rows, sure))
    assert plain == by_target
    soft = replace(rows, targets=distributions(40, 3))
    found = evaluated(logits, *outcomes(soft, weighted=False))
    assert found["nll"] == pytest.approx(
        -(soft.targets * logits.double().log_softmax(-1)).sum(-1).mean().item(), rel=1e-6
    )
    hits = soft.targets[torch.arange(40), logits.argmax(-1)].mean().item()
    assert found["accuracy"] == pytest.approx(hits, rel=1e-6)


def problem(offset: bool = False) -> tuple[Problem, dict[str, torch.Tensor]]:
    shape = {"num_numeric": 4, "num_ids": 7, "num_categorical": 2, "num_classes": CLASSES}
    module = build({"kind": "mlp", "hidden": [5], "embedding": 2}, generator=torch.Generator().manual_seed(0), **shape)
    module = module.double()
    rule = RulePack.of([TGeoShape(offset=offset)])
    means = torch.full((1, CLASSES, CLASSES), 1 / CLASSES, dtype=torch.float64)
    return Problem(module, rule, torch.ones(1), means), stack([module])


def test_the_outer_loss_is_the_weighted_cross_entropy_to_denoised_labels() -> None:
    what, theta = problem()
    rows = replace(some_rows(30, 5), targets=distributions(30, 6))
    logs = what.logits(theta, rows)[0].log_softmax(-1)
    expected = (-(rows.targets * logs).sum(-1) * rows.weights).sum() / rows.weights.sum()
    assert what.outer_loss(theta, rows).item() == pytest.approx(expected.item(), rel=1e-12)
    assert what.outer_loss(theta, some_rows(30, 5)).item() != pytest.approx(expected.item(), rel=1e-3)


def test_the_offset_of_rows_moves_the_shape_where_the_rule_asks_for_it() -> None:
    what, theta = problem(offset=True)
    rows = replace(some_rows(30, 5), offset=torch.linspace(-2, 2, 30, dtype=torch.float64).unsqueeze(1))
    omega = {name: value.double() for name, value in what.rule.init((0,), CLASSES, 1).items()}
    silent = {name: torch.zeros_like(value) for name, value in omega.items()}
    points = what.points(what.logits(theta, rows), rows)
    ratio = what.rule.mixture(silent, points, rows.covered, Context(progress=0.0))[0, :, 1]
    centred = rows.offset.squeeze(1) - (rows.offset.squeeze(1) * rows.weights).sum() / rows.weights.sum()
    torch.testing.assert_close(ratio, centred.sigmoid(), rtol=1e-9, atol=1e-9)


def test_the_teacher_is_the_mean_of_those_that_scored_a_row() -> None:
    rows = some_rows(4, 7)
    two = torch.randn(4, 2, CLASSES, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    covered = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=torch.uint8)
    otherwise, each = distributions(4, 9), two.softmax(-1)
    teacher, scored = mean_teacher(replace(rows, logits=two, covered=covered), otherwise)
    expected = torch.stack([each[0].mean(0), each[1, 0], each[2, 1], otherwise[3]])
    torch.testing.assert_close(teacher, expected)
    assert scored.tolist() == [True, True, True, False]
    everywhere, all_scored = mean_teacher(replace(rows, logits=two), otherwise)
    torch.testing.assert_close(everywhere, each.mean(1))
    assert all_scored.all()


def test_rows_without_label_or_teacher_weigh_nothing_and_keep_what_they_have(small: Small, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Whatever stands in the place of their label or logits, all others are judged alike."""
    wide = make_small(small.root / "wide")
    spec: RunSpec = wide.spec("channel", kind="channels", rule={"kind": "labels"}, splits=("train", "outer"), folds=2)
    monkeypatch.setattr(channel, "_out_of_fold", lambda spec, rows, folds, classes: distributions(len(rows), 4))

    def judged(junk: float) -> channel.Judged:
        def lacking(table, num_classes):  # type: ignore[no-untyped-def]
            rows = decode(table, num_classes)
            row = rows.row_id % 10
            covered = (row != 1).to(torch.uint8).unsqueeze(1)
            logits = torch.where(covered.bool().unsqueeze(-1), rows.logits, junk * torch.arange(3.0))
            return replace(rows, labels=torch.where(row == 0, -1, rows.labels), covered=covered, logits=logits)

        monkeypatch.setattr(channel, "decode", lacking)
        return channel.judge(spec, channel.train_rows(spec))

    one, other = judged(1.0), judged(50.0)
    torch.testing.assert_close(one.targets, other.targets)
    unlabelled, unscored = (one.rows.row_id % 10 == digit for digit in (0, 1))
    assert torch.equal(one.known, ~(unlabelled | unscored))
    assert (one.targets[unlabelled] == 0).all()
    own = torch.nn.functional.one_hot(one.rows.labels[unscored], CLASSES).double()
    assert torch.equal(one.targets[unscored], own)
    assert not one.suspicious[unlabelled | unscored].any()


def test_a_calibrated_teacher_is_as_surprised_as_it_expects_and_wrong_labels_surprise_it(
    small: Small, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    flipped = make_small(tmp_path / "flipped", flip=0.6)
    calm, upset = (surprise(one.table, [one.logits], ("outer", "valid")) for one in (small, flipped))
    logits = np.concatenate(
        [pq.read_table(small.logits.file(f"{s}-00000.parquet"))["logits"].to_pylist() for s in ("outer", "valid")]
    )
    labels = np.concatenate(
        [pq.read_table(small.table.file(f"{s}-00000.parquet"))["label"] for s in ("outer", "valid")]
    )
    logs = torch.tensor(logits, dtype=torch.float64).log_softmax(-1)
    told = -logs[torch.arange(len(labels)), torch.tensor(labels).long()].mean().item()
    assert calm.found == pytest.approx(told, rel=1e-6)
    assert calm.expected == pytest.approx(-(logs.exp() * logs).sum(-1).mean().item(), rel=1e-6)
    assert calm.rows == upset.rows == 400
    assert calm.found - calm.expected < 0.1 < 0.3 < upset.found - upset.expected
    nobody = surprise(small.table, [small.logits], ("nowhere",))
    assert (nobody.found, nobody.expected, nobody.rows) == (0.0, 0.0, 0)


def test_segments_are_weighted_means_and_columns_come_by_how_far_apart_their_halves_are() -> None:
    rows = 400
    generator = torch.Generator().manual_seed(1)
    numeric = torch.randn(rows, 8, generator=generator)
    numeric[:, 7] = 0.0
    noise = 0.1 + 0.5 * (numeric[:, 2] > 0) + 0.2 * (numeric[:, 5] > 0)
    weights, labels = torch.rand(rows, generator=generator) + 0.5, torch.arange(rows) % 2
    weights[labels == 1] = 0.0
    classes = by_class(labels, {"noise": noise}, weights, 3)
    mean = float((noise * weights).sum() / weights.sum())
    assert classes["0"]["noise"] == pytest.approx(mean, rel=1e-5)
    assert classes["0"]["rows"] == rows // 2
    assert classes["1"] == classes["2"] == {"rows": 0, "noise": None}
    found = by_column(numeric, [f"n{k}" for k in range(8)], {"noise": noise}, weights)
    assert [one["column"] for one in found][:2] == ["n2", "n5"]
    assert len(found) == 5
    apart = [abs(one["high"]["noise"] - one["low"]["noise"]) for one in found]
    assert apart == sorted(apart, reverse=True)
    assert "n7" not in {
        one["column"] for one in by_column(numeric[:, 5:], ["n5", "n6", "n7"], {"noise": noise}, weights)
    }
    assert math.isclose(found[0]["high"]["noise"] - found[0]["low"]["noise"], 0.5, abs_tol=0.1)
