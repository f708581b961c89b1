"""A worker group: what it returns, tells and survives. `execute` is injected: training has its own tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.cluster.store import share
from tgeokd_ray.cluster.train import Group, run_plan
from tgeokd_ray.errors import DataError, ProvenanceError
from tgeokd_ray.events import Silent

pytestmark = [pytest.mark.ray, pytest.mark.timeout(110), pytest.mark.usefixtures("cluster")]


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


@pytest.mark.slow
def test_two_workers_agree_and_rank_0_reports(tmp_path: Path) -> None:
    def execute(plan: Any, worker: Any, source: Any, progress: Any) -> Any:
        from tgeokd_ray.training.spec import Finished

        mean = worker.mean({"x": torch.tensor([1.0 + worker.rank])}, weight=1.0 + worker.rank)["x"]
        progress.started("run", 10, "steps")
        for _ in range(10):
            progress.advanced("run", 1, f"rank {worker.rank}")
        progress.warned("beware")
        worker.report({"auc": 0.5})
        progress.finished("run", "done")
        metrics = {"mean": mean.item(), "rank": worker.rank, "size": worker.size, "threads": torch.get_num_threads()}
        metrics["shared"] = float(source.means.get()["ones"].sum())
        return [Finished("run", "path", "digest", metrics, False, 0.0, error=DataError("bad row", fix="mend"))]

    progress = Recorded()
    source = ClusterSource("direct", share({"ones": torch.ones(3).numpy()}))
    (finished,) = run_plan(lambda done: [], Group(2, threads=2), source, progress, tmp_path, execute=execute)
    assert finished.metrics == {"mean": pytest.approx(5 / 3), "rank": 0, "size": 2, "threads": 2, "shared": 3.0}
    assert finished.error is not None
    assert (finished.error.exit_code, finished.error.fix) == (3, "mend")
    assert progress.events[0] == ("started", "run", 10, "steps")
    assert progress.events[-1] == ("finished", "run", "done")
    advanced = [event for event in progress.events if event[0] == "advanced"]
    assert sum(event[2] for event in advanced) == 10
    assert {event[3] for event in advanced} == {"rank 0"}
    assert progress.warnings == ["beware"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_a_users_error_is_not_tried_again(tmp_path: Path) -> None:
    marker = tmp_path / "starts"

    def execute(plan: Any, worker: Any, source: Any, progress: Any) -> Any:
        if worker.rank == 1:
            with marker.open("a") as starts:
                starts.write("x")
            if marker.read_text() == "x":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ProvenanceError("other table", fix="run tgeokd precompute")
        worker.barrier()

    progress = Recorded()
    source = ClusterSource("direct", share({}))
    with pytest.raises(ProvenanceError, match="other table") as error:
        run_plan(lambda done: [], Group(2), source, progress, tmp_path, execute=execute)
    assert error.value.exit_code == 4
    assert marker.read_text() == "xx"
    assert len(progress.warnings) == 1
    assert "the workers are started again" in progress.warnings[0]
    assert [path.name for path in tmp_path.iterdir()] == ["starts"]
