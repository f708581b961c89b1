"""A channel from its judges to the rows that it denoises: what is stored, who reads it, and what is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_table import CLASSES, ROWS, Small, make_small, true_labels
from training_runs import Killed, StopsAt, run
from worker_ranks import on_ranks, train

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.errors import ProvenanceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.channels import ChannelTable
from tgeokd_ray.feed.folds import fold_of
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.objectives.channel import fit_channel
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.training.data import DirectSource, open_data
from tgeokd_ray.training.reuse import parents, run_inputs
from tgeokd_ray.training.scoring import Predictor
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.worker import LocalWorker

SPLITS, FOLDS = ("train", "outer", "valid"), 3
LABELS = {"rule": {"kind": "labels"}, "metric": "nll", "optimizer": OptimizerSpec(kind="adam", learning_rate=3e-2)}


def judge(small: Small, fold: int, **changes: object) -> RunSpec:
    held = {"splits": SPLITS, "fold": fold, "folds": FOLDS, "held_out": True, "logits": (), "epochs": 8}
    return small.spec(f"judge{fold}", **LABELS | held | changes)


def channel(small: Small, judges: list[str], **changes: object) -> RunSpec:
    values = {"kind": "channels", "splits": SPLITS, "folds": FOLDS, "judges": tuple(judges), "alone": True}
    return small.spec("channel", **LABELS | values | changes)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """(the table with wrong labels, its judges, the finished channel)."""
    small = make_small(tmp_path_factory.mktemp("noisy") / "artifacts", flip=0.6)
    judges = run(*(judge(small, fold) for fold in range(FOLDS)))
    (fitted,) = run(channel(small, [one.artifact for one in judges]))
    assert fitted.error is None
    return small, judges, fitted


def columns(path: Path | str, *splits: str) -> dict[str, np.ndarray]:
    """All columns of the shards of these splits, row by row."""
    tables = [pq.read_table(Path(path) / f"{split}-00000.parquet").to_pydict() for split in splits]
    return {name: np.concatenate([np.array(table[name]) for table in tables]) for name in tables[0]}


def test_a_judge_is_chosen_on_the_fold_that_it_has_not_seen(noisy) -> None:  # type: ignore[no-untyped-def]
    small, judges, _ = noisy
    rows = columns(small.table.path, *SPLITS)
    for fold, finished in enumerate(judges):
        own = fold_of(rows["row_id"], FOLDS) == fold
        numeric, ids = torch.tensor(rows["numeric"][own]).float(), torch.tensor(rows["categorical"][own])
        logits = torch.from_numpy(Predictor(Path(finished.artifact))(numeric, ids))
        loss = torch.nn.functional.cross_entropy(logits.double(), torch.tensor(rows["label"][own]).long())
        assert finished.metrics["valid"]["nll"] == pytest.approx(loss.item(), rel=1e-6)
        assert finished.metrics["valid"]["rows"] == own.sum()
        curve = [entry["valid_nll"] for entry in finished.metrics["history"]]
        assert finished.metrics["epoch"] == int(np.argmin(curve)) < len(curve)


def test_what_is_stored_is_the_channel_of_judges_that_did_not_see_the_row(noisy) -> None:  # type: ignore[no-untyped-def]
    small, judges, fitted = noisy
    rows, told = columns(small.table.path, *SPLITS), columns(fitted.artifact, *SPLITS)
    assert np.array_equal(rows["row_id"], told["row_id"])
    fold = fold_of(rows["row_id"], FOLDS)
    numeric, ids = torch.tensor(rows["numeric"]).float(), torch.tensor(rows["categorical"])
    student = torch.empty(len(fold), CLASSES, dtype=torch.float64)
    for number, one in enumerate(judges):
        own = torch.from_numpy(np.flatnonzero(fold == number))
        student[own] = torch.from_numpy(Predictor(Path(one.artifact))(numeric[own], ids[own])).double().softmax(-1)
    teacher = torch.tensor(columns(small.logits.path, *SPLITS)["logits"]).double().softmax(-1)
    labels = torch.tensor(rows["label"]).long()
    expected = fit_channel(student, teacher, labels, torch.tensor(fold).long(), rows=numeric, seed=0)
    for name, value in (
        ("credibility", expected.credibility),
        ("noise", expected.noise),
        ("offset", expected.offset),
        ("target", expected.targets),
        ("hard_target", expected.hard_targets),
    ):
        np.testing.assert_allclose(told[name], value.numpy(), atol=1e-5, err_msg=name)
    metrics = fitted.metrics["channel"]
    assert metrics["mixture_nll"] == pytest.approx(expected.mixture_nll, rel=1e-5)
    assert metrics["noise"] == pytest.approx(told["noise"].mean(), rel=1e-5)


def test_denoised_labels_are_right_more_often_than_given_ones(noisy) -> None:  # type: ignore[no-untyped-def]
    small, _, fitted = noisy
    rows, told = columns(small.table.path, *SPLITS), columns(fitted.artifact, *SPLITS)
    true = true_labels()[rows["row_id"]]
    given, denoised = (rows["label"] == true).mean(), (told["target"].argmax(1) == true).mean()
    assert denoised > given + 0.1
    metrics = fitted.metrics["channel"]
    assert metrics["mixture_nll"] < min(metrics["student_nll"], metrics["teacher_nll"])
    first = metrics["by_column"][0]
    assert first["column"] == "n0", "the column by whose sign labels are wrong"
    assert first["high"]["noise"] > first["low"]["noise"] + 0.2
    assert sum(part["rows"] for part in metrics["by_class"].values()) == metrics["rows"] == sum(ROWS[s] for s in SPLITS)


def test_outer_rows_go_by_soft_and_valid_rows_by_hard_labels_and_no_others_do(noisy) -> None:  # type: ignore[no-untyped-def]
    small, _, fitted = noisy
    spec = small.spec("shape", rule={"kind": "tgeo_shape", "offset": True}, channel=fitted.artifact)
    data = open_data(spec, LocalWorker(), DirectSource(), outer=True)
    assert data.outer is not None
    served = {
        ("outer", "target"): data.outer.at(0).targets,
        ("valid", "hard_target"): next(data.sequential("valid")).targets,
        ("train", "offset"): next(data.train.batches(0)).offset.squeeze(1),
    }
    ids = {"outer": data.outer.at(0).row_id, "valid": next(data.sequential("valid")).row_id}
    ids["train"] = next(data.train.batches(0)).row_id
    for (split, name), values in served.items():
        told = columns(fitted.artifact, split)
        place = {row: k for k, row in enumerate(told["row_id"])}
        own = np.stack([told[name][place[int(row)]] for row in ids[split]])
        np.testing.assert_array_equal(values.numpy(), own.astype(np.float32))
    assert next(data.sequential("test")).targets.shape[1] == next(data.train.batches(0)).targets.shape[1] == 0
    plain = open_data(
        replace(spec, channel=None, rule={"kind": "tgeo_shape"}), LocalWorker(), DirectSource(), outer=True
    )
    assert next(plain.sequential("valid")).targets.shape[1] == next(plain.train.batches(0)).offset.shape[1] == 0


def test_figures_on_valid_are_by_denoised_and_on_test_by_given_labels(noisy) -> None:  # type: ignore[no-untyped-def]
    small, _, fitted = noisy
    spec = small.spec("half", **LABELS | {"rule": {"kind": "constant", "value": 0.5}, "channel": fitted.artifact})
    (student,) = run(spec)
    score = Predictor(Path(student.artifact))
    for split in ("valid", "test"):
        rows = columns(small.table.path, split)
        numeric, ids = torch.tensor(rows["numeric"]).float(), torch.tensor(rows["categorical"])
        logs = torch.from_numpy(score(numeric, ids)).double().log_softmax(-1)
        given = torch.nn.functional.one_hot(torch.tensor(rows["label"]).long(), CLASSES).double()
        target = torch.tensor(columns(fitted.artifact, split)["hard_target"]).double() if split == "valid" else given
        loss = -(target * logs).sum(-1).mean().item()
        accuracy = target[torch.arange(len(logs)), logs.argmax(-1)].mean().item()
        assert student.metrics[split]["nll"] == pytest.approx(loss, rel=1e-5)
        assert student.metrics[split]["accuracy"] == pytest.approx(accuracy, rel=1e-5)


def test_the_same_after_a_kill_and_for_two_workers_one_of_whom_fits_it(noisy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    small, judges, fitted = noisy
    elsewhere = {"root": str(tmp_path), "folder": str(tmp_path)}
    again = judge(small, 0, **elsewhere, checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        run(again, progress=StopsAt(12, Killed()))
    progress = Silent()
    (resumed,) = run(again, progress=progress)
    assert any("continued from step" in warning for warning in progress.warnings)
    assert resumed.digest == judges[0].digest
    spec = channel(small, [one.artifact for one in judges], **elsewhere)
    ((first,), (second,)) = on_ranks(2, train, spec)
    assert first.digest == second.digest == fitted.digest
    assert run(spec)[0].reused


def test_a_channel_is_a_parent_and_nothing_changes_without_one(noisy) -> None:  # type: ignore[no-untyped-def]
    small, judges, fitted = noisy
    plain = small.spec("half", **LABELS)
    assert not {"channel", "judges", "held_out"} & plain.arguments().keys()
    assert parents(replace(plain, channel=fitted.artifact))["channel"].digest == fitted.digest
    assert run_inputs(plain) != run_inputs(replace(plain, channel=fitted.artifact))
    paths = [one.artifact for one in judges]
    assert run_inputs(channel(small, paths)) == run_inputs(channel(small, paths, epochs=99))
    assert run_inputs(channel(small, paths)) != run_inputs(channel(small, paths[::-1]))


def test_a_channel_of_another_table_or_without_the_split_is_refused(noisy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, fitted = noisy
    other = make_small(tmp_path / "other", seed=4)
    with pytest.raises(ProvenanceError, match="fitted to another table"):
        ChannelTable.open(fitted.artifact, EncodedTable.open(other.table.path))
    told = ChannelTable(open_artifact(fitted.artifact))
    with pytest.raises(ProvenanceError, match="nothing for the split 'test'"):
        told.check_splits(("valid", "test"))
