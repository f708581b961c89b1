"""The command line of sweeps: what is refused before anything starts, and a small one from its file to its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from tgeokd_ray.tables.cards import PACKAGED

RATE = "student.training.optimizer.learning_rate"
SPACE = {RATE: {"choice": [0.01, 0.02]}}
SMALL = {
    "teacher": {"model": {"hidden": [8], "members": 1}, "training": {"epochs": 1}},
    "student": {"model": {"hidden": [4]}, "training": {"epochs": 2, "batch_rows": 128}},
}

Run = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """`file(...)` is a sweep file with these keys."""

    def written(**keys: Any) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"space": SPACE, **keys}))
        return str(path)

    return written


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"spaces": {}}, "did you mean 'space'"),
        ({"space": {}}, "space must name at least one parameter"),
        ({"metric": "test.auc"}, "a sweep chooses on valid"),
        ({"concurrency": 999}, "concurrency 999 x 1 CPU: there is room for"),
        ({"space": {"student.training.optimizer.lr": {"choice": [1]}}}, "unknown key 'lr'"),
        ({"space": {"student.training.epoch": {"choice": [1]}}}, "did you mean 'epochs'"),
        ({"base": {"distill": {"channel": "on"}}}, "on the labels as they are"),
        ({"base": {"device": "cuda"}}, "a trial on a GPU needs a part of one"),
    ],
)
def test_h_bad_files_are_refused_before_anything_starts(
    run: Run, file: Callable[..., str], tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    result = run("sweep", file(**keys), "--root", str(tmp_path / "none"))
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "none").exists()


def test_one_process_tries_a_list(run: Run, file: Callable[..., str], tmp_path: Path) -> None:
    result = run("sweep", file(scheduler="asha"), "--root", str(tmp_path / "none"), "--local")
    assert result.exit_code == 2
    assert "--local tries a list of points" in " ".join(result.output.split())


def test_a_small_sweep_and_what_it_would_do(
    run: Run, file: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    text["format"] |= {"rows": 3000, "chunk_rows": 1500}
    card, root = tmp_path / "small.yaml", tmp_path / "artifacts"
    card.write_text(yaml.safe_dump(text))
    sweep = ["sweep", file(base={"card": str(card), **SMALL}, search="grid"), "--root", str(root), "--local"]
    planned = run(*sweep, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "sweep mine: 2 trials, 2 at once" in planned.output
    assert f"{RATE}: choice 0.01, 0.02" in planned.output
    assert "one trial took" in planned.output

    done = run(*sweep)
    assert done.exit_code == 0, done.output
    assert "best student: students/mine/v000001" in done.output
    assert "leaderboard, best.yaml: sweeps/mine/v000001" in done.output

    again = run(*sweep, "--resume", "--json")
    assert again.exit_code == 0, again.output
    told = json.loads(capfd.readouterr().out)
    assert told["extra"]["sweep"]["counts"]["finished"] == 2
    assert told["extra"]["sweep"]["resumed"] is True
