"""What goes wrong in a trial is listed with its reason, and the others go on."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from sweep_runs import RATE, Sweeps, trials_of

from tgeokd_ray.errors import DataError, ResourceError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline import sweep_trial
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import run_sweep
from tgeokd_ray.pipeline.sweep_board import Board, best_of
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial
from tgeokd_ray.pipeline.sweep_trial import Unit
from tgeokd_ray.pipeline.sweep_units import asked
from tgeokd_ray.training import plan

ENDLESS = 1e30  # a learning rate of which no loss stays finite
LIMITED = """
import sys
from pathlib import Path
from tgeokd_ray.config.sweep import resolve_sweep
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import run_sweep
run_sweep(resolve_sweep(sys.argv[1], {"root": sys.argv[2]}), Place(local=True), Silent())
"""


@pytest.mark.parametrize("packs", [True, False])
def test_t2_a_trial_whose_loss_is_not_finite_is_listed_and_the_rest_finishes(sweeps: Sweeps, packs: bool) -> None:
    progress = Silent()
    space = {RATE: {"grid": [0.01, ENDLESS, 0.02]}, "rule": {"grid": ["labels"]}}
    resolved = sweeps.resolved(f"nan-{packs}", space, search="grid", packs=packs)
    results, _ = run_sweep(resolved, Place(local=True), progress)
    trials = {trial["point"][RATE]: trial for trial in trials_of(results).values()}
    assert {rate: trial["status"] for rate, trial in trials.items()} == {
        0.01: "finished",
        ENDLESS: "failed",
        0.02: "finished",
    }
    assert "the loss is not finite" in trials[ENDLESS]["reason"]
    assert trials[ENDLESS]["code"] == "data"
    assert trials[ENDLESS]["value"] is None
    assert any(trials[ENDLESS]["name"] in warning for warning in results["warnings"])
    assert results["extra"]["sweep"]["counts"] == {"finished": 2, "stopped": 0, "failed": 1, "unfinished": 0}


def test_t2_where_all_fail_the_first_error_is_raised_with_its_kind(sweeps: Sweeps) -> None:
    with pytest.raises(DataError) as caught:
        sweeps.run("all-nan", {RATE: {"grid": [ENDLESS, 2 * ENDLESS]}}, search="grid")
    assert caught.value.exit_code == 3
    assert len(caught.value.problems) == 2


def test_t2_a_trial_that_raises_is_listed_with_its_traceback(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = sweep_trial.execute

    def fails_for_ada(plan, *rest):  # type: ignore[no-untyped-def]
        if any(spec.rule["kind"] == "ada" for spec in plan([])):
            raise KeyError("no such thing")
        return execute(plan, *rest)

    monkeypatch.setattr(sweep_trial, "execute", fails_for_ada)
    results = sweeps.run("raises", {"rule": {"grid": ["labels", "ada", "constant"]}}, search="grid")
    trials = {trial["point"]["rule"]: trial for trial in trials_of(results).values()}
    assert [trials[rule]["status"] for rule in ("labels", "ada", "constant")] == ["finished", "failed", "finished"]
    assert trials["ada"]["reason"] == "KeyError: 'no such thing'"
    told = (sweeps.folder("raises") / "errors" / f"{trials['ada']['name']}.txt").read_text()
    assert "Traceback" in told
    assert "no such thing" in told


def test_a_student_that_can_not_be_is_a_failed_trial(sweeps: Sweeps) -> None:
    results = sweeps.run("undefined", {"rule": {"grid": ["labels", "dkd"]}}, search="grid")
    trials = {trial["point"]["rule"]: trial for trial in trials_of(results).values()}
    assert trials["labels"]["status"] == "finished"
    assert trials["dkd"]["status"] == "failed"
    assert trials["dkd"]["code"] == "config"
    assert "dkd" in trials["dkd"]["reason"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process has")
def test_t2_a_trial_beyond_its_memory_is_listed(sweeps: Sweeps) -> None:
    space = {"rule": {"grid": ["labels"]}, "student.model.hidden": {"grid": [[4], [15000, 15000]]}}
    sweeps.resolved("memory", space, search="grid", memory_mib=700, packs=False)
    command = [sys.executable, "-c", LIMITED, str(sweeps.root.parent / "memory.yaml"), str(sweeps.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    trials = {len(t.point["student.model.hidden"]): t for t in Journal(sweeps.folder("memory")).known().values()}
    small, large = trials[1], trials[2]
    assert small.status == "finished"
    assert large.status == "failed"
    assert large.code == ResourceError.code
    assert "not enough memory" in (large.reason or "")


def test_t2_a_pack_that_is_too_large_is_trained_one_by_one_with_its_memory_back(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held, found = plan.train_run, [], []

    def too_large(pack, *rest):  # type: ignore[no-untyped-def]
        if len(pack.specs) > 1:
            tensors = {pack.name}
            held.append(weakref.ref(tensors))
            raise MemoryError
        found.append([one() for one in held])
        train(pack, *rest)

    monkeypatch.setattr(plan, "train_run", too_large)
    space = {RATE: {"grid": [0.01, 0.02]}, "rule": {"grid": ["labels"]}}
    trials = trials_of(sweeps.run("too-large", space, search="grid", concurrency=1))
    assert [trial["status"] for trial in trials.values()] == ["finished"] * 2
    assert found[:2] == [[None], [None]], "nobody holds what the pack had"


def board(folder: Path, known: dict[str, Trial] | None = None, sign: float = 1.0) -> Board:
    return Board(Journal(folder), "auc", sign, 10, Silent(), known or {})


def test_the_driver_writes_down_what_a_trial_could_not(tmp_path: Path) -> None:
    heard = board(tmp_path)
    stopped, lost, cut = (Unit(({"a": k},)) for k in range(3))
    for unit in (stopped, lost, cut):
        heard.began(unit)
    heard.told(stopped, 1, 0.6)
    heard.told(stopped, 2, 0.7)
    heard.told(stopped, 2, 0.7)  # told again after a restart
    assert heard.note == "3 running"
    heard.ended(stopped, None)
    heard.ended(lost, "ActorDiedError: killed")
    heard.ended(cut, None)  # nothing is known of it: it is not over
    one, other = (Journal(tmp_path).get(unit.name) for unit in (stopped, lost))
    assert one is not None
    assert other is not None
    assert (one.status, one.value, one.curve, one.epochs) == ("stopped", 0.7, (0.6, 0.7), 2)
    assert (other.status, other.code) == ("failed", "resource")
    assert "killed" in (other.reason or "")
    assert heard.note == "1 stopped early, 1 failed"
    assert heard.curves == {stopped.name: [0.6, 0.7]}


def test_what_a_trial_wrote_itself_counts(tmp_path: Path) -> None:
    heard, unit = board(tmp_path, sign=-1.0), Unit(({"a": 1},))
    heard.began(unit)
    heard.told(unit, 1, -0.5)
    Journal(tmp_path).keep(Trial(unit.name, unit.points[0], "finished", value=0.4, curve=(0.5, 0.4)))
    heard.told(unit, 10, -0.4)
    heard.ended(unit, None)
    assert heard.known[unit.name].status == "finished"
    assert heard.note == f"best auc 0.4000 ({unit.name}), 1 finished"
    assert heard.curves == {unit.name: [-0.5, -0.4]}


def test_the_best_is_a_finished_trial() -> None:
    trials = {
        name: Trial(name, {}, status, value)
        for name, status, value in (  # type: ignore[arg-type]
            ("a", "finished", 0.6),
            ("b", "stopped", 0.9),
            ("c", "finished", 0.7),
            ("d", "failed", None),
        )
    }
    assert best_of(trials, 1.0) == trials["c"]
    assert best_of(trials, -1.0) == trials["a"]
    assert best_of({}, 1.0) is None


def test_tpe_is_told_of_what_was_begun_known_and_over(sweeps: Sweeps, tmp_path: Path) -> None:
    space = {
        "rule": {"choice": ["labels", "constant"]},
        "constant": {"uniform": [0.1, 1], "when": {"rule": "constant"}},
    }
    known = [{"rule": "constant", "constant": 0.5}]
    sweep = sweeps.resolved("tpe", space, search="tpe", known=known, trials=8).sweep
    journal, begun = Journal(tmp_path), {"rule": 1, "constant": 0.25}
    journal.begin("t-begun", {"rule": "constant", "constant": 0.25}, begun)
    over = Trial("t-over", {"rule": "labels"}, "finished", value=0.7, raw={"rule": 0, "constant": 0.9})
    lost = Trial("t-lost", {"rule": "labels"}, "failed", raw={"rule": 0, "constant": 0.3})
    found = asked(sweep, journal, 5, {"t-over": over, "t-lost": lost}, 1.0)
    assert found.first == (begun, {"rule": 1, "constant": 0.5})
    assert found.known == ((over.raw, 0.7), (lost.raw, None))
    assert found.number == 5
    assert found.unit({"rule": 0, "constant": 0.4}).points == ({"rule": "labels"},)
    assert found.unit(begun).raw == begun
