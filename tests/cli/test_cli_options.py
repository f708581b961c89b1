"""What options say of themselves, and which value of an option, a file or a card counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_artifacts import write_card
from click.testing import Result
from typer.testing import CliRunner

import tgeokd_ray.pipeline.job as pipeline
from tgeokd_ray.cli.jobs import job_app
from tgeokd_ray.cli.main import app
from tgeokd_ray.tables.cards import PACKAGED, load_card

Run = Callable[..., Result]
JOB = job_app("A job.", card="/some/where/nsl_kdd.yaml")
DEFAULTS = {"root": "artifacts", "workers": "1", "seed": "0", "device": "auto", "precision": "fp32"}


class Called(Exception):
    """In place of the work: what it would have been told."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*arguments: Any, **_: Any) -> None:
        raise Called(*arguments)

    monkeypatch.setattr(pipeline, "run_job", called)
    monkeypatch.setattr(pipeline, "run_stage", called)


def job(*words: str, card: str = "synthetic_ctr", run: str | None = None) -> tuple[Any, ...]:
    """(job, card, place, ...) that a job would run."""
    result = CliRunner().invoke(job_app("A job.", card, run), [*words])
    assert isinstance(result.exception, Called), result.output
    return result.exception.arguments


def stage(run: Run, *words: object) -> tuple[Any, ...]:
    """(name, job, card, given, place, ...) that a stage would run."""
    result = run(*words)
    assert isinstance(result.exception, Called), result.output
    return result.exception.arguments


@pytest.mark.parametrize("name", ["job", *typer.main.get_command(app).commands])  # type: ignore[attr-defined]
def test_every_option_says_what_it_is_and_its_default(name: str) -> None:
    command = typer.main.get_command(JOB if name == "job" else app)
    words = ["--help"] if name == "job" else [name, "--help"]
    command = command if name == "job" else command.commands[name]  # type: ignore[attr-defined]
    shown = " ".join(CliRunner().invoke(JOB if name == "job" else app, words).output.split())
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        assert text, parameter.name
        assert " ".join(text.split()) in shown, parameter.name
        assert f"[default: {DEFAULTS.get(str(parameter.name), '')}" in text or parameter.name not in DEFAULTS
    assert "\x1b" not in shown


def test_a_job_names_its_own_card_and_a_stage_where_its_card_comes_from() -> None:
    assert "[default: nsl_kdd.yaml]" in " ".join(CliRunner().invoke(JOB, ["--help"]).output.split())
    for name in ("teacher", "precompute", "distill"):
        shown = " ".join(CliRunner().invoke(app, [name, "--help"]).output.split())
        assert "[default: the card in the table, which holds no defaults: the built-in ones are taken]" in shown


def test_a_card_and_a_root_in_a_file_count_unless_an_option_names_others(tmp_path: Path) -> None:
    theirs, mine = write_card(tmp_path / "theirs.yaml", "theirs"), write_card(tmp_path / "mine.yaml")
    file = tmp_path / "job.yaml"
    file.write_text(f"card: {theirs}\nroot: {tmp_path / 'there'}\nrun: named\n")
    found, card, *_ = job("--config", str(file), card=str(mine), run="own")
    assert (found.card, card.name, found.root, found.run) == (
        str(theirs),
        "theirs",
        str(tmp_path / "there"),
        "named",
    )
    found, card, *_ = job("--config", str(file), "--card", str(mine), "--root", "here", "--run", "said")
    assert (card.name, found.root, found.run) == ("mine", "here", "said")
    found, card, *_ = job(card=str(mine), run="own")
    assert (card.name, found.root, found.run) == ("mine", "artifacts", "own")
    assert job()[1] == load_card(PACKAGED / "synthetic_ctr.yaml")


def test_stages_look_in_the_root_of_the_file(run: Run, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"root: {root}\n")
    words = ["precompute", "tables/mine", "teachers/mine", "--config", file, "--local"]
    _, found, _, given, place, _ = stage(run, *words)
    assert found.root == str(root)
    assert {role: [artifact.path for artifact in found] for role, found in given.items()} == {
        "table": [root / "tables" / "mine" / "v000001"],
        "teacher": [root / "teachers" / "mine" / "v000001"],
    }
    assert place.local
    _, found, card, *_ = stage(run, "encode", "--config", file)
    assert (found.root, card.name) == (str(root), "synthetic_ctr")


def test_a_stage_without_a_card_takes_the_one_in_the_table(run: Run, root: Path, tmp_path: Path) -> None:
    for words in (["teacher", "tables/mine"], ["distill", "tables/mine", "logits/mine"]):
        _, found, card, *_ = stage(run, *words, "--root", root, "--local", "--set", "student.training.epochs=4")
        assert card.name == "mine"
        assert found.card == str(root / "tables" / "mine" / "v000001" / "card.json")
        assert (found.seed, found.student.training.epochs) == (0, 4), "a table keeps no defaults"
        _, found, card, *_ = stage(run, *words, "--root", root, "--local", "--card", tmp_path / "mine.yaml")
        assert (card.name, found.seed) == ("mine", 5)
    file = tmp_path / "job.yaml"
    file.write_text(f"card: {tmp_path / 'mine.yaml'}\n")
    assert stage(run, "teacher", "tables/mine", "--root", root, "--config", file)[1].seed == 5


def test_a_submitted_stage_looks_where_it_writes(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("TGEOKD_ROOT", str(tmp_path))
    assert stage(run, "teacher", "tables/mine", "--root", "root")[3]["table"][0].path.is_relative_to(root)
    assert run("verify", "tables/mine", "--root", "root").exit_code == 0
    monkeypatch.delenv("TGEOKD_ROOT")
    assert run("verify", "tables/mine", "--root", "root").exit_code == 2


def test_check_says_what_is_wrong_with_a_forgotten_card(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    result = run("check", tmp_path / "mine.csv")
    assert result.exit_code == 2
    assert "makes its own rows and takes no data" in result.output


def test_check_has_room_for_a_thousand_classes(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"{k % 1000 + 1},{k}\n" for k in range(20_000))
    (tmp_path / "many.csv").write_text(f"y,x\n{rows}")
    (tmp_path / "many.yaml").write_text(
        "{name: many, format: {kind: csv}, label: {column: y, classes: {from: 1, to: 1000}}, columns: {numeric: [x]},"
        " splits: {kind: hash, salt: s, parts: {train: 0.7, test: 0.3}}}"
    )
    told = run("check", "--card", tmp_path / "many.yaml", tmp_path / "many.csv").output
    (train,) = (line.split() for line in told.splitlines() if line.split()[:1] == ["train"])
    rows, classes, fewest, most = (int(word.replace(",", "")) for word in train[1:])
    assert (13_500 < rows < 14_500, classes) == (True, 1000)
    assert 0 < fewest < 14 < most <= 20


def test_a_bad_value_ends_a_job_with_2_and_a_traceback_on_demand() -> None:
    result = CliRunner().invoke(JOB, ["--card", "synthetic_ctr", "--workers", "5"])
    assert result.exit_code == 2
    assert "--workers: workers: must divide the 12 lanes" in " ".join(result.output.split())
    assert "Traceback" not in result.output
    debugged = CliRunner().invoke(JOB, ["--card", "synthetic_ctr", "--workers", "5", "--debug"])
    assert debugged.exit_code == 2
    assert "Traceback" in debugged.output
    assert "must divide the 12 lanes" in debugged.output
