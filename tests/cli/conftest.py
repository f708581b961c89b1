"""A root with artifacts, and a runner of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_artifacts import make, write_card
from click.testing import Result
from typer.testing import CliRunner

from tgeokd_ray.cli.main import app
from tgeokd_ray.cli.spreading import spread


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """tables/mine with its card, teachers/mine and logits/mine, none of which holds data."""
    folder = tmp_path / "root"
    table = make(folder, "tables", "mine", write_card(tmp_path / "mine.yaml", defaults={"seed": 5}))
    teacher = make(folder, "teachers", "mine", table=table)
    make(folder, "logits", "mine", table=table, teacher=teacher)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `tgeokd WORDS` in this process, in an empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return lambda *words: CliRunner().invoke(app, spread([str(word) for word in words]))
