"""The engine of a chain: what cannot run is refused at once, with the reason; class means and rows are shared once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from cluster_chain import Chain

from tgeokd_ray.artifacts import latest
from tgeokd_ray.cluster import engine, store, visibility
from tgeokd_ray.cluster.connect import Connection
from tgeokd_ray.errors import ConfigError, ResourceError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import DirectReader, EncodedTable, LogitsTable, Wanted, decode
from tgeokd_ray.feed.rows import Rows, concatenate
from tgeokd_ray.pipeline.plans import students_plan

REPOSITORY = Path(__file__).resolve().parents[2]


def open_here(root: Path, **options: Any) -> engine.RayEngine:
    defaults = {"address": None, "workers": 1, "device": "cpu", "threads": 1, "feed": "direct", "verbose": False}
    return engine.open_engine(**(defaults | {"root": root, "progress": Silent()} | options))


def test_no_workers_are_refused_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "connect", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="--workers must be at least 1, got 0"):
        open_here(tmp_path, workers=0)


@pytest.mark.parametrize(("options", "code"), [(["--workers", "0"], 2), (["--root", "FILE/below"], 6)])
def test_a_job_that_cannot_run_ends_with_the_code_of_its_reason(options: list[str], code: int, tmp_path: Path) -> None:
    """A path below a file cannot be written by anybody, whatever the permissions."""
    (tmp_path / "FILE").touch()
    command = [sys.executable, str(REPOSITORY / "jobs" / "ctr_distill.py"), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert ("cannot be written" if code == 6 else "got 0") in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


@pytest.mark.ray
@pytest.mark.timeout(100)
def test_a_plan_that_cannot_be_placed_is_refused_with_its_arithmetic(cluster: Connection, tmp_path: Path) -> None:
    (node,) = cluster.nodes()
    with pytest.raises(ResourceError, match=f"2 workers x 100 CPU = 200 CPUs, the cluster has {node['CPU']:g}"):
        open_here(tmp_path, workers=2, threads=100)
    assert cluster.nodes() == [node], "a Ray that was there before stays"
    opened = open_here(tmp_path, workers=2, device="auto", feed="ray_data")
    assert opened.task_device == ("cuda" if node.get("GPU", 0) >= 2 else "cpu")


@pytest.mark.ray
@pytest.mark.timeout(100)
def test_cuda_without_a_device_is_refused(cluster: Connection, tmp_path: Path) -> None:
    if any(node.get("GPU") for node in cluster.nodes()):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ResourceError, match="1 worker x 1 GPU = 1 GPUs, the cluster has 0") as error:
        open_here(tmp_path, device="cuda")
    assert (error.value.exit_code, error.value.fix) == (6, "--device cpu")


@pytest.mark.ray
@pytest.mark.timeout(100)
@pytest.mark.usefixtures("cluster")
def test_a_root_that_a_node_does_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "_read", lambda path: "")  # what it answers on a node without the file
    with pytest.raises(ResourceError, match=r"must be one folder for all 1 nodes: not seen by \S+ \(") as error:
        open_here(tmp_path)
    assert error.value.exit_code == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
@pytest.mark.timeout(100)
@pytest.mark.usefixtures("cluster")
def test_class_means_and_rows_are_put_once_for_all_runs_of_a_plan(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the path that a run's spec names and that its worker opens; the plan itself is not executed here."""
    puts, sources = [], []

    def put(value: Any) -> Any:
        puts.append(value)
        return original(value)

    original = store.ray.put
    monkeypatch.setattr(store.ray, "put", put)
    monkeypatch.setattr(engine, "run_plan", lambda plan, group, source, *_: sources.append(source) or [])
    logits = latest(chain.root, "logits", "synthetic_ctr")
    assert logits is not None
    plan = students_plan(
        chain.job, "small", latest(chain.root, "tables", "synthetic_ctr"), [logits], tmp_path, tmp_path
    )
    assert open_here(tmp_path).train(plan, Silent(), [str(logits.path)]) == []
    opened = LogitsTable.open(logits.path)
    means, table = opened.class_means, EncodedTable.open(plan([])[0].table)
    assert (puts[0] == means).all()
    assert len(puts) == 1 + 5 * len(fields(Rows)), "train with outer, train, outer, valid, test, each with its columns"
    for joined, splits in (((opened,), ("train", "outer")), ((opened,), ("train",)), ((), ("outer",)), ((), ("test",))):
        wanted = Wanted(table, splits, joined)
        rows = sources[0].rows(wanted)
        direct = [decode(piece, 2) for piece in DirectReader(table, joined, *splits)(wanted.units)]
        for ours, theirs in zip(rows.tensors(), concatenate(direct).tensors(), strict=True):
            assert torch.equal(ours, theirs)
    assert sources[0].rows(Wanted(table, ("train",))) is None, "a teacher's own rows were not asked for"
    for spec in plan([]):
        (path,) = spec.logits
        found = sources[0].class_means(LogitsTable.open(path))
        assert (found == means).all()
        assert not found.flags.writeable, "a view of the object store"
