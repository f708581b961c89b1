"""Batches of one row, of one class and of none, a class that train lacks, and a loss that is no number."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import small_table
import torch
from small_table import Small, make_small
from training_runs import run
from worker_ranks import on_ranks, parameters, train

from tgeokd_ray.artifacts import load_tensors, open_artifact, read_json
from tgeokd_ray.artifacts.names import versions
from tgeokd_ray.errors import DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.objectives.settings import OptimizerSpec

FEW = {"train": 13, "outer": 5, "valid": 40, "test": 40, "teacher": 3}


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """13 train rows in units of 4, 4, 4 and 1, of two of the three classes."""
    monkeypatch.setattr(small_table, "ROWS", FEW)
    made = make_small(tmp_path / "few", group=4)
    assert 0 in made.logits.manifest.schema["class_counts"]
    return made


def assert_finite(finished) -> None:  # type: ignore[no-untyped-def]
    assert finished.error is None
    assert all(value.isfinite().all() for value in parameters(finished).values())
    for entry in finished.metrics["history"]:
        assert math.isfinite(entry["loss"])
        assert 0 <= entry["ratio"] <= 1


@pytest.mark.parametrize("centred", [True, False])
def test_n5_n6_n7_batches_of_one_row_of_one_class_and_of_none(few: Small, centred: bool) -> None:
    spec = few.spec(batch_rows=1, rule={"kind": "tgeo_one_step", "level": 0.5, "centred": centred}, patience=4)
    (finished,) = run(replace(spec, class_weights="balanced", fusion=replace(spec.fusion, batch_rows=1)))
    assert finished.metrics["history"][-1]["step"] == 4 * 13
    assert_finite(finished)


@pytest.mark.timeout(60)
def test_n6_n7_three_workers_with_fewer_rows_than_workers_end_where_one_does(few: Small, tmp_path: Path) -> None:
    spec = few.spec(batch_rows=2, precision="fp64", epochs=2)
    places = [{"root": str(tmp_path / name), "folder": str(tmp_path / name / "run")} for name in ("one", "three")]
    (alone,) = run(replace(spec, **places[0]))
    results = on_ranks(3, train, replace(spec, **places[1]))
    assert_finite(results[0][0])
    for name, value in parameters(results[0][0]).items():
        torch.testing.assert_close(value, parameters(alone)[name], atol=1e-10, rtol=0)


def test_n8_the_last_finite_checkpoint_is_kept_and_rows_are_named(tmp_path: Path) -> None:
    small = make_small(tmp_path)
    spec = small.spec(
        optimizer=OptimizerSpec(kind="sgd", learning_rate=1e5), rule={"kind": "labels"}, checkpoint_seconds=0.0
    )
    (finished,) = run(spec)
    assert isinstance(finished.error, DataError)
    assert "the loss is not finite at step 4 (rows " in str(finished.error)
    (newest, *_) = (path for home in (tmp_path / "runs" / "small" / "checkpoints").iterdir() for path in versions(home))
    kept = open_artifact(newest, level="full")
    assert read_json(kept.file("cursor.json"))["step"] == 3
    state = load_tensors(kept.file("state.safetensors"))
    assert all(value.isfinite().all() for name, value in state.items() if name != "best")
    progress = Silent()
    (again,) = run(spec, progress=progress)
    assert str(again.error) == str(finished.error)
    assert "tgeo: continued from step 3" in progress.warnings
