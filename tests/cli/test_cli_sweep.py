"""The command line of sweeps: what is refused before anything starts, and a small one from its file to its table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from small_card import small_card

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


@pytest.mark.parametrize("keys", [{"scheduler": "asha"}, {"search": "tpe"}])
def test_one_process_tries_a_list(run: Run, file: Callable[..., str], tmp_path: Path, keys: dict[str, Any]) -> None:
    result = run("sweep", file(**keys), "--root", str(tmp_path / "none"), "--local")
    assert result.exit_code == 2
    assert "--local tries a list of points" in " ".join(result.output.split())


def test_h_a_trial_on_a_gpu_that_is_not_there_is_refused(
    run: Run, file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    sweep = ["sweep", file(resources={"gpu": 0.5}), "--root", str(tmp_path / "none")]
    for more, said in (["--local"], "there is no CUDA device here"), ([], "room for 0 on 1 node(s)"):
        result = run(*sweep, *more)
        assert result.exit_code == 2, result.output
        assert said in " ".join(result.output.split())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("missing", ["sweep.yaml", None])
def test_h_a_sweep_needs_its_file(run: Run, missing: str | None) -> None:
    result = run("sweep", *([missing] if missing else []))
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert ("sweep.yaml" if missing else "SWEEP.yaml") in result.output


def test_help_names_what_a_sweep_can_do() -> None:
    """The job and the command have one text, at once: neither torch nor Ray is loaded for it."""
    program = "import sys; from tgeokd_ray.cli.sweep import sweep_main\ntry: sweep_main(['--help'])\n"
    program += "finally: assert not {'torch', 'ray'} & {*sys.modules}, 'loaded'"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--run", "--trials", "--concurrency", "--add-trials", "--resume", "--dry-run", "--local", "--json"):
        assert option in done.stdout
    assert "SWEEP.yaml" in done.stdout


def test_a_small_sweep_and_what_it_would_do(
    run: Run, file: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    card, root = small_card(tmp_path, 3000, 1500), tmp_path / "artifacts"
    sweep = ["sweep", file(base={"card": str(card), **SMALL}, search="grid"), "--root", str(root), "--local"]
    planned = run(*sweep, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "sweep mine: 2 trials, 2 at once" in planned.output
    assert f"{RATE}: choice 0.01, 0.02" in planned.output
    assert "one trial took" in planned.output
    assert not [*root.glob("runs/mine/trials/*"), *root.glob("sweeps/*")]
    plan = run(*sweep, "--dry-run", "--json", "--concurrency", "1")
    assert plan.exit_code == 0, plan.output
    told = json.loads(capfd.readouterr().out)
    assert (told["trials"], told["over"], told["concurrency"], told["failed"]) == (2, 0, 1, None)
    assert told["expected_seconds"] == pytest.approx(2 * told["trial_seconds"])
    assert told["point"] == {RATE: 0.01}
    nowhere = run(*sweep, "--run", "nowhere", "--resume")
    assert nowhere.exit_code == 2
    assert "there is no sweep runs/nowhere" in nowhere.output

    done = run(*sweep)
    assert done.exit_code == 0, done.output
    assert "best student: students/mine/v000001" in done.output
    assert "leaderboard, best.yaml: sweeps/mine/v000001" in done.output

    again = run(*sweep, "--resume", "--json")
    assert again.exit_code == 0, again.output
    told = json.loads(capfd.readouterr().out)
    assert told["extra"]["sweep"]["counts"]["finished"] == 2
    assert told["extra"]["sweep"]["resumed"] is True
