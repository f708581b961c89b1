"""Cross-fitting: what the hidden fold says never reaches the teacher that will score it."""

from __future__ import annotations

from dataclasses import replace

import torch
from small_table import Small
from training_runs import run

from tgeokd_ray.artifacts import load_tensors, open_artifact
from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.feed.folds import fold_of
from tgeokd_ray.training import run as run_module
from tgeokd_ray.training.data import DirectSource, open_data
from tgeokd_ray.training.worker import LocalWorker

FOLD, FOLDS = 1, 3


def hidden(rows: Rows) -> torch.Tensor:
    return torch.from_numpy(fold_of(rows.row_id.numpy(), FOLDS) == FOLD)


def teacher(small: Small, name: str):  # type: ignore[no-untyped-def]
    rule = {"kind": "labels"}
    return small.spec(name, kind="teachers", logits=(), rule=rule, fold=FOLD, folds=FOLDS, epochs=2)


def test_rows_of_the_fold_weigh_nothing_in_train_batches_and_all_rows_count_in_evaluation(small: Small) -> None:
    data = open_data(teacher(small, "a"), LocalWorker(), DirectSource(), outer=False)
    rows = next(iter(data.train.batches(0)))
    assert 0 < hidden(rows).sum() < len(rows)
    assert torch.equal(rows.weights == 0, hidden(rows))
    for split in ("valid", "test"):
        assert all((rows.weights == 1).all() for rows in data.sequential(split))


def test_a_teacher_is_the_same_whatever_the_labels_of_its_fold_are(small: Small, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """And another one where labels of rows that it may see change."""

    def relabelled(which: bool):  # type: ignore[no-untyped-def]
        def opened(*given, **options):  # type: ignore[no-untyped-def]
            data = open_data(*given, **options)
            plain = data.train._prepare

            def change(rows: Rows) -> Rows:
                other = torch.where(hidden(rows) == which, (rows.labels + 1) % 3, rows.labels)
                return replace(plain(rows), labels=other)

            data.train._prepare = change
            return data

        return opened

    found = []
    for name, changes in (("plain", None), ("fold", True), ("others", False)):
        if changes is not None:
            monkeypatch.setattr(run_module, "open_data", relabelled(changes))
        (done,) = run(teacher(small, name))
        found.append(load_tensors(open_artifact(done.artifact).file("model.safetensors")))
    plain, fold, others = found
    assert all(torch.equal(plain[key], fold[key]) for key in plain)
    assert not all(torch.equal(plain[key], others[key]) for key in plain)
