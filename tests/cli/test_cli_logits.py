"""`tgeokd import-logits` and `tgeokd logits`: what the words mean, what is printed, how errors end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_artifacts import write_card
from click.testing import Result
from typer.testing import CliRunner

import tgeokd_ray.pipeline.job as pipeline
from tgeokd_ray.artifacts import latest, list_artifacts
from tgeokd_ray.cli.jobs import job_app
from tgeokd_ray.events import Silent
from tgeokd_ray.tables.cards import load_card
from tgeokd_ray.tables.encode import encode

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a table of 1,500 rows."""
    folder = tmp_path_factory.mktemp("encoded")
    card = load_card(str(write_card(folder / "mine.yaml", format={"kind": "synthetic", "rows": 1500, "seed": 1})))
    encode(card, [], folder / "root", lambda function, items, stage: map(function, items), Silent())
    return folder / "root"


@pytest.fixture
def scores(encoded: Path, tmp_path: Path) -> Path:
    """A file of scores for every row of the splits that students see."""
    table = latest(encoded, "tables", "mine")
    assert table is not None
    shards = [e.path for e in table.manifest.files if e.extra.get("split") not in (None, "teacher")]
    rows = pa.concat_tables([pq.read_table(table.file(s), columns=["row_id", "label"]) for s in shards])
    score = np.where(rows["label"].to_numpy() == 1, 0.7, 0.2) + np.linspace(-0.15, 0.25, len(rows))
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"row_id": rows["row_id"], "score": score}), path)
    return path


def block(result: Result) -> str:
    return " ".join(result.output.split())


def test_import_prints_the_label_and_the_calibration_and_reads_its_own_export(
    run: Run, encoded: Path, scores: Path, tmp_path: Path
) -> None:
    words = ["import-logits", "tables/mine", scores, "--root", encoded, "--name", "boosting", "--calibrate"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "logits/boosting/v000001"
    assert result.stdout.splitlines()[1].startswith("temperature ")
    assert run(*words).stdout == result.stdout, "re-used, and said again"
    plain = tmp_path / "plain.csv"
    told = run("logits", "logits/boosting", "--to", plain, "--splits", "train", "--splits", "valid", "--root", encoded)
    assert told.exit_code == 0, told.output
    assert told.stdout.strip().endswith(f"rows: {plain}")
    assert plain.read_text().splitlines()[0] == '"row_id","split","fold","logit_0","logit_1"'
    back = run("import-logits", "tables/mine", plain, "--root", encoded, "--set", "logits.splits=[train, valid]")
    assert back.exit_code == 0, back.output


def test_d7_p6_x1_errors_end_with_the_code_of_their_kind_and_nothing_visible(
    run: Run, encoded: Path, scores: Path, tmp_path: Path
) -> None:
    before = [artifact.label for artifact in list_artifacts(encoded)]
    told = pq.read_table(scores)
    bare, short, hostile = (tmp_path / name for name in ("bare.parquet", "short.parquet", "hostile.parquet"))
    pq.write_table(pa.table({"row_id": told["row_id"], "0": told["score"], "1": told["score"]}), bare)
    pq.write_table(told.slice(3), short)
    hostile.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    for words, code, text in (
        ([bare], 2, "--kind probabilities, or --kind logits"),
        ([short], 3, "--missing labels"),
        ([hostile], 3, "is no whole Parquet file"),
        ([tmp_path / "absent.csv"], 3, "there is no such file"),
        ([scores, "--kind", "odds"], 2, "must be 'logits', 'probabilities' or 'score'"),
        ([scores, "--missing", "drop"], 2, "must be 'refuse' or 'labels'"),
    ):
        result = run("import-logits", "tables/mine", *words, "--root", encoded)
        assert result.exit_code == code, result.output
        assert text in block(result)
    assert not (tmp_path / "ran").exists()
    assert [artifact.label for artifact in list_artifacts(encoded)] == before
    assert run("logits", "tables/mine", "--to", tmp_path / "x.csv", "--root", encoded).exit_code == 2


def test_the_words_reach_the_configuration(run: Run, encoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[Any, ...]] = []
    monkeypatch.setattr(pipeline, "run_stage", lambda *told: heard.append(told) or [])
    words = ["--kind", "logits", "--calibrate", "--missing", "labels", "--name", "n", "--set", "logits.dtype=float16"]
    assert run("import-logits", "tables/mine", "told.csv", *words, "--root", encoded).exit_code == 0
    (name, job, *_), imported = heard[0], heard[0][1].teacher.imported
    assert (name, imported.file, imported.kind, imported.name) == ("import", "told.csv", "logits", "n")
    assert (imported.calibrate, imported.missing, job.logits.dtype) == (True, "labels", "float16")


def test_a_job_takes_the_file_as_an_option_and_a_setting_overrules_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[Any, ...]] = []

    def run_job(*told: Any, **_: Any) -> None:
        heard.append(told)
        raise SystemExit(0)

    monkeypatch.setattr(pipeline, "run_job", run_job)
    for words, file in (([], "a.csv"), (["--set", "teacher.imported.file=b.csv"], "b.csv")):
        CliRunner().invoke(job_app("A job.", "synthetic_ctr"), ["--teacher-logits", "a.csv", *words])
        assert heard[-1][0].teacher.imported.file == file
