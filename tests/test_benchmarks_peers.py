"""Peers run in a process and an environment of their own; what is missing there is a reason, not a crash."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import peers_run
import pytest
import torch
import workload
from peers_run import Absent

HERE = Path(sys.executable)
SMALL = ("--steps", 8, "--batch-rows", 64)


@pytest.mark.parametrize("options", [(), ("--model", "dcnv2"), ("--precision", "bf16")])
def test_the_bound_runs_in_this_environment_too(options: tuple[str, ...]) -> None:
    found = peers_run.run("bound.py", *SMALL, *options, python=HERE)
    assert isinstance(found, dict)
    assert found["rows_per_cpu_second"] > 0
    assert found | {"peer": "bound", "steps": 8} == found


def test_an_interpreter_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGEOKD_PEERS", "/nowhere/python")
    assert peers_run.run("bound.py") == Absent(
        "no interpreter of the peers at /nowhere/python: `make peers`, or set TGEOKD_PEERS"
    )


def test_without_the_variable_the_repository_is_looked_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TGEOKD_PEERS", raising=False)
    monkeypatch.setattr(peers_run, "REPOSITORY", tmp_path)
    missing = peers_run.interpreter()
    assert isinstance(missing, Absent)
    assert str(tmp_path / ".venv-peers/bin/python") in missing.reason
    (tmp_path / ".venv-peers/bin").mkdir(parents=True)
    (tmp_path / ".venv-peers/bin/python").touch()
    assert peers_run.interpreter() == tmp_path / ".venv-peers/bin/python"


SCRIPTS = {
    "absent.py": ("import no_such_peer", f"no_such_peer is not installed for {HERE}: `make peers`"),
    "broken.py": ("raise SystemExit('too few rows')", "broken.py exited with 1: too few rows"),
    "silent.py": ("print('hello')", "silent.py printed no line of JSON"),
    "slow.py": ("import time; time.sleep(30)", "slow.py took more than 2 s"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_went_wrong_is_said(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, reason = SCRIPTS[name]
    (tmp_path / name).write_text(source)
    monkeypatch.setattr(peers_run, "SCRIPTS", tmp_path)
    assert peers_run.run(name, timeout=2, python=HERE) == Absent(reason)


def test_lines_that_a_library_prints_are_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text("print('cpu'); print('{\"peer\": 1}'); print('done')")
    monkeypatch.setattr(peers_run, "SCRIPTS", tmp_path)
    assert peers_run.run("chatty.py", python=HERE) == {"peer": 1}


PEERS = {
    "fuxictr_train.py": ("dnn", "dcnv2", "wide_deep"),
    "deepctr_train.py": ("dnn", "dcnv2", "wide_deep"),
    "fbgemm_train.py": ("dnn", "dcnv2"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    workload.write(path, 4_000, 2_000, num_held_out=1_000)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("script", "model"), [(script, model) for script, models in PEERS.items() for model in models])
def test_every_peer_trains_and_scores(script: str, model: str, rows: Path) -> None:
    if isinstance(missing := peers_run.interpreter(), Absent):
        pytest.skip(missing.reason)
    found = peers_run.run(script, rows, "--model", model, *SMALL)
    assert isinstance(found, dict), found
    assert found["rows_per_cpu_second"] > 0
    assert 0 < found["auc"] < 1
    assert found | {"model": model, "steps": 8} == found


def test_the_clock_leaves_out_the_warm_up_and_what_follows_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s, a slow warm-up before them, an evaluation of 100 s after the last."""
    monkeypatch.syspath_prepend(str(peers_run.SCRIPTS))
    clock = importlib.import_module("rows")
    seconds = 0.0
    monkeypatch.setattr(clock.time, "process_time", lambda: seconds)
    steps = clock.Clocked(range(9), warm_up_steps=5)
    for step in steps:
        seconds += 50.0 if step < 5 else 1.0
    seconds += 100.0
    assert steps.rows_per_cpu_second(64) == 64.0


def test_rows_come_again_where_the_file_is_short(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(peers_run.SCRIPTS))
    reader = importlib.import_module("rows")
    parser = reader.arguments("")
    data = reader.read(parser.parse_args([str(rows), "--batch-rows", "1500", "--steps", "9"]))
    first, *_, third, fourth, fifth, sixth, seventh, eighth, ninth = data.train.batches(1500)
    for again in (third, fifth, seventh, ninth):
        assert torch.equal(first.categorical, again.categorical)
    assert torch.equal(fourth.labels, sixth.labels)
    assert torch.equal(eighth.numeric, data.train.numeric[1500:3000])
    with pytest.raises(SystemExit, match="2 steps of 1500 rows, at least 7 are needed"):
        reader.read(parser.parse_args([str(rows), "--batch-rows", "1500"]))
