"""What an artifact was made from, printed back to the raw files; logits scored once for all students."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_artifacts import make
from click.testing import Result

from tgeokd_ray.artifacts import staging
from tgeokd_ray.cli.jobs import job_main

Run = Callable[..., Result]


def test_a_student_is_traced_back_to_the_raw_file(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root"
    raw = [{"name": "day-1.csv", "bytes": 7, "sha256": "a" * 64}]
    with staging(root, "tables", "mine", arguments={"raw": raw}, parents={}) as stage:
        table = stage.commit(schema={})
    teacher = make(root, "teachers", "mine", table=table)
    logits = make(root, "logits", "mine", table=table, teacher=teacher)
    with staging(
        root, "logits", "theirs", arguments={"file": raw[0] | {"name": "b.csv"}}, parents={"table": table}
    ) as s:
        theirs = s.commit(schema={})
    student = make(root, "students", "mine", table=table, logits_0=logits, logits_1=theirs)
    lines = run("lineage", "students/mine", "--root", root).output.splitlines()
    short = [line.removesuffix(f" {'a' * 12}") for line in lines]
    assert [line.split("/v000001")[0] for line in short] == [
        "students/mine",
        "  logits_0  logits/mine",
        "    table  tables/mine",
        "      file  day-1.csv  sha256",
        "    teacher  teachers/mine",
        "      table  tables/mine",
        "  logits_1  logits/theirs",
        "    file  b.csv  sha256",
        "    table  tables/mine",
        "  table  tables/mine",
    ]
    assert student.digest[:12] in lines[0]


def test_a_parent_that_is_gone_is_said(run: Run, root: Path) -> None:
    for file in sorted((root / "tables").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    assert "not under this root" in run("lineage", "teachers/mine", "--root", root).output


def test_the_job_of_precompute_ends_with_logits(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    words = ["--root", str(tmp_path), "--local", "--quick", "--set", "teacher.training.epochs=1"]
    with pytest.raises(SystemExit) as ended:
        job_main("Score.", "synthetic_ctr", argv=words, students=False)
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "logits: logits/synthetic_ctr/v000001" in shown
    assert "teacher" in shown
    assert not (tmp_path / "students").exists()
    assert (tmp_path / "runs" / "synthetic_ctr" / "results.json").exists()
