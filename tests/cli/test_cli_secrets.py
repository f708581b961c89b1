"""What a process knows by its environment is written nowhere: run folder, artifacts, what is printed, errors."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_artifacts import write_card
from click.testing import Result
from typer.testing import CliRunner

from tgeokd_ray.cli.jobs import job_app

SECRETS = {
    name: f"SECRET-of-{name}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "PASSWORD")
}
QUICK = [
    "teacher.training.epochs=1",
    "teacher.model.hidden=[4]",
    "student.training.epochs=1",
    "distill.constants=[1.0]",
]


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_x10_a_job_writes_no_value_of_the_environment(tmp_path: Path) -> None:
    card = write_card(tmp_path / "mine.yaml", format={"kind": "synthetic", "rows": 1500, "seed": 1})
    root = tmp_path / "root"
    words = ["--local", "--quick", "--card", str(card), "--root", str(root), "--json", "--verbose"]
    done = CliRunner().invoke(job_app("A job.", "synthetic_ctr"), [*words, *(w for s in QUICK for w in ("--set", s))])
    assert done.exit_code == 0, done.output
    files = [path for path in root.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"results.json", "config.yaml", "log.txt", "report.html", "metrics.jsonl", "manifest.json"} <= names
    assert [path for path in files if b"SECRET-of" in path.read_bytes()] == []
    assert "SECRET-of" not in done.output


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is None, reason="s3fs is not installed")
def test_x10_an_error_shows_no_value_of_the_environment(
    run: Callable[..., Result], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for words in ([], ["--debug"]):
        result = run("push", "tables/mine", "--to", "s3://bucket/x", "--root", root, *words)
        assert result.exit_code == 6, result.output
        assert "AWS_ENDPOINT_URL" in result.output
        assert "SECRET-of" not in result.output
