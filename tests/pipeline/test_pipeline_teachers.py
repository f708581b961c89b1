"""Whose rows a teacher scores: folds, in-sample, splits on request, several teachers, logits that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from tgeokd_ray.artifacts import Artifact, list_artifacts, open_artifact, staging
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, ProvenanceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.arrow import unpacked
from tgeokd_ray.feed.folds import FOLD_MEAN, fold_of
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.pipeline.job import Place, run_job, run_stage
from tgeokd_ray.tables.cards import PACKAGED
from tgeokd_ray.training.reuse import load_metrics
from tgeokd_ray.training.scoring import Predictor, mean_of_members

LOCAL = Place(local=True)
SMALL = [
    "teacher.training.epochs=1",
    "teacher.model.hidden=[8]",
    "teacher.model.embedding=2",
    "teacher.model.members=1",
    "student.training.epochs=1",
    "distill.constants=[0.5]",
]


class Said(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def card_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged synthetic card with 3,000 rows in several shards and without rows for a teacher alone."""
    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    card["format"] |= {"rows": 3000, "chunk_rows": 1000}
    card["splits"]["parts"] = {"train": 0.6, "outer": 0.1, "valid": 0.1, "test": 0.2}
    path = tmp_path_factory.mktemp("card") / "small.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


def job(card_file: Path, root: Path, *settings: str):  # type: ignore[no-untyped-def]
    return resolve({"card": str(card_file), "root": str(root)}, settings=[*SMALL, *settings])


@pytest.fixture(scope="module")
def table(card_file: Path, root: Path) -> Artifact:
    (made,) = run_stage("encode", *job(card_file, root), {}, LOCAL, Silent())
    return made


@pytest.fixture(scope="module")
def folds(card_file: Path, root: Path, table: Artifact) -> list[Artifact]:
    return run_stage("teacher", *job(card_file, root, "teacher.folds=3"), {"table": [table]}, LOCAL, Silent())


def rows(artifact: Artifact, split: str) -> dict[str, np.ndarray]:
    """The columns of a split, shard after shard."""
    shards = [entry.path for entry in artifact.manifest.files if entry.extra.get("split") == split]
    tables = [unpacked(pq.read_table(artifact.file(shard))) for shard in shards]
    return {n: np.array([v for t in tables for v in t[n].to_pylist()]) for n in tables[0].column_names}


def scores(teacher: Artifact, inputs: dict[str, np.ndarray]) -> np.ndarray:
    numeric, categorical = inputs["numeric"].astype(np.float32), inputs["categorical"]
    return Predictor(teacher.path)(torch.from_numpy(numeric), torch.from_numpy(categorical).long())


def test_every_row_is_scored_by_the_teacher_that_has_not_seen_it(  # type: ignore[no-untyped-def]
    card_file: Path, root: Path, table: Artifact, folds: list[Artifact]
) -> None:
    settings = job(card_file, root, "teacher.folds=3")
    (logits,) = run_stage("precompute", *settings, {"table": [table], "teacher": folds}, LOCAL, Silent())
    assert [teacher.label for teacher in folds] == [f"teachers/synthetic_ctr-fold{f}of3/v000001" for f in range(3)]
    assert sorted(logits.manifest.parents) == ["table", "teacher_0", "teacher_1", "teacher_2"]
    inputs, found = rows(table, "train"), rows(logits, "train")
    np.testing.assert_array_equal(found["row_id"], inputs["row_id"])
    np.testing.assert_array_equal(found["fold"], fold_of(inputs["row_id"], 3))
    every = np.stack([scores(teacher, inputs) for teacher in folds])
    own = every[found["fold"], np.arange(len(found["fold"]))]
    np.testing.assert_allclose(found["logits"], own, rtol=1e-5, atol=1e-6)
    inputs, found = rows(table, "test"), rows(logits, "test")
    assert set(found["fold"]) == {FOLD_MEAN}
    mean = mean_of_members([scores(teacher, inputs) for teacher in folds])
    np.testing.assert_allclose(found["logits"], mean, rtol=1e-5, atol=1e-6)


def test_a_job_with_folds_tells_what_they_are_worth_together(
    card_file: Path, root: Path, table: Artifact, folds: list[Artifact]
) -> None:
    results, _ = run_job(*job(card_file, root, "teacher.folds=3"), LOCAL, Silent())
    teacher, *students = results["models"]
    logits = open_artifact(root / teacher["artifact"])
    assert (teacher["role"], logits.kind) == ("teacher", "logits")
    found, truth = rows(logits, "test"), rows(table, "test")
    assert teacher["rows"] == len(truth["label"])
    assert teacher["accuracy"] == pytest.approx((found["logits"].argmax(1) == truth["label"]).mean())
    assert teacher["parameters"] == sum(load_metrics(fold)["parameters"] for fold in folds)
    assert [model["name"] for model in students] == ["labels", "constant-0.5", "tgeo"]
    again, _ = run_job(*job(card_file, root, "teacher.folds=3"), LOCAL, Silent())
    assert [stage["reused"] for stage in again["stages"]] == [True] * 4
    assert [model["digest"] for model in again["models"]] == [model["digest"] for model in results["models"]]


@pytest.mark.parametrize("order", [(0, 1), (1, 0, 2), (0, 1, 1), (0,)])
def test_folds_that_are_not_all_there_in_order_are_refused(
    card_file: Path, root: Path, table: Artifact, folds: list[Artifact], order: tuple[int, ...]
) -> None:
    given = {"table": [table], "teacher": [folds[f] for f in order]}
    with pytest.raises(
        ProvenanceError, match=r"not the teachers of all folds in order: .*fold\dof3/v000001: fold \d of"
    ):
        run_stage("precompute", *job(card_file, root), given, LOCAL, Silent())


def test_a_teacher_that_knows_the_rows_is_refused_unless_allowed(card_file: Path, root: Path, table: Artifact) -> None:
    settings = job(card_file, root, "teacher.in_sample=true")
    (teacher,) = run_stage("teacher", *settings, {"table": [table]}, LOCAL, Silent())
    given = {"table": [table], "teacher": [teacher]}
    with pytest.raises(ProvenanceError, match=r"(?s)trained on the split 'train', whose rows it would score.*folds"):
        run_stage("precompute", *job(card_file, root), given, LOCAL, Silent())
    said = Said()
    (logits,) = run_stage("precompute", *settings, given, LOCAL, said)
    assert any("scores rows on which it was trained" in warning for warning in said.warnings)
    (others,) = run_stage("precompute", *job(card_file, root, "logits.splits=[test]"), given, LOCAL, Silent())
    assert {entry.extra["split"] for entry in others.manifest.files if "split" in entry.extra} == {"test"}
    assert logits.manifest.schema["class_counts"] == np.bincount(rows(table, "train")["label"]).tolist()
    told = LogitsTable(others)
    assert told.missing_classes == (0, 1), "no train row was scored: flagged, not zero"
    assert told.class_means.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_folds_and_in_sample_contradict_each_other(card_file: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match=r"in_sample.*contradicts folds"):
        job(card_file, root, "teacher.folds=3", "teacher.in_sample=true")


def test_the_split_of_a_disjoint_teacher_must_have_rows(card_file: Path, root: Path) -> None:
    with pytest.raises(Exception, match="no row goes to the split 'teacher'"):
        run_job(*job(card_file, root), LOCAL, Silent())


def test_only_shards_that_are_not_there_are_scored(
    card_file: Path, root: Path, table: Artifact, folds: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the table that shares shards with this one: their logits are taken over by reference."""
    from tgeokd_ray.training import scoring

    half = [entry for entry in table.manifest.files if not entry.path.startswith(("test-00001", "train-00002"))]
    with staging(root, "tables", "half", arguments={"half": True}, parents={}) as stage:
        for entry in half:
            stage.take_over(table, entry)
        smaller = stage.commit(schema=table.manifest.schema)
    teacher = _copied(root, smaller, folds[0])
    settings = job(card_file, root, "teacher.in_sample=true")
    monkeypatch.setattr("tgeokd_ray.pipeline.whose_rows.require_parent", lambda *_: None)
    asked: list[str] = []
    score = scoring.ScoreShard._score
    monkeypatch.setattr(scoring.ScoreShard, "_score", lambda self, shard: asked.append(shard) or score(self, shard))
    run_stage("precompute", *settings, {"table": [smaller], "teacher": [teacher]}, LOCAL, Silent())
    first = set(asked)
    (whole,) = run_stage("precompute", *settings, {"table": [table], "teacher": [teacher]}, LOCAL, Silent())
    assert set(asked) - first == {"test-00001.parquet", "train-00002.parquet"}
    assert len(asked) == len(set(asked))
    earlier = [a for a in list_artifacts(root) if a.kind == "logits" and a.digest != whole.digest]
    shared = {path.stat().st_ino for a in earlier for path in a.path.glob("*.parquet")}
    assert sum(whole.file(entry.path).stat().st_ino in shared for entry in whole.manifest.files) == len(first)
    LogitsTable.open(whole.path, EncodedTable.open(table.path))


def _copied(root: Path, table: Artifact, teacher: Artifact) -> Artifact:
    """The same parameters as a teacher without folds."""
    arguments = {key: value for key, value in teacher.manifest.arguments.items() if not key.startswith("fold")}
    with staging(root, "teachers", "copy", arguments=arguments, parents={"table": table}) as stage:
        for entry in teacher.manifest.files:
            stage.take_over(teacher, entry)
        return stage.commit(schema=teacher.manifest.schema)


def test_a_student_learns_from_several_teachers(
    card_file: Path, root: Path, table: Artifact, folds: list[Artifact]
) -> None:
    """Two logits artifacts, M = 2; mixtures give each teacher a weight of its own."""
    both = []
    for precision in ("fp32", "bf16"):
        settings = job(card_file, root, "teacher.folds=3", f"precision={precision}")
        both += run_stage("precompute", *settings, {"table": [table], "teacher": folds}, LOCAL, Silent())
    settings = job(card_file, root, "distill.mixtures=[[0.5, 0.25]]")
    students = run_stage("distill", *settings, {"table": [table], "logits": both}, LOCAL, Silent())
    names = [student.manifest.name.removeprefix("synthetic_ctr-") for student in students]
    assert names == ["labels", "constant-0.5", "constant-0.5-0.25", "shape", "tgeo"]
    assert sorted(students[2].manifest.parents) == ["logits_0", "logits_1", "table"]
    assert students[2].manifest.arguments["rule"] == {"kind": "constant", "value": [0.5, 0.25]}
    with pytest.raises(ConfigError, match="one weight for each of 1 teachers"):
        run_stage("distill", *settings, {"table": [table], "logits": both[:1]}, LOCAL, Silent())


def test_a_job_whose_students_would_have_no_logits_is_refused_before_it_starts(card_file: Path, tmp_path: Path) -> None:
    settings = job(card_file, tmp_path, "teacher.folds=3", "logits.splits=[test]")
    with pytest.raises(ConfigError, match=r"logits\.splits lacks train.*got test"):
        run_job(*settings, LOCAL, Silent())
    assert list_artifacts(tmp_path) == []
    run_job(*settings, LOCAL, Silent(), students=False)
    assert {artifact.kind for artifact in list_artifacts(tmp_path)} == {"tables", "teachers", "logits"}
