"""A worker group: the numbers of one worker, what it returns and tells, and what it survives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from cluster_chain import Chain

from tgeokd_ray.artifacts import latest, load_tensors, open_artifact, write_json
from tgeokd_ray.artifacts.owner import LOCK, Owner
from tgeokd_ray.cluster import train
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.cluster.train import Group, run_plan
from tgeokd_ray.errors import DataError, ProvenanceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import LogitsTable
from tgeokd_ray.pipeline.plans import students_plan
from tgeokd_ray.training.data import DirectSource
from tgeokd_ray.training.plan import execute as execute_plan
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished, RunSpec
from tgeokd_ray.training.worker import LocalWorker

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280), pytest.mark.usefixtures("cluster")]
BOUNDS = {"fp32": 1e-5, "fp64": 1e-12}


class Recorded(Silent):
    """Keeps every event."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[Any, ...]] = []

    def started(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        self.events.append(("started", stage, total, unit))

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        self.events.append(("advanced", stage, amount, note))

    def finished(self, stage: str, note: str = "") -> None:
        self.events.append(("finished", stage, note))


def planned(*specs: RunSpec) -> Plan:
    """The plan of these runs; a function inside another travels to workers that cannot import this module."""

    def plan(finished: Any) -> tuple[RunSpec, ...]:
        return () if finished else specs

    return plan


def bilevel(chain: Chain, root: Path, precision: str) -> RunSpec:
    """The learned student of the chain with a centred ratio: 33 steps, an outer step at every other one."""
    table, logits = (latest(chain.root, kind, "synthetic_ctr") for kind in ("tables", "logits"))
    assert table is not None
    assert logits is not None
    one_step = {"distill": chain.job.distill.model_copy(update={"rule": "tgeo_one_step"})}
    spec = students_plan(chain.job.model_copy(update=one_step), "small", table, [logits], root, root / "run").learned
    return replace(
        spec,
        name=precision,
        artifact=precision,
        precision=precision,
        rule={**spec.rule, "level": 0.5},
        optimizer=replace(spec.optimizer, clip_norm=1.0),
        fusion=replace(spec.fusion, every=2),
        epochs=3,
        patience=3,
    )


@pytest.fixture(scope="module")
def one_worker(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """The bilevel runs by precision, in this process."""
    root = tmp_path_factory.mktemp("one")
    plan = planned(*(bilevel(chain, root, precision) for precision in BOUNDS))
    return {run.name: run for run in execute_plan(plan, LocalWorker(), DirectSource(), Silent())}


def tensors(artifact: str) -> dict[str, torch.Tensor]:
    """Parameters of the student and of its fusion network."""
    folder = Path(artifact)
    return {
        f"{name}/{key}": value
        for name in ("model", "fusion")
        for key, value in load_tensors(folder / f"{name}.safetensors").items()
    }


def difference(ours: str, theirs: str) -> float:
    """The largest absolute difference of any parameter of two runs."""
    one, two = tensors(ours), tensors(theirs)
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def train_processes() -> Iterator[str]:
    """Processes of Ray Train below this one."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "RayTrainWorker" in title or "TrainController" in title:
            yield title


def test_two_workers_agree_with_one_and_rank_0_reports(
    chain: Chain, one_worker: dict[str, Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(plan: Any, worker: Any, source: Any, progress: Any) -> Any:
        progress.started("run", 10, "steps")
        for _ in range(10):
            progress.advanced("run", 1, f"rank {worker.rank}")
        progress.warned("beware")
        progress.finished("run", "done")
        logits = LogitsTable.open(plan([])[0].logits[0])
        facts = {"rank": worker.rank, "size": worker.size, "threads": torch.get_num_threads()}
        facts["read_only"] = not source.class_means(logits).flags.writeable  # the one copy in the object store
        facts["mean"] = worker.mean({"x": torch.tensor([1.0 + worker.rank])}, 1.0 + worker.rank)["x"].item()
        error = DataError("bad row", fix="mend")
        told = Finished("facts", "", "", facts, False, 0.0, error=error)
        return [*execute_plan(plan, worker, source, Silent()), told]

    left = tmp_path / ".ray-of-a-killed-driver"
    left.mkdir()
    write_json(left / LOCK, asdict(replace(Owner.current(), started="0")))
    monkeypatch.setattr(train, "QUIET_SECONDS", 0.5)  # no group starts so fast
    specs = tuple(bilevel(chain, tmp_path, precision) for precision in BOUNDS)
    logits = LogitsTable.open(specs[0].logits[0])
    source = ClusterSource("direct", share({specs[0].logits[0]: logits.class_means}))
    progress = Recorded()
    *runs, facts = run_plan(planned(*specs), Group(2, threads=2), source, progress, tmp_path, execute)

    assert facts.metrics == {"rank": 0, "size": 2, "threads": 2, "read_only": True, "mean": pytest.approx(5 / 3)}
    assert facts.error is not None
    assert (facts.error.exit_code, facts.error.fix) == (3, "mend")
    for run in runs:
        alone = one_worker[run.name]
        assert run.metrics["history"][-1]["step"] == alone.metrics["history"][-1]["step"] == 33
        assert difference(run.artifact, alone.artifact) <= BOUNDS[run.name]
        assert run.metrics["test"]["auc"] == pytest.approx(alone.metrics["test"]["auc"], abs=1e-6)

    assert progress.events[0] == ("started", "run", 10, "steps")
    assert progress.events[-1] == ("finished", "run", "done")
    advanced = [event for event in progress.events if event[0] == "advanced"]
    assert sum(event[2] for event in advanced) == 10
    assert {event[3] for event in advanced} == {"rank 0"}
    assert progress.warnings[1:] == ["beware"]
    assert progress.warnings[0].startswith("the workers have not begun after 0.5 s: 2 x 1 CPU, ")
    assert not list(tmp_path.glob(".ray-*")), "nothing of Ray is left, nor of the killed driver"


def test_k2_k5_a_killed_worker_is_replaced_and_a_users_error_is_not_tried_again(
    chain: Chain, one_worker: dict[str, Finished], tmp_path: Path
) -> None:
    starts = tmp_path / "starts"

    class Kills(Silent):
        """SIGKILL to this process at the 20th step of the first attempt."""

        steps = 0

        def advanced(self, stage: str, amount: int, note: str = "") -> None:
            self.steps += amount
            if self.steps >= 20 and starts.read_text() == "x":
                os.kill(os.getpid(), signal.SIGKILL)

    class Tells(Kills):
        """Passes on what the second attempt says of its checkpoint."""

        def __init__(self, progress: Any) -> None:
            super().__init__()
            self.warned = progress.warned

    def execute(plan: Any, worker: Any, source: Any, progress: Any) -> Any:
        if worker.rank == 0:
            with starts.open("a") as file:
                file.write("x")
        execute_plan(plan, worker, source, Tells(progress))
        if worker.rank == 1:
            raise ProvenanceError("other table", fix="run tgeokd precompute")
        worker.barrier()

    progress = Recorded()
    plan = planned(replace(bilevel(chain, tmp_path, "fp32"), checkpoint_seconds=0.0))
    with pytest.raises(ProvenanceError, match="other table") as error:
        run_plan(plan, Group(2), ClusterSource("direct", share({})), progress, tmp_path, execute)
    assert error.value.exit_code == 4
    assert starts.read_text() == "xx"
    again, resumed = progress.warnings
    assert "the workers are started again: worker 0: " in again
    assert resumed == "fp32: continued from step 19", "every step was committed, the last one before the kill was"
    assert difference(str(tmp_path / "students" / "fp32" / "v000001"), one_worker["fp32"].artifact) <= BOUNDS["fp32"]
    assert open_artifact(tmp_path / "students" / "fp32" / "v000001", level="full").name == "fp32"
    assert not list(tmp_path.glob(".ray-*"))
    deadline = time.monotonic() + 20  # Ray ends them after the fit has returned
    while (processes := list(train_processes())) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes, "no worker is left"
