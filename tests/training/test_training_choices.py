"""When a run stops, which epoch it keeps, which checkpoint it goes on from, and what decides its digest."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import Killed, StopsAt, run
from worker_ranks import checkpoint_step, on_ranks

from tgeokd_ray.artifacts import load_tensors, open_artifact
from tgeokd_ray.errors import DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import RULES, build_rule
from tgeokd_ray.objectives.settings import LEARNED_RULES, NEEDS, OUTER_RULES, OptimizerSpec
from tgeokd_ray.training.reuse import run_inputs
from tgeokd_ray.training.spec import Fusion


@pytest.mark.parametrize("patience", [0, 1])
def test_the_least_patience_ends_with_the_first_epoch_that_is_no_better(small, patience: int) -> None:  # type: ignore[no-untyped-def]
    options: dict[str, object] = {"rule": {"kind": "labels"}, "metric": "nll", "epochs": 40, "patience": patience}
    (finished,) = run(small.spec(optimizer=OptimizerSpec(kind="adam", learning_rate=0.1), **options))
    curve = [entry["valid_nll"] for entry in finished.metrics["history"]]
    assert 1 < len(curve) < 40
    assert curve[:-1] == sorted(curve[:-1], reverse=True), "every epoch but the last was a new best"
    assert curve[-1] >= curve[-2]
    assert finished.metrics["epoch"] == len(curve) - 2


def test_n4_a_metric_that_valid_does_not_have_ends_the_run_with_the_reason(small, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("tgeokd_ray.training.loop.signed", lambda results, metric: -float("inf"))
    (finished,) = run(small.spec())
    assert isinstance(finished.error, DataError)
    assert "auc, by which the best epoch is chosen, is undefined on the valid rows" in str(finished.error)
    assert not (small.root / "students").exists() or not list((small.root / "students").glob("*/v*"))


def test_k3_a_run_of_another_configuration_leaves_checkpoints_alone(small) -> None:  # type: ignore[no-untyped-def]
    mine, other = small.spec(checkpoint_seconds=0.0), small.spec(checkpoint_seconds=0.0, temperature=3.0)
    with pytest.raises(Killed):
        run(mine, progress=StopsAt(9, Killed()))
    run(other)
    progress = Silent()
    run(mine, progress=progress)
    assert any("continued from step" in warning for warning in progress.warnings)


def test_an_ensemble_of_learned_students_keeps_every_ratio(small) -> None:  # type: ignore[no-untyped-def]
    seeds = (0, 1, 2)
    (ensemble,) = run(small.spec("ensemble", model_seeds=seeds, ensemble=True))
    alone = [run(small.spec(f"alone-{seed}", model_seeds=(seed,)))[0] for seed in seeds]
    mean = sum(finished.metrics["ratio"]["mean"] for finished in alone) / 3
    assert ensemble.metrics["ratio"]["mean"] == pytest.approx(mean, abs=1e-5)
    tensors = load_tensors(Path(ensemble.artifact) / "fusion.safetensors")
    assert {name.split(".")[1] for name in tensors} == {"0", "1", "2"}


def test_only_what_a_rule_uses_decides_its_digest(small) -> None:  # type: ignore[no-untyped-def]
    def same(rule: dict[str, object], **changes: object) -> bool:
        return run_inputs(small.spec(rule=rule)) == run_inputs(small.spec(rule=rule, **changes))

    labels, constant, learned = {"kind": "labels"}, {"kind": "constant", "value": 0.5}, {"kind": "tgeo_one_step"}
    assert [same(rule, fusion=Fusion(every=8)) for rule in (labels, constant, learned)] == [True, True, False]
    assert [same(rule, temperature=3.0) for rule in (labels, constant, learned)] == [True, False, False]
    assert {kind for kind, rule in RULES.items() if rule.learned} == LEARNED_RULES
    assert {kind: rule.needs for kind, rule in RULES.items() if rule.needs} == NEEDS
    assert {kind for kind in RULES if RulePack.of([build_rule(kind)]).outer} == OUTER_RULES


@pytest.mark.timeout(180)
def test_k4_all_workers_go_on_from_the_checkpoint_that_worker_0_chose(small, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec(checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        run(spec, progress=StopsAt(9, Killed()))
    folder, inputs = small.root / "runs" / "small", run_inputs(spec)
    first, second = on_ranks(2, checkpoint_step, [folder, folder], "tgeo", inputs)
    assert first == second
    assert first >= 7
    assert on_ranks(2, checkpoint_step, [tmp_path / "empty", folder], "tgeo", inputs) == [None, None]
    step, error = on_ranks(2, checkpoint_step, [folder, tmp_path / "late"], "tgeo", inputs)
    assert step == first
    assert "late" in error, "a worker that does not see it says so and does not start apart"


def test_the_pace_counts_rows_and_training_time_alone(small) -> None:  # type: ignore[no-untyped-def]
    (finished,) = run(small.spec())
    record = open_artifact(finished.artifact).manifest.record
    timed = 600 / 6 * (24 - 4)  # 4 epochs of 6 steps on 600 rows; the first step of each is not timed
    assert finished.metrics["rows_per_second"] * record["seconds"] >= timed, "evaluation is no training time"
    (one_step,) = run(small.spec("one-step", batch_rows=100_000))
    assert one_step.metrics["rows_per_second"] is None, "there is nothing to time beside first steps"
