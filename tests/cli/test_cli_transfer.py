"""`tgeokd push` and `tgeokd pull` on a store in a folder, and the store in place of a root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tgeokd_ray.artifacts import open_artifact, staging, verify

Run = Callable[..., Result]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "a store").as_uri()


def test_a_model_and_all_it_was_made_from_goes_there_and_back(run: Run, root: Path, url: str, tmp_path: Path) -> None:
    result = run("push", "logits/mine", "--parents", "--to", url, "--root", root)
    assert result.exit_code == 0, result.output
    digest = open_artifact(root / "logits" / "mine" / "v000001").digest
    assert [line.split(" ->")[0] for line in result.stdout.splitlines()] == [
        "tables/mine/v000001",
        "teachers/mine/v000001",
        "logits/mine/v000001",
    ]
    assert f"{url}/logits/mine/v000001  {digest[:12]}" in result.output
    result = run("pull", "logits/mine/v000001", "--parents", "--from", url, "--root", tmp_path / "there")
    assert result.exit_code == 0, result.output
    assert "note" not in result.output
    for label in ("tables", "teachers", "logits"):
        assert verify(tmp_path / "there" / label / "mine" / "v000001") == ([], [])
    assert open_artifact(tmp_path / "there" / "logits" / "mine" / "v000001").digest == digest


def test_parents_that_are_left_out_are_named(run: Run, root: Path, url: str, tmp_path: Path) -> None:
    table = open_artifact(root / "tables" / "mine" / "v000001").digest
    for words, where in (
        (["push", "logits/mine", "--to", url, "--root", root], url),
        (["pull", "logits/mine", "--from", url, "--root", tmp_path / "there"], str(tmp_path / "there")),
    ):
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert f"its table tables/mine/v000001 with digest {table[:12]}... is not in {where}" in result.output
        assert "its teacher teachers/mine/v000001" in result.output


def test_equal_contents_under_two_names_are_two_copies(run: Run, tmp_path: Path, url: str) -> None:
    for name in ("a", "b"):
        with staging(tmp_path / "here", "tables", name, arguments={}, parents={}) as work:
            work.commit({})
    for words in (
        ["push", "--to", url, "--root", tmp_path / "here"],
        ["pull", "--from", url, "--root", tmp_path / "t"],
    ):
        result = run(words[0], "tables/a", "tables/b", "tables/b", *words[1:])
        assert result.exit_code == 0, result.output
        assert len(result.stdout.splitlines()) == 2
    assert sorted(path.parent.name for path in tmp_path.glob("t/*/*/v000001")) == ["a", "b"]


def test_a_copy_can_be_made_again(run: Run, root: Path, url: str) -> None:
    for words, version in (([], 1), ([], 1), (["--again"], 2)):
        result = run("push", "tables/mine", "--to", url, "--root", root, *words)
        assert f"{url}/tables/mine/v{version:06d}" in result.output


def test_a_store_is_listed_and_cleared_as_a_root_is(run: Run, root: Path, url: str) -> None:
    assert len(run("list", url).output.splitlines()) == 1
    run("push", "logits/mine", "--parents", "--to", url, "--root", root)
    assert run("list", url).output == run("list", root).output
    assert len(run("list", url).output.splitlines()) == 4
    assert "0 folders" in run("gc", url, "--dry-run").output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pull", "logits/none", "--from", "URL"], "no artifact 'logits/none' in URL"),
        (["pull", "logits", "--from", "URL"], "expected KIND/NAME or KIND/NAME/v000001"),
        (["pull", "logits/mine/7", "--from", "URL"], "expected v000001"),
        (["push", "logits/none", "--to", "URL", "--root", "ROOT"], "no artifact 'logits/none' under ROOT"),
        (["push", "logits/mine", "--to", "elsewhere", "--root", "ROOT"], "expected s3://BUCKET/PREFIX"),
        (["list", "gs://bucket"], "expected s3://BUCKET/PREFIX"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(run: Run, root: Path, url: str, words: list[str], told: str) -> None:
    result = run(*(word.replace("URL", url).replace("ROOT", str(root)) for word in words))
    assert result.exit_code == 2, result.output
    assert told.replace("URL", url).replace("ROOT", str(root)) in " ".join(result.output.split())
