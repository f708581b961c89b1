"""How the command line finds what a user names, and what it says of the wrong thing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_artifacts import make
from click.testing import Result

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.cli import commands
from tgeokd_ray.cli.lookup import named
from tgeokd_ray.errors import ConfigError, IntegrityError

Run = Callable[..., Result]


def told(result: Result) -> str:
    """What the command said, in one line."""
    return " ".join(result.output.split())


@pytest.mark.parametrize("folder", ["work", "tables/foo", "a folder/foo", ".hidden"])
def test_a_name_that_leads_nowhere_is_told_as_it_is(
    run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / folder)
    for name in ("foo", "..", "tables/foo", "x" * 300, "a\x00b", ""):
        result = run("verify", name, "--root", root)
        assert result.exit_code == 2, result.output
        assert f"no artifact {name!r} under {root}" in told(result)
        assert "logits/mine/v000001" in told(result), "what is there is named"


def test_a_name_is_looked_for_under_the_root_first(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(tmp_path / "here", "tables", "mine")
    monkeypatch.chdir(tmp_path / "here")
    for label in ("tables/mine", "tables/mine/v000001"):
        assert named(root, label).path == root / "tables" / "mine" / "v000001"
    elsewhere = tmp_path / "empty"
    for label in ("tables/mine", "tables/mine/v000001", str(here.path), str(here.path.parent)):
        assert named(elsewhere, label).digest == here.digest
    monkeypatch.chdir(here.path)
    with pytest.raises(ConfigError, match="no artifact 'mine'"):
        named(elsewhere, "mine")


def test_a_moved_artifact_is_one_by_its_manifest(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "tables" / "mine" / "v000001", tmp_path / "a copy")
    assert named(root, str(tmp_path / "a copy")).label == "tables/mine/v000001"


def test_s6_a_damaged_version_is_passed_over_for_a_whole_one_and_told_where_there_is_none(root: Path) -> None:
    shutil.copytree(root / "tables" / "mine" / "v000001", root / "tables" / "mine" / "v000002")
    (root / "tables" / "mine" / "v000002" / "data.json").write_text("")
    assert named(root, "tables/mine").path.name == "v000001"
    (root / "tables" / "mine" / "v000001" / "data.json").unlink()
    with pytest.raises(IntegrityError, match="the size differs"):
        named(root, "tables/mine")


@pytest.mark.parametrize(
    ("words", "expected", "got"),
    [
        (["evaluate", "tables/mine", "tables/mine"], "students or teachers", "tables"),
        (["evaluate", "teachers/mine", "logits/mine"], "tables", "logits"),
        (["predict", "logits/mine", "rows.csv"], "students or teachers", "logits"),
        (["teacher", "logits/mine", "--local"], "tables", "logits"),
        (["precompute", "tables/mine", "tables/mine", "--local"], "teachers", "tables"),
        (["distill", "tables/mine", "teachers/mine", "--local"], "logits", "teachers"),
    ],
)
def test_an_artifact_of_another_kind(run: Run, root: Path, words: list[str], expected: str, got: str) -> None:
    result = run(*words, "--root", root)
    assert result.exit_code == 2, result.output
    assert f"expected {expected}; got {got}" in told(result)


@pytest.mark.parametrize(
    ("content", "expected", "got"),
    [
        ("{}", "format 1", "None"),
        ('{"format": 2, "run": "x", "models": []}', "format 1", "2"),
        ("[1]", "format 1", "None"),
        ('{"format": 1}', "the keys run and models", ""),
        ('{"format": 1, "run": "x", "models": 3}', "the keys run and models", ""),
        ('{"format": 1, "run": "x", "models": [{}]}', "the keys run and models", ""),
    ],
)
def test_a_report_of_something_else(run: Run, root: Path, content: str, expected: str, got: str) -> None:
    folder = root / "runs" / "x"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(content)
    for name in ("x", folder):
        result = run("report", name, "--root", root)
        assert result.exit_code == 2, result.output
        assert f"expected {expected}" in told(result)
        assert got in told(result)
    assert not (folder / "report.html").exists()


def test_a_report_of_a_run_and_of_none(run: Run, root: Path) -> None:
    folder = root / "runs" / "x"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"format": 1, "run": "x", "models": []}))
    assert run("report", "x", "--root", root).exit_code == 0
    assert (folder / "report.html").exists()
    (folder / "config.yaml").write_text("a: [1\n")
    assert run("report", "x", "--root", root).exit_code == 2
    result = run("report", "y", "--root", root)
    assert result.exit_code == 2
    assert f"no run 'y' under {root}/runs" in told(result)


def test_a_root_with_a_tilde_is_below_the_home_folder(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    result = run("verify", "tables/mine", "--root", "~/root")
    assert result.exit_code == 0, result.output
    assert open_artifact(root / "tables" / "mine" / "v000001").digest in result.output


def test_listing_a_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        commands.list_artifacts(str(tmp_path / "none"), sys.stdout, as_json=False)
