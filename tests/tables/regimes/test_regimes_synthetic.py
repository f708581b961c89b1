"""Regimes made from nothing: what their names promise, region by region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tgeokd_ray.config.job import Job
from tgeokd_ray.config.sources import merged
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import UNLABELLED
from tgeokd_ray.tables.regimes.catalogue import NAMES, SYNTHETIC, build, table_of
from tgeokd_ray.tables.regimes.describing import describe
from tgeokd_ray.tables.regimes.regime import Regime

# The teacher's accuracy and NLL in the figures of record, by region and as a whole.
SOFT, SOFT_NLL, NULL, NULL_NLL = (0.054, 0.756, 0.547), (7.12, 0.573, 0.942), 0.806, 0.462


@pytest.fixture(scope="module", params=SYNTHETIC)
def regime(request: pytest.FixtureRequest) -> Regime:
    return build(request.param)


def accuracies(name: str, teacher: int = 0) -> list[float]:
    return [summary.teacher_accuracy[teacher] for summary in describe(build(name)).values()]


def nlls(name: str) -> list[float]:
    return [summary.teacher_nll[0] for summary in describe(build(name)).values()]


def noise(name: str) -> list[float]:
    return [summary.label_noise for summary in describe(build(name)).values()]


def test_a_regime_is_a_function_of_its_name(regime: Regime) -> None:
    again = build(regime.name)
    assert again.features.equals(regime.features)
    for name in ("true", "given", "region", "ratios", "logits", "pool", "test"):
        assert np.array_equal(getattr(again, name), getattr(regime, name))


def test_sizes_and_what_a_seed_draws(regime: Regime) -> None:
    first, second = regime.split(0), regime.split(1)
    assert {split: len(rows) for split, rows in first.items()} == {
        "train": 1500,
        "outer": 1000,
        "valid": 1000,
        "test": 6000,
    }
    for parts in (first, second):
        together = np.concatenate(list(parts.values()))
        assert len(np.unique(together)) == len(together) == 9500
    assert np.array_equal(first["test"], second["test"])
    shared = len(np.intersect1d(first["train"], second["train"])) / 1500
    assert shared == pytest.approx(1500 / len(regime.pool), abs=0.05)  # as many as chance gives
    with pytest.raises(ConfigError, match="seed of a regime must be >= 0, got -1"):
        regime.split(-1)


def test_what_a_regime_is_made_of(regime: Regime) -> None:
    num_rows, num_teachers = len(regime.true), regime.ratios.shape[1] - 1
    assert (num_rows, regime.features.num_rows, regime.numeric) == (16_000, 16_000, tuple(f"x{k}" for k in range(10)))
    assert regime.categorical == ()
    assert regime.logits is not None
    assert regime.logits.shape == (num_rows, num_teachers, 3)
    assert np.allclose(regime.ratios.sum(1), 1)
    assert regime.ratios.min() >= 0
    assert np.bincount(regime.true).min() > 0.3 * num_rows
    assert sum(summary.rows for summary in describe(regime).values()) == num_rows
    inputs = np.stack([regime.features[name].to_numpy() for name in regime.numeric])
    assert np.abs(inputs.mean(1)).max() < 0.04
    assert np.abs(inputs.std(1) - 1).max() < 0.03
    assert np.abs(np.corrcoef(inputs) - np.eye(10)).max() < 0.04


def test_a_job_takes_the_settings(regime: Regime) -> None:
    job = Job.model_validate(merged(Job().model_dump(), regime.settings))
    training = job.student.training
    assert (job.metric, job.student.model.hidden, training.batch_rows, training.epochs) == ("nll", (24,), 100, 60)
    assert (training.optimizer.learning_rate, training.patience) == (5e-3, 60)


def test_soft_and_null_are_as_hard_as_in_the_figures_of_record() -> None:
    assert accuracies("synth.soft") == pytest.approx(SOFT, abs=0.02)
    assert nlls("synth.soft") == pytest.approx(SOFT_NLL, rel=0.06)
    assert np.mean(accuracies("synth.null")) == pytest.approx(NULL, abs=0.005)
    assert np.mean(nlls("synth.null")) == pytest.approx(NULL_NLL, abs=0.005)
    regime = build("synth.soft")
    assert np.array_equal(regime.region, np.searchsorted([-0.43, 0.43], regime.features["x0"].to_numpy()))


@pytest.mark.parametrize("name", ["synth.soft", "synth.flip", "synth.flipclean", "synth.drift"])
def test_the_teacher_is_wrong_in_a_and_the_reference_leaves_it_out_there(name: str) -> None:
    wrong, fair, exact = accuracies(name)
    assert wrong < 1 / 3 - 0.2 < fair
    assert exact > 0.5
    assert [s.ratios for s in describe(build(name)).values()] == [(1, 0), (0.25, 0.75), (0, 1)]


@pytest.mark.parametrize("name", ["synth.soft", "synth.multi", "synth.null"])
def test_given_labels_are_the_true_ones_where_noise_is_natural(name: str) -> None:
    assert noise(name) == [0, 0, 0]


@pytest.mark.parametrize("name", ["synth.flip", "synth.flipclean"])
def test_half_the_labels_of_c_are_wrong_evenly(name: str) -> None:
    regime = build(name)
    assert noise(name) == [0, 0, pytest.approx(0.5, abs=0.02)]
    steps = (regime.given - regime.true)[regime.given != regime.true] % 3
    assert (steps == 1).mean() == pytest.approx(0.5, abs=0.03)


def test_flip_and_flipclean_differ_in_outer_and_valid_labels_only() -> None:
    flip, clean = build("synth.flip"), build("synth.flipclean")
    for name in ("true", "given", "region", "ratios", "logits"):
        assert np.array_equal(getattr(flip, name), getattr(clean, name))
    assert flip.features.equals(clean.features)
    differ = [s for s in ("train", "outer", "valid", "test") if not np.array_equal(flip.labels(s), clean.labels(s))]
    assert differ == ["outer", "valid"]
    assert np.array_equal(flip.labels("test"), flip.true)


def test_no_region_of_null_differs() -> None:
    summaries = describe(build("synth.null")).values()
    assert max(accuracies("synth.null")) - min(accuracies("synth.null")) < 0.04
    assert {s.ratios for s in summaries} == {(0.25, 0.75)}


def test_each_teacher_of_multi_is_right_in_one_region() -> None:
    table = np.array([accuracies("synth.multi", teacher) for teacher in range(3)])
    assert (np.diag(table) > 0.5).all()
    assert table[~np.eye(3, dtype=bool)].max() < 1 / 3
    assert np.array([s.ratios for s in describe(build("synth.multi")).values()]).tolist() == np.eye(4)[1:].tolist()


def test_labels_of_drift_are_out_of_date_in_train_only() -> None:
    regime = build("synth.drift")
    parts = regime.split(0)
    assert set(parts["train"]) <= set(regime.pool)
    assert regime.recent is not None
    assert set(parts["outer"]) | set(parts["valid"]) <= set(regime.recent)
    wrong = {split: (regime.labels(split) != regime.true)[rows] for split, rows in parts.items()}
    assert {split: flags.any() for split, flags in wrong.items()} == {
        "train": True,
        "outer": False,
        "valid": False,
        "test": False,
    }
    assert noise("synth.drift")[:2] == [0, 0]
    assert 0.35 < noise("synth.drift")[2] < 0.5  # half the rows, of which some show the true class by chance


def test_two_of_three_labels_are_hidden_in_train_only() -> None:
    regime = build("synth.unlabelled")
    hidden = regime.given == UNLABELLED
    assert hidden.mean() == pytest.approx(2 / 3, abs=0.01)
    assert np.array_equal(regime.given[~hidden], regime.true[~hidden])
    assert np.array_equal(regime.ratios[:, 1], np.where(hidden, 1, 0.75))
    assert (regime.labels("outer") >= 0).all()
    summaries = describe(regime)
    assert (summaries["labelled"].unlabelled, summaries["unlabelled"].unlabelled) == (0, 1)


def test_an_answer_of_teachers_that_are_wrong_leaves_them_out() -> None:
    regime = build("synth.soft")
    assert regime.logits is not None
    asked = regime.with_teacher(regime.logits)
    wrong = regime.logits[:, 0].argmax(1) != regime.true
    assert np.array_equal(asked.ratios, np.where(wrong[:, None], [1.0, 0.0], regime.ratios))
    three = build("synth.multi")
    assert three.logits is not None
    none_right = (three.logits.argmax(-1) != three.true[:, None]).all(1)
    asked = three.with_teacher(three.logits)
    assert np.array_equal(asked.ratios[:, 0] == 1, none_right)
    assert np.array_equal(asked.ratios[~none_right], three.ratios[~none_right])
    with pytest.raises(ValueError, match="must have the shape"):
        regime.with_teacher(regime.logits[:, :, :2])


def test_describe_agrees_with_figures_by_hand() -> None:
    regime = build("synth.flip")
    assert regime.logits is not None
    rows = regime.region == 2
    logits, true = regime.logits[rows, 0], regime.true[rows]
    nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(true)), true]
    summary = describe(regime)["C: labels noisy"]
    assert summary.teacher_nll == (pytest.approx(nll.mean()),)
    assert summary.label_noise == pytest.approx((regime.given != regime.true)[rows].mean())
    without = replace(regime, given=np.where(np.arange(len(rows)) % 4 == 0, UNLABELLED, regime.given))
    assert describe(without)["C: labels noisy"].label_noise == pytest.approx(summary.label_noise, abs=0.02)
    assert describe(without)["C: labels noisy"].unlabelled == pytest.approx(0.25, abs=0.02)


def test_what_build_refuses() -> None:
    with pytest.raises(ConfigError, match=r"no regime 'synth.sofd'; did you mean 'synth.soft'"):
        build("synth.sofd")
    with pytest.raises(ConfigError, match="needs the card and the raw files") as caught:
        build("gas.both")
    assert "datasets/gas.yaml" in str(caught.value.fix)
    with pytest.raises(ConfigError, match="takes neither card nor files"):
        build("synth.soft", files=["x.csv"])
    assert {name: table_of(name) for name in NAMES if "." not in name} == {"criteo": "criteo"}
    assert table_of("digits.both") is None
