"""Labels that nobody has vouched for, through the whole chain: who is asked, what it gains, what an audit gives."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.denoising import denoises, denoising_plan
from tgeokd_ray.pipeline.job import Place, run_job, run_stage
from tgeokd_ray.pipeline.plans import students_plan
from tgeokd_ray.pipeline.whose_rows import check_teachers
from tgeokd_ray.report.terminal import results_table
from tgeokd_ray.tables.regimes.catalogue import build
from tgeokd_ray.tables.regimes.writing import Written, write
from tgeokd_ray.training.spec import Finished

LOCAL = Place(local=True)
SHORT = [
    "student.training={epochs: 10, patience: 10, batch_rows: 100, optimizer: {learning_rate: 1.0e-2}}",
    "distill.constants=[0, 0.5, 1]",
    "distill.rivals=[wls]",
    "distill.fusion={look_ahead: 3, every: 5}",
    "distill.strengths=[2]",
    "distill.shifts=[0, 3]",
]


def job_of(written: Written, root: Path, *settings: str):  # type: ignore[no-untyped-def]
    options = {"card": str(written.card), "data": [str(written.rows)], "root": str(root)}
    return resolve(options, settings=[f"teacher.imported.file={written.teachers[0]}", *SHORT, *settings])


def made(name: str, folder: Path, *, trust: bool = False, seed: int = 0) -> Written:
    return write(build(name), seed, folder / name, trust=trust)


@pytest.fixture(scope="module")
def flip(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """(results, run folder, files, root) of a job whose labels are half wrong in a region, outer and valid rows too."""
    place = tmp_path_factory.mktemp("flip")
    written = made("synth.flip", place)
    results, folder = run_job(*job_of(written, place / "root"), LOCAL, Silent())
    return results, folder, written, place / "root"


def models(results: dict) -> dict:  # type: ignore[type-arg]
    return {model["name"]: model for model in results["models"]}


def test_every_student_is_chosen_by_denoised_labels_and_measured_by_given_ones(flip) -> None:  # type: ignore[no-untyped-def]
    results, _, _, root = flip
    found = models(results)
    channel = open_artifact(root / results["channel"]["artifact"])
    for name in ("labels", "constant-0.5", "wls", "tgeo"):
        assert open_artifact(root / found[name]["artifact"]).manifest.parents["channel"].digest == channel.digest
        assert found[name]["valid"]["nll"] == pytest.approx(found[name]["nll"], abs=0.06), "test labels are clean"
    assert set(channel.manifest.parents) == {"table", "logits", *(f"judge_{fold}" for fold in range(5))}
    assert [stage["name"] for stage in results["stages"]][-1] == "distill"
    assert not [name for name in found if "judge" in name or "shape" in name or "channel" in name]


def test_the_choice_by_denoised_labels_is_another_and_a_better_one(flip) -> None:  # type: ignore[no-untyped-def]
    results, _, written, root = flip
    noisy, _ = run_job(*job_of(written, root, "distill.channel=off", "run=noisy"), LOCAL, Silent())
    assert "contradict the teacher" in " ".join(noisy["warnings"])
    assert "channel" not in noisy
    by_q, by_given = models(results), models(noisy)
    rivals = ["constant-0", "constant-0.5", "constant-1", "wls"]
    best_q, best_given = (min(rivals, key=lambda name: m[name]["valid"]["nll"]) for m in (by_q, by_given))
    assert (best_q, best_given) == ("wls", "constant-0")
    assert by_q[best_q]["nll"] < by_given[best_given]["nll"] - 0.05
    assert by_q["tgeo"]["nll"] < by_given["tgeo"]["nll"] - 0.08


def test_the_suspicious_labels_are_the_wrong_ones_worst_first(flip) -> None:  # type: ignore[no-untyped-def]
    results, folder, written, _ = flip
    told = pq.read_table(folder / "suspicious.parquet")
    assert told.column_names == ["row_id", "split", "label", "probability", "suggestion"]
    assert told.num_rows == results["channel"]["suspicious_rows"] > 100
    truth = {row["row_id"]: row for row in pq.read_table(written.truth).to_pylist()}
    rows = told.to_pylist()
    assert all(row["label"] == truth[row["row_id"]]["given_label"] for row in rows)
    assert [row["probability"] for row in rows] == sorted(row["probability"] for row in rows)
    assert max(row["probability"] for row in rows) < 0.1
    flipped = {row["row_id"] for row in truth.values() if row["flipped"]}
    hits = [row["row_id"] in flipped for row in rows]
    assert sum(hits) / len(hits) > 0.8, "precision"
    assert sum(hits) / len(flipped) > 0.4, "recall"
    right = [row["suggestion"] == truth[row["row_id"]]["true_label"] for row in rows]
    assert sum(right) / len(right) > 0.7
    assert {row["split"] for row in rows} == {"train", "outer", "valid"}


def test_the_report_and_the_terminal_say_what_the_labels_are_like(flip) -> None:  # type: ignore[no-untyped-def]
    results, folder, _, _ = flip
    console = Console(file=StringIO(), width=200)
    results_table(results, console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert (
        f"labels: {results['channel']['suspicious_rows']} of 3,500 are suspicious, listed in suspicious.parquet" in told
    )
    page = (folder / "report.html").read_text()
    assert "A channel model has denoised" in page
    assert f"<td>{results['channel']['noise']:.3f}</td>" in page
    assert json.loads((folder / "results.json").read_text())["channel"] == results["channel"]
    assert set(results["channel"]["by_class"]) == set(results["table"]["classes"])


def test_the_same_job_again_trains_nothing_and_asks_nobody(flip, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    results, folder, written, root = flip
    for place in ("training.surprise.surprise", "pipeline.suspicious.write_suspicious"):
        monkeypatch.setattr(f"tgeokd_ray.{place}", None)
    again, _ = run_job(*job_of(written, root), LOCAL, Silent())
    assert all(stage["reused"] for stage in again["stages"])
    assert again["channel"] == results["channel"]
    assert [model["digest"] for model in again["models"]] == [model["digest"] for model in results["models"]]
    assert (folder / "suspicious.parquet").exists()


def test_the_list_of_another_channel_does_not_stay_in_a_run_folder(flip, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, folder, written, root = flip
    listed = (folder / "suspicious.parquet").read_bytes()
    other = root / "runs" / "other"
    other.mkdir(parents=True)
    (other / "suspicious.parquet").write_bytes(b"of another channel")
    run_job(*job_of(written, root, "run=other"), LOCAL, Silent())
    assert (other / "suspicious.parquet").read_bytes() == listed
    run_job(*job_of(written, root, "run=other", "distill.channel=off"), LOCAL, Silent())
    assert not (other / "suspicious.parquet").exists()


def test_audited_rows_come_back_as_trusted_and_no_channel_is_asked_for(flip, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The audit of the listed rows and of every eighth other one: right labels, and a yes in a column."""
    _, folder, written, _ = flip
    listed = pq.read_table(folder / "suspicious.parquet")["row_id"]
    rows, truth = pq.read_table(written.rows), pq.read_table(written.truth)
    seen = pc.or_(pc.is_in(rows["row_id"], listed), pc.equal(pc.bit_wise_and(rows["row_id"], 7), 0))
    right = pc.if_else(seen, truth["true_label"], rows["label"])
    rows = rows.set_column(rows.column_names.index("label"), "label", right)
    rows = rows.append_column("audited", pc.if_else(seen, "yes", "no"))
    pq.write_table(rows, tmp_path / "audited.parquet")
    card = yaml.safe_load(written.card.read_text())
    parts = {"train": 0.7, "test": 0.3}
    card["splits"] = {"kind": "hash", "salt": "s", "parts": parts, "trusted": {"column": "audited"}}
    card["columns"]["ignore"] = ["split"]
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    back = Written(tmp_path / "audited.parquet", tmp_path / "card.yaml", written.truth, written.teachers)
    job, own = job_of(back, tmp_path / "root")
    (table,) = run_stage("encode", job, own, {}, LOCAL, Silent())
    trusted = table.manifest.schema["trusted"]["rows"]
    assert trusted["outer"] + trusted["valid"] > 0.6 * pc.sum(seen).as_py()
    names, true = dict(zip(*truth.select(["row_id", "true_label"]).to_pydict().values(), strict=True)), []
    for split in ("outer", "valid"):
        (shard,) = [entry.path for entry in table.manifest.files if entry.extra.get("split") == split]
        shown = pq.read_table(table.file(shard), columns=["row_id", "label"]).to_pydict()
        classes = table.manifest.schema["classes"]
        true += [names[row] == classes[label] for row, label in zip(shown["row_id"], shown["label"], strict=True)]
    assert all(true)
    assert not denoises(job, own.name, tmp_path / "root", table, [], Silent())


def test_auto_asks_for_a_channel_by_the_evidence_and_words_of_a_user_count_more(tmp_path: Path) -> None:
    def wants(name: str, setting: str, *, trust: bool = False) -> tuple[bool, list[str]]:
        written, said = made(name, tmp_path / f"{name}-{trust}", trust=trust), Silent()
        job, card = job_of(written, tmp_path / "root", f"distill.channel={setting}")
        (table,) = run_stage("encode", job, card, {}, LOCAL, said)
        logits = run_stage("import", job, card, {"table": [table]}, LOCAL, said)
        said.warnings.clear()
        return denoises(job, card.name, tmp_path / "root", table, logits, said), said.warnings

    assert wants("synth.soft", "auto") == (True, [])
    assert wants("synth.null", "auto") == wants("synth.null", "off") == (False, [])
    assert wants("synth.null", "on") == (True, [])
    assert wants("synth.soft", "auto", trust=True) == (False, [])
    asked, warnings = wants("synth.soft", "on", trust=True)
    assert asked
    assert "calls trusted" in warnings[0]
    refused, warnings = wants("synth.soft", "off")
    assert not refused
    assert "name trusted rows in the card" in warnings[0]


def test_logits_of_some_splits_are_no_evidence_and_too_few_for_a_channel(tmp_path: Path) -> None:
    train = SimpleNamespace(extra={"split": "train"})
    logits = SimpleNamespace(manifest=SimpleNamespace(files=[train, SimpleNamespace(extra={})]))
    table = SimpleNamespace(manifest=SimpleNamespace(schema={}))
    for way in ("auto", "off"):
        job, card = resolve({}, settings=[f"distill.channel={way}"])
        assert not denoises(job, card.name, tmp_path, table, [logits], Silent())  # type: ignore[arg-type, list-item]
    job, card = resolve({}, settings=["distill.channel=on"])
    with pytest.raises(ConfigError, match=r"logits.*got no outer"):
        denoises(job, card.name, tmp_path, table, [logits], Silent())  # type: ignore[arg-type, list-item]


def test_a_judge_that_fails_ends_the_plan_and_judges_correct_for_no_class(tmp_path: Path) -> None:
    job, card = resolve({}, settings=["student.training.class_weights=balanced", "student.training.epochs=7"])
    table = open_artifact(
        run_stage("encode", job.model_copy(update={"root": str(tmp_path)}), card, {}, LOCAL, Silent())[0].path
    )
    plan = denoising_plan(students_plan(job, "demo", table, [table], tmp_path, tmp_path), "demo")
    judges = plan([])
    assert [(one.fold, one.folds, one.held_out, one.logits) for one in judges] == [(f, 5, True, ()) for f in range(5)]
    assert {(one.class_weights, one.oversample, one.metric, one.epochs) for one in judges} == {("none", 1, "nll", 7)}
    assert {one.splits for one in judges} == {("train", "outer", "valid")}
    done = [Finished(one.name, f"there/{one.name}", "", {}, False, 0.0) for one in judges]
    (fit,) = plan(done)
    assert (fit.kind, fit.judges) == ("channels", tuple(one.artifact for one in done))
    broken = [*done[:4], Finished("judge-fold4", "", "", {}, False, 0.0, error=ConfigError("no"))]
    assert plan(broken) == ()
    students = plan([*done, Finished("channel", "there/channel", "", {}, False, 0.0)])
    assert {one.channel for one in students} == {"there/channel"}
    assert [one.rule["offset"] for one in students if one.rule["kind"] == "tgeo_shape"] == [True]


def test_a_teacher_that_holds_rows_out_stops_on_them_and_scores_all_others(tmp_path: Path) -> None:
    settings = ["teacher.hold_out=4", "teacher.model={hidden: [8], members: 1}", "teacher.training.epochs=3"]
    card_data = {"format": {"kind": "synthetic", "rows": 3000, "seed": 1}}
    from tgeokd_ray.tables.cards import PACKAGED

    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text()) | card_data
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    options = {"card": str(tmp_path / "card.yaml"), "root": str(tmp_path)}
    job, own = resolve(options, settings=settings)
    (table,) = run_stage("encode", job, own, {}, LOCAL, Silent())
    (teacher,) = run_stage("teacher", job, own, {"table": [table]}, LOCAL, Silent())
    arguments = teacher.manifest.arguments
    assert (arguments["splits"], arguments["fold"], arguments["folds"], arguments["held_out"]) == (
        ["teacher"],
        0,
        4,
        True,
    )
    metrics = json.loads(teacher.file("metrics.json").read_text())
    rows = table.manifest.schema["rows"]
    assert metrics["valid"]["rows"] == pytest.approx(rows["teacher"] / 4, rel=0.2) != rows["valid"]
    check_teachers(table, [teacher], ("train", "valid", "test"), in_sample=False, progress=Silent())
    for wrong, why in (("teacher.hold_out=1", "hold out all rows"), ("teacher.folds=3", "contradicts folds")):
        with pytest.raises(ConfigError, match=why):
            resolve(options, settings=[*settings, wrong])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_where_no_label_is_wrong_nobody_is_harmed(tmp_path: Path, seed: int) -> None:
    written = made("synth.null", tmp_path, seed=seed)
    given, denoised = (
        run_job(*job_of(written, tmp_path / "root", f"distill.channel={way}", f"run=labels-{way}"), LOCAL, Silent())[0]
        for way in ("off", "on")
    )
    assert models(denoised)["tgeo"]["nll"] < models(given)["tgeo"]["nll"] + 0.002
    assert [model.get("chosen") for model in denoised["models"]] == [model.get("chosen") for model in given["models"]]
    assert denoised["channel"]["suspicious"] < 0.02
