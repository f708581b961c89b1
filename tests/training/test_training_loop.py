"""The loop on one worker: learning, resuming to the bit, torn checkpoints, early stopping, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_table import make_small
from training_runs import Killed, Once, StopsAt, run

from tgeokd_ray.artifacts import open_artifact, read_json
from tgeokd_ray.artifacts.names import versions
from tgeokd_ray.errors import ConfigError, DataError, ProvenanceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.reader import DirectReader
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.training.loop import Loop
from tgeokd_ray.training.reuse import lookup, replay
from tgeokd_ray.training.scoring import Predictor
from tgeokd_ray.training.spec import Finished, Fusion
from tgeokd_ray.training.state import State


def test_every_rule_learns_and_the_teacher_helps(small) -> None:  # type: ignore[no-untyped-def]
    labels, constant, learned = run(
        small.spec("labels", rule={"kind": "labels"}, epochs=8),
        small.spec("constant", rule={"kind": "constant", "value": 0.75}, epochs=8),
        small.spec("tgeo", epochs=8),
    )
    chance = 1.0986
    for finished in (labels, constant, learned):
        assert finished.error is None
        assert finished.metrics["test"]["nll"] < chance - 0.1
    assert constant.metrics["test"]["nll"] < labels.metrics["test"]["nll"]
    assert "ratio" not in labels.metrics
    assert constant.metrics["ratio"]["mean"] == pytest.approx(0.75, abs=1e-6)
    histogram = learned.metrics["ratio"]["histogram"]["counts"]
    assert sum(histogram) == 600
    assert sum(count > 0 for count in histogram) > 1, "a learned ratio differs between rows"
    history = learned.metrics["history"]
    assert [entry["epoch"] for entry in history] == list(range(8))
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_centred_ratio_keeps_its_level(small) -> None:  # type: ignore[no-untyped-def]
    (finished,) = run(small.spec(rule={"kind": "tgeo_one_step", "level": 0.3}))
    assert 0.2 < finished.metrics["ratio"]["mean"] < 0.45


def test_k11_p8_a_run_is_not_repeated_and_the_same_work_has_the_same_digest(small, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (first,) = run(small.spec())
    (again,) = run(small.spec())
    assert again.reused
    assert (again.digest, again.artifact) == (first.digest, first.artifact)
    assert replay(Once(small.spec())) is not None
    other = type(small)(tmp_path / "other", small.table, small.logits)
    (elsewhere,) = run(other.spec())
    assert not elsewhere.reused
    assert elsewhere.digest == first.digest
    (changed,) = run(small.spec(temperature=1.0))
    assert changed.digest != first.digest


@pytest.mark.parametrize("step", [1, 7, 14, 21])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_e2_an_interrupted_run_ends_with_the_same_bits(  # type: ignore[no-untyped-def]
    small, step: int, error: type[BaseException]
) -> None:
    spec = small.spec(checkpoint_seconds=1e9)
    with pytest.raises(error):
        run(spec, progress=StopsAt(step, error()))
    assert lookup(spec) is None
    progress = Silent()
    (resumed,) = run(spec, progress=progress)
    assert step == 1 or any("continued from step" in warning for warning in progress.warnings)
    reference = small.spec(folder=str(small.root / "runs" / "reference"), root=str(small.root / "reference"))
    (undisturbed,) = run(reference)
    assert resumed.digest == undisturbed.digest


@pytest.mark.parametrize("embedding", ["dense", "rowwise_adagrad", "lazy_adam"])
def test_e2_an_interruption_of_the_evaluation_saves_the_step_before_it(  # type: ignore[no-untyped-def]
    small, monkeypatch: pytest.MonkeyPatch, embedding: str
) -> None:
    """Which has written the rows of the epoch's last step into the tables. Batches of four rows name few of the ids."""
    optimizer = replace(small.spec().optimizer, embedding=embedding)
    fusion = Fusion(every=2, batch_rows=4, warm_up=0.0)
    spec = small.spec(checkpoint_seconds=1e9, epochs=2, batch_rows=4, optimizer=optimizer, fusion=fusion)

    def interrupted(self: Loop, split: str, state: State) -> None:
        state.settled()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(spec)
    progress = Silent()
    (resumed,) = run(spec, progress=progress)
    assert any("continued from step 150" in warning for warning in progress.warnings), progress.warnings
    (undisturbed,) = run(replace(spec, folder=f"{small.root}/runs/reference", root=f"{small.root}/reference"))
    assert resumed.digest == undisturbed.digest


@pytest.mark.parametrize("step", [12, 150])
def test_e2_an_interruption_of_a_snapshot_loses_neither_it_nor_the_step(  # type: ignore[no-untyped-def]
    small, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    optimizer = replace(small.spec().optimizer, embedding="rowwise_adagrad")
    spec = small.spec(
        kind="ratios",
        checkpoint_seconds=1e9,
        epochs=2,
        batch_rows=4,
        optimizer=optimizer,
        rule={"kind": "tgeo_shape"},
        fusion=Fusion(every=2, batch_rows=4, warm_up=0.0),
        ratio_splits=("train",),
        snapshots=25,
    )
    taken = State.with_snapshot

    def interrupted(state: State) -> State:
        found = taken(state)
        if state.step == step:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patched:
        patched.setattr(State, "with_snapshot", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(spec)
    (resumed,) = run(spec)
    (undisturbed,) = run(replace(spec, folder=f"{small.root}/runs/reference", root=f"{small.root}/reference"))
    assert resumed.digest == undisturbed.digest


def test_k5_killed_twice_in_one_epoch_with_a_checkpoint_every_step(small) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec(checkpoint_seconds=0.0)
    for step in (3, 2, 9):
        with pytest.raises(Killed):
            run(spec, progress=StopsAt(step, Killed()))
    (resumed,) = run(spec)
    (undisturbed,) = run(small.spec(root=str(small.root / "reference"), folder=str(small.root / "reference")))
    assert resumed.digest == undisturbed.digest
    assert not list((small.root / "runs" / "small" / "checkpoints").glob("*/v*")), "checkpoints go with the commit"


def test_s6_a_torn_checkpoint_is_named_and_the_one_before_it_used(small) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec(checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        run(spec, progress=StopsAt(9, Killed()))
    newest = next(path for home in (small.root / "runs" / "small" / "checkpoints").iterdir() for path in versions(home))
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-8])
    progress = Silent()
    (resumed,) = run(spec, progress=progress)
    assert any(newest.name in warning and "not whole" in warning for warning in progress.warnings)
    (undisturbed,) = run(small.spec(root=str(small.root / "reference"), folder=str(small.root / "reference")))
    assert resumed.digest == undisturbed.digest


def test_the_log_has_one_line_per_step_and_run_after_a_kill(small) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec(checkpoint_seconds=0.0, log_every=1)
    with pytest.raises(Killed):
        run(spec, progress=StopsAt(9, Killed()))
    run(spec)
    lines = [json.loads(line) for line in (small.root / "runs" / "small" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert [line["step"] for line in lines if "valid_auc" in line] == [6, 12, 18, 24]


def test_patience_stops_early_and_the_best_epoch_is_kept(small) -> None:  # type: ignore[no-untyped-def]
    spec = small.spec(
        epochs=30,
        patience=1,
        metric="nll",
        optimizer=OptimizerSpec(kind="adam", learning_rate=0.1),
        model={"kind": "mlp", "hidden": [64], "embedding": 8},
        rule={"kind": "labels"},
    )
    (finished,) = run(spec)
    curve = [entry["valid_nll"] for entry in finished.metrics["history"]]
    assert len(curve) < 30
    assert finished.metrics["epoch"] == min(range(len(curve)), key=curve.__getitem__)
    assert finished.metrics["valid"]["nll"] == pytest.approx(min(curve), rel=1e-9)


def test_n8_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(small) -> None:  # type: ignore[no-untyped-def]
    (finished,) = run(small.spec(optimizer=OptimizerSpec(kind="sgd", learning_rate=1e30), rule={"kind": "labels"}))
    assert isinstance(finished.error, DataError)
    assert "not finite at step" in str(finished.error)
    assert "learning_rate" in str(finished.error)


def test_a_user_error_ends_its_own_run_only(small) -> None:  # type: ignore[no-untyped-def]
    wrong, right = run(small.spec("wrong", rule={"kind": "tgeo_one_stepp"}), small.spec("right", epochs=1))
    assert isinstance(wrong.error, ConfigError)
    assert "did you mean" in str(wrong.error)
    assert right.error is None


def test_p2_logits_of_another_table_are_refused(small, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = make_small(tmp_path / "second", seed=4)
    (finished,) = run(small.spec(logits=(str(other.logits.path),)))
    assert isinstance(finished.error, ProvenanceError)
    assert "precompute" in str(finished.error)


@pytest.mark.parametrize("change", [{"class_weights": "balanced"}, {"oversample": 4}, {"precision": "bf16"}])
def test_options_of_the_schedule_change_the_result(small, change: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    plain, other = run(small.spec("plain", epochs=2), small.spec("other", epochs=2, **change))
    assert other.error is None
    assert plain.metrics["test"]["nll"] != other.metrics["test"]["nll"]


def test_the_artifact_holds_what_prediction_needs(small) -> None:  # type: ignore[no-untyped-def]
    (finished,) = run(small.spec(epochs=1))
    artifact = open_artifact(Path(finished.artifact), level="full")
    names = {entry.path for entry in artifact.manifest.files}
    assert names == {
        "model.safetensors",
        "fusion.safetensors",
        "model.json",
        "metrics.json",
        "encoder.json",
        "card.json",
    }
    assert {role: parent.kind for role, parent in artifact.manifest.parents.items()} == {
        "table": "tables",
        "logits": "logits",
    }
    assert read_json(artifact.file("model.json"))["classes"] == ["a", "b", "c"]


def test_an_ensemble_is_the_mean_of_members_trained_alone(small) -> None:  # type: ignore[no-untyped-def]
    options: dict[str, object] = {"rule": {"kind": "labels"}}
    (ensemble,) = run(small.spec("ensemble", model_seeds=(0, 1, 2), ensemble=True, **options))
    alone = [run(small.spec(f"alone-{seed}", model_seeds=(seed,), **options))[0] for seed in range(3)]
    table = EncodedTable.open(small.table.path)
    units = table.units("test")
    rows = [decode(piece, 3).as_batch() for piece in DirectReader(table, (), "test")(units)]
    inputs = [torch.cat([getattr(part, name) for part in rows]) for name in ("numeric", "categorical")]
    labels = torch.cat([part.labels for part in rows])

    def probabilities(finished: Finished) -> torch.Tensor:
        return torch.from_numpy(Predictor(Path(finished.artifact))(*inputs)).double().softmax(-1)

    mean = torch.stack([probabilities(finished) for finished in alone]).mean(0)
    torch.testing.assert_close(probabilities(ensemble), mean, atol=1e-5, rtol=0)
    nll = -mean.log().gather(1, labels[:, None]).mean()
    assert ensemble.metrics["test"]["nll"] == pytest.approx(float(nll), abs=1e-5)
    assert ensemble.metrics["parameters"] == 3 * alone[0].metrics["parameters"]
    assert len(ensemble.metrics["history"]) == 4
