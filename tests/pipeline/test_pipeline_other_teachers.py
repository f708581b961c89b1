"""Controls that change the teacher: logits derived from what is there, by outer rows and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tgeokd_ray.artifacts import Artifact, latest
from tgeokd_ray.feed.arrow import unpacked
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.folds import FOLD_NOBODY, fold_of
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.pipeline import other_teachers
from tgeokd_ray.pipeline.denoising import FOLDS, fold_name
from tgeokd_ray.pipeline.other_teachers import OTHER_TEACHERS, Combined, recalibrated
from tgeokd_ray.pipeline.study_cell import Cell, StudyCell
from tgeokd_ray.pipeline.study_summary import summarise
from tgeokd_ray.training.scoring import Predictor
from tgeokd_ray.training.stacker import fit_stacker

SETTINGS = ("student.training.epochs=2", "distill.constants=[0.5,1.0]")
NAME = "synth.soft-seed0"


@dataclass(frozen=True)
class Done:
    """A finished cell, and what lies under its root."""

    root: Path
    told: dict[str, Any]

    def artifact(self, kind: str, name: str = NAME) -> Artifact:
        found = latest(self.root, kind, name)
        assert found is not None, (kind, name)
        return found

    def labels(self, split: str) -> np.ndarray:
        return pq.read_table(shard(self.artifact("tables"), split)).column("label").to_numpy()


def shard(artifact: Artifact, split: str) -> Path:
    (name,) = [entry.path for entry in artifact.manifest.files if entry.extra.get("split") == split]
    return artifact.file(name)


def stored(logits: Artifact, split: str) -> np.ndarray:
    return np.asarray(pq.read_table(shard(logits, split)).column("logits").to_pylist(), dtype=np.float64)


def centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(-1, keepdims=True)


def nll(logits: np.ndarray, truth: np.ndarray) -> float:
    evaluation = Evaluation(logits.shape[1], negative_class=0)
    evaluation.add(logits.astype(np.float32), truth)
    return float(evaluation.results()["nll"])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    root = tmp_path_factory.mktemp("controls")
    cell = StudyCell(str(root), str(root / "data"), OTHER_TEACHERS, settings=SETTINGS)
    return Done(root, cell(Cell("synth.soft", 0)))


@pytest.mark.timeout(180)
def test_both_are_controls_of_a_study(done: Done) -> None:
    assert "error" not in done.told
    names = {one["name"] for one in done.told["students"]}
    assert {f"{rule}-{value}-tau{tau}" for rule in OTHER_TEACHERS for value in ("0.5", "1") for tau in (1, 2)} < names
    rows, failed = summarise([done.told])
    assert failed == []
    found = {row["rule"]: row for row in rows}
    assert set(found) == {"labels", "constant", "reference", *OTHER_TEACHERS}
    assert found["stacked"]["chosen"].split(", ")[1].startswith("tau")
    assert len({row["nll"] for row in rows}) == len(rows)


def test_a_recalibrated_teacher_is_the_fit_to_outer_rows(done: Done) -> None:
    teacher, found = done.artifact("logits", f"{NAME}-teacher0"), done.artifact("logits", f"{NAME}-recalibrated-0")
    stacker = fit_stacker(stored(teacher, "outer")[:, None], done.labels("outer"))
    for split in ("train", "outer"):
        expected = stacker.scales[0] * stored(teacher, split) + stacker.bias
        np.testing.assert_allclose(centred(stored(found, split)), centred(expected), atol=1e-3)
    told = found.manifest.schema["stacker"]
    assert told["nll_after"] == pytest.approx(nll(stored(found, "outer"), done.labels("outer")), abs=1e-4)
    assert told["nll_after"] < told["nll_before"]
    LogitsTable.open(found.path, EncodedTable.open(done.artifact("tables").path))


def test_each_teacher_is_recalibrated_by_itself_and_found_again(done: Done) -> None:
    teacher = done.artifact("logits", f"{NAME}-teacher0")
    first, second = (recalibrated(done.root, "two", done.artifact("tables"), [teacher, teacher]) for _ in range(2))
    assert [one.label.split("/")[1] for one in first] == ["two-0", "two-1"]
    assert [one.path for one in first] == [one.path for one in second]


def test_a_stacked_teacher_hears_of_each_row_from_a_student_that_has_not_seen_it(done: Done) -> None:
    table, teacher = done.artifact("tables"), done.artifact("logits", f"{NAME}-teacher0")
    students = [done.artifact("students", fold_name(f"{NAME}-apprentice", f, FOLDS)) for f in range(FOLDS)]
    for fold, one in enumerate(students):
        arguments = one.manifest.arguments
        assert (arguments["fold"], arguments["folds"], arguments["splits"]) == (fold, FOLDS, ["train", "outer"])
    combined = Combined(table, (teacher,), tuple(students))
    (name,) = combined.shards("train")
    shown = combined.shown(name)
    encoded = EncodedTable.open(table.path)
    rows = decode(unpacked(pq.read_table(table.file(name))), len(encoded.classes)).as_batch()
    folds = fold_of(rows.row_id.numpy(), FOLDS)
    for fold in (0, 3):
        own = np.flatnonzero(folds == fold)
        logits = Predictor(students[fold].path)(rows.numeric[own], rows.categorical[own])
        np.testing.assert_allclose(centred(shown.sources[own, 1]), centred(logits), atol=1e-4)
    found = done.artifact("logits", f"{NAME}-stacked").manifest.schema["stacker"]
    alone = done.artifact("logits", f"{NAME}-recalibrated-0").manifest.schema["stacker"]
    assert len(found["scales"]) == 2
    assert found["nll_after"] < alone["nll_after"], "it can do what the recalibrated teacher does, and more"


def test_rows_that_a_teacher_did_not_score_stay_so(done: Done, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """They are no part of the fit, and nobody's in the derived logits."""
    table, teacher = done.artifact("tables"), done.artifact("logits", f"{NAME}-teacher0")
    missing = np.arange(3)

    def scored(shard: Any) -> np.ndarray:
        return np.where(np.isin(np.arange(len(shard)), missing), 0, 1).astype(np.uint8)

    monkeypatch.setattr(other_teachers, "scored", scored)
    (found,) = recalibrated(done.root, "some", table, [teacher])
    assert found.manifest.schema["uncovered"] == {"train": 3, "outer": 3}
    fold = pq.read_table(shard(found, "train")).column("fold").to_numpy()
    assert (fold[missing] == FOLD_NOBODY).all()
    assert (fold[3:] == 0).all()
    assert (stored(found, "train")[missing] == 0).all()
    expected = fit_stacker(stored(teacher, "outer")[3:, None], done.labels("outer")[3:])
    assert found.manifest.schema["stacker"]["rows"] == expected.rows
    np.testing.assert_allclose(found.manifest.schema["stacker"]["scales"], expected.scales, rtol=1e-4)
