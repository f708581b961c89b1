"""The whole chain in one process on a small synthetic table: results, re-use, interruption, plans, prediction."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tgeokd_ray.artifacts import latest, list_artifacts, load_tensors, open_artifact, verify
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, DataError, ProvenanceError, ResourceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.pipeline.job import Place, run_job, run_stage
from tgeokd_ray.pipeline.predict import predict
from tgeokd_ray.tables.cards import PACKAGED
from tgeokd_ray.training.assess import assess

REPOSITORY = Path(__file__).resolve().parents[2]
LOCAL = Place(local=True)
SMALL = [
    "teacher.training.epochs=2",
    "teacher.model.hidden=[16]",
    "teacher.model.embedding=4",
    "student.training.epochs=2",
    "distill.constants=[0.25, 0.75]",
]


@pytest.fixture(scope="module")
def card_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged synthetic card with 4,000 rows."""
    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    card["format"] |= {"rows": 4000, "chunk_rows": 1500}
    path = tmp_path_factory.mktemp("card") / "small.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


def small_job(card_file: Path, root: Path, *settings: str):  # type: ignore[no-untyped-def]
    return resolve({"card": str(card_file), "root": str(root)}, settings=[*SMALL, *settings])


@pytest.fixture(scope="module")
def whole(card_file: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """(results, run folder, root) of one undisturbed job."""
    root = tmp_path_factory.mktemp("whole")
    results, folder = run_job(*small_job(card_file, root), LOCAL, Silent())
    return results, folder, root


def digests(root: Path) -> dict[str, str]:
    return {artifact.label: artifact.digest for artifact in list_artifacts(root)}


def test_results_have_the_promised_form(whole) -> None:  # type: ignore[no-untyped-def]
    results, folder, root = whole
    assert results == json.loads((folder / "results.json").read_text())
    assert results["format"] == 1
    assert [model["name"] for model in results["models"]] == [
        "teacher",
        "labels",
        "constant-0.25",
        "constant-0.75",
        "tgeo",
    ]
    for model in results["models"]:
        assert model["role"] == ("teacher" if model["name"] == "teacher" else "student")
        assert (model["rule"] is None) == (model["name"] == "teacher")
        assert 0 < model["auc"] <= 1
        assert model["nll"] > 0
        assert model["rows"] == results["table"]["rows"]["test"]
        assert model["parameters"] > 0
        low, high = model["auc_interval"]
        assert low < model["auc"] < high
        assert open_artifact(root / model["artifact"]).digest == model["digest"]
    assert sum(model.get("chosen", False) for model in results["models"]) == 1
    assert results["models"][-1]["rule"]["kind"] == "tgeo"
    assert results["models"][-1]["choice"]["metric"] == "auc"
    assert [stage["name"] for stage in results["stages"]] == ["encode", "teacher", "precompute", "distill"]
    assert not any(stage["reused"] for stage in results["stages"])
    assert 0.5 < results["extra"]["bayes_auc"] < 1
    assert sum(results["table"]["rows"].values()) <= 4000


def test_the_run_folder_is_complete(whole) -> None:  # type: ignore[no-untyped-def]
    _, folder, _ = whole
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "results.json", "metrics.jsonl", "report.html", "log.txt", "tensorboard"} <= names
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["student"]["training"]["epochs"] == 2
    assert config["teacher"]["training"]["optimizer"]["kind"] == "adam"
    assert not list((folder / "checkpoints").glob("*/v*"))


def test_every_artifact_verifies_with_its_parents(whole) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    artifacts = list_artifacts(root)
    kinds = {artifact.kind for artifact in artifacts}
    assert kinds == {"tables", "teachers", "logits", "evidence", "ratios", "students"}
    for artifact in artifacts:
        assert verify(artifact.path) == ([], [])


def test_the_second_run_reuses_all_and_a_change_redoes_what_hangs_on_it(whole, card_file: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    before = digests(root)
    again, _ = run_job(*small_job(card_file, root), LOCAL, Silent())
    assert all(stage["reused"] for stage in again["stages"])
    assert digests(root) == before
    hotter, _ = run_job(*small_job(card_file, root, "distill.temperature=2"), LOCAL, Silent())
    assert {stage["name"]: stage["reused"] for stage in hotter["stages"]} == {
        "encode": True,
        "teacher": True,
        "precompute": True,
        "distill": False,
    }
    assert before.items() <= digests(root).items(), "earlier versions stay"


@pytest.mark.timeout(120)
def test_the_second_run_loads_neither_ray_nor_torch(whole, card_file: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    script = (
        "import sys; from tgeokd_ray.cli.jobs import job_main\n"
        "try: job_main('t', 'synthetic_ctr')\n"
        "except SystemExit as end: code = end.code\n"
        "print('LOADED', sorted({'ray', 'torch', 'polars', 'pyarrow'} & set(sys.modules)), code)"
    )
    words = ["--card", str(card_file), "--root", str(root), *(w for s in SMALL for w in ("--set", s))]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED [] 0"
    assert "reused tables/" in done.stderr
    assert "TGeo-KD" in done.stdout


@pytest.mark.parametrize("stage", ["ingest", "encode", "teacher", "precompute", "labels", "tgeo"])
def test_k3_interrupted_anywhere_the_same_command_ends_with_the_same_digests(  # type: ignore[no-untyped-def]
    whole, card_file: Path, tmp_path: Path, stage: str
) -> None:
    class Interrupts(Silent):
        def advanced(self, name: str, amount: int, note: str = "") -> None:
            if name.partition("-and-")[0] == stage and amount:
                raise KeyboardInterrupt

    _, _, root = whole
    with pytest.raises(KeyboardInterrupt):
        run_job(*small_job(card_file, tmp_path), LOCAL, Interrupts())
    run_job(*small_job(card_file, tmp_path), LOCAL, Silent())
    expected = {label: digest for label, digest in digests(root).items() if label.endswith("v000001")}
    assert digests(tmp_path) == expected


def test_another_student_takes_a_ratio_that_was_learned_before(whole, card_file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    shutil.copytree(root, tmp_path / "root")
    learned = latest(root, "ratios", "synthetic_ctr-shape")
    assert learned is not None
    settings = ("student.model.hidden=[5]", "distill.ratios=[synthetic_ctr-shape]", "distill.more_temperatures=[2.0]")
    results, _ = run_job(*small_job(card_file, tmp_path / "root", *settings), LOCAL, Silent())
    again = latest(tmp_path / "root", "ratios", "synthetic_ctr-shape")
    assert again is not None
    assert again.version == learned.version, "nothing was learned"
    tgeo = results["models"][-1]
    student = open_artifact(tmp_path / "root" / tgeo["artifact"])
    assert student.manifest.parents["ratios"].digest == learned.digest
    assert {one["temperature"] for one in tgeo["choice"]["candidates"]} == {1.0, 2.0}
    with pytest.raises(ConfigError, match=r"there is no ratios/none under"):
        run_job(*small_job(card_file, tmp_path / "root", "distill.ratios=[none]"), LOCAL, Silent())


def test_p1_students_of_logits_from_another_teacher_are_other_students(whole, card_file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    shutil.copytree(root / "tables", tmp_path / "tables")
    other, _ = run_job(*small_job(card_file, tmp_path, "seed=1"), LOCAL, Silent())
    assert {stage["name"]: stage["reused"] for stage in other["stages"]}["encode"]
    theirs = {artifact.label: artifact.digest for artifact in list_artifacts(tmp_path)}
    assert theirs["teachers/synthetic_ctr/v000001"] != digests(root)["teachers/synthetic_ctr/v000001"]


def test_p1_p2_p3_a_teacher_of_another_table_scores_nothing(whole, card_file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    other = tmp_path / "card.yaml"
    card = yaml.safe_load(card_file.read_text())
    card["format"] |= {"seed": 8}
    other.write_text(yaml.safe_dump(card))
    job, changed = small_job(other, tmp_path)
    table = run_stage("encode", job, changed, {}, LOCAL, Silent())
    teacher = latest(root, "teachers", "synthetic_ctr")
    assert teacher is not None
    with pytest.raises(ProvenanceError, match=r"was made from tables/synthetic_ctr/v000001 .* but tables/") as caught:
        run_stage("precompute", job, changed, {"table": table, "teacher": [teacher]}, LOCAL, Silent())
    assert caught.value.exit_code == 4
    assert not (tmp_path / "logits").exists()


def test_d7_a_split_without_rows_is_said_before_anything_is_trained(card_file: Path, tmp_path: Path) -> None:
    without = tmp_path / "card.yaml"
    card = yaml.safe_load(card_file.read_text())
    del card["splits"]["parts"]["outer"]
    without.write_text(yaml.safe_dump(card))
    with pytest.raises(DataError, match="no row goes to the split 'outer'"):
        run_job(*small_job(without, tmp_path), LOCAL, Silent())
    assert {artifact.kind for artifact in list_artifacts(tmp_path)} == {"tables"}


def test_stages_run_one_by_one_give_the_same_artifacts(whole, card_file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    job, card = small_job(card_file, tmp_path)
    table = run_stage("encode", job, card, {}, LOCAL, Silent())
    teacher = run_stage("teacher", job, card, {"table": table}, LOCAL, Silent())
    logits = run_stage("precompute", job, card, {"table": table, "teacher": teacher}, LOCAL, Silent())
    students = run_stage("distill", job, card, {"table": table, "logits": logits}, LOCAL, Silent())
    expected = digests(root)
    for artifact in (*table, *teacher, *logits, *students):
        assert expected[artifact.label] == artifact.digest


def test_class_means_are_the_mean_teacher_distribution_of_train_rows(whole) -> None:  # type: ignore[no-untyped-def]
    _, _, root = whole
    logits, table = latest(root, "logits", "synthetic_ctr"), latest(root, "tables", "synthetic_ctr")
    assert logits is not None
    assert table is not None
    shards = [entry.path for entry in table.manifest.files if entry.extra.get("split") == "train"]
    scores = np.concatenate([np.array(pq.read_table(logits.file(s))["logits"].to_pylist()) for s in shards])
    labels = np.concatenate([pq.read_table(table.file(s))["label"].to_numpy() for s in shards])
    odds = np.exp(scores.astype(np.float64))
    expected = [(odds / odds.sum(1, keepdims=True))[labels == c].mean(0) for c in range(2)]
    kept = load_tensors(logits.file("class_means.safetensors"))["means"]
    np.testing.assert_allclose(kept.numpy(), expected, rtol=1e-12)
    assert logits.manifest.schema["class_counts"] == np.bincount(labels).tolist()
    splits = {entry.extra["split"] for entry in logits.manifest.files if "split" in entry.extra}
    assert splits == {"train", "outer", "valid", "test"}, "the teacher never scores its own rows"


def test_a_student_of_a_synthetic_table_has_no_raw_rows_to_score(whole, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, _, root = whole
    with pytest.raises(ConfigError):
        predict(root / results["models"][-1]["artifact"], ["no-such-file.csv"], tmp_path / "out.parquet", Silent())
    assert not (tmp_path / "out.parquet").exists()


def test_s8_a_root_that_cannot_be_written_is_refused(card_file: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        run_job(*small_job(card_file, blocked), LOCAL, Silent())


def test_x3_a_run_name_that_leaves_the_root_is_refused(card_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run_job(*small_job(card_file, tmp_path, "run=../x"), LOCAL, Silent())
    assert not list(tmp_path.parent.glob("x"))


def test_device_cuda_without_one_is_refused(card_file: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ResourceError, match="no CUDA device"):
        run_job(*small_job(card_file, tmp_path, "device=cuda"), LOCAL, Silent())


def test_p2_evaluate_repeats_the_figures_of_the_run_and_refuses_another_table(whole, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results, _, root = whole
    table = EncodedTable.open(root / results["table"]["artifact"])
    for model in (results["models"][0], results["models"][-1]):
        found = assess(root / model["artifact"], table, "test", Silent())
        assert {name: found[name] for name in ("auc", "nll", "accuracy")} == pytest.approx(
            {name: model[name] for name in ("auc", "nll", "accuracy")}, abs=1e-6
        )
    other = tmp_path / "card.yaml"
    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    card["format"] |= {"rows": 600, "seed": 8}
    other.write_text(yaml.safe_dump(card))
    (another,) = run_stage("encode", *small_job(other, tmp_path), {}, LOCAL, Silent())
    with pytest.raises(ProvenanceError, match="was made from"):
        assess(root / results["models"][0]["artifact"], EncodedTable.open(another.path), "test", Silent())
