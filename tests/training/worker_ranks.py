"""Ranks of a gloo process group as forked processes, for tests of several workers without a cluster."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tgeokd_ray.training.distributed import ProcessGroupWorker

SECONDS = 90


def _rank(
    rank: int, world: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...], queue: Any
) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    try:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
        queue.put((rank, function(ProcessGroupWorker(), *arguments), None))
        torch.distributed.destroy_process_group()
    except Exception:
        queue.put((rank, None, traceback.format_exc()))


def on_ranks(world: int, function: Callable[..., Any], *arguments: Any, lost: tuple[int, ...] = ()) -> list[Any]:
    """`function(worker, *arguments)` on every rank, results in the order of ranks; a failure shows its traceback. The
    ranks that are `lost` do not live to answer."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch", "tgeokd_ray.training.plan", "worker_ranks"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(r, world, port, function, arguments, queue), daemon=True)
        for r in range(world)
    ]
    for process in ranks:
        process.start()
    try:
        results = sorted((queue.get(timeout=SECONDS) for _ in ranks[len(lost) :]), key=lambda result: result[0])
    finally:
        for process in ranks:
            process.join(10)
            if process.is_alive():
                process.kill()
    failures = [f"rank {rank}: {failure}" for rank, _, failure in results if failure]
    assert not failures, "\n".join(failures)
    return [result for _, result, _ in results]


def train(worker: ProcessGroupWorker, *specs: Any) -> list[Any]:
    """The runs, on this rank."""
    from tgeokd_ray.events import Silent
    from tgeokd_ray.training.data import DirectSource
    from tgeokd_ray.training.plan import execute

    return execute(lambda finished: () if finished else specs, worker, DirectSource(), Silent())


def train_in_two_parts(worker: ProcessGroupWorker, spec: Any) -> tuple[Any, list[str]]:
    """The run, which all ranks end when they report its second epoch, and then go on with; what is said then."""
    from tgeokd_ray.events import Silent
    from tgeokd_ray.training.data import DirectSource
    from tgeokd_ray.training.plan import execute

    def report(metrics: Any, checkpoint: Any) -> None:
        if metrics["epoch"] == 2:
            raise SystemExit

    def plan(finished: Any) -> Any:
        return () if finished else (spec,)

    try:
        execute(plan, ProcessGroupWorker(report=report), DirectSource(), Silent())
    except SystemExit:
        progress = Silent()
        (finished,) = execute(plan, worker, DirectSource(), progress)
        return finished, progress.warnings
    raise AssertionError("nothing was reported")


def train_while_rank_1_dies(worker: ProcessGroupWorker, spec: Any) -> str:
    """Rank 0 kills the other one when a third of its third checkpoint is written, and writes the rest."""
    from tgeokd_ray.training import checkpoint

    pids = worker.gather(torch.tensor([os.getpid()]))
    save, calls = checkpoint.save_tensors, iter(range(100))

    def kills(path: Path, tensors: Any) -> None:
        save(path, tensors)
        if next(calls) == 2:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 3])
            os.kill(int(pids[1]), signal.SIGKILL)
            path.write_bytes(whole)

    checkpoint.save_tensors = kills
    try:
        train(worker, spec)
    except RuntimeError:  # gloo: the connection is closed by the peer
        return "ended with its peer"
    return "did not notice"


def collectives(worker: ProcessGroupWorker) -> dict[str, Any]:
    """What each collective gives when rank r holds r + 1 rows of value r; the last rank has no rows."""
    weight = 0.0 if worker.rank == worker.size - 1 else float(worker.rank + 1)
    leaf = torch.tensor([float(worker.rank), 1.0], dtype=torch.float64, requires_grad=True)
    mean = worker.global_mean(leaf, weight)
    (mean * torch.tensor([1.0 + worker.rank, 2.0])).sum().backward()
    assert leaf.grad is not None
    pair = worker.mean({"a": leaf.detach(), "b": torch.ones(2, 2)}, weight)
    nothing = worker.mean({"a": leaf.detach()}, 0.0)
    return {
        "mean": mean.tolist(),
        "gradient": leaf.grad.tolist(),
        "pair": [pair["a"].tolist(), pair["b"].tolist(), str(pair["b"].dtype)],
        "nothing": nothing["a"].tolist(),
        "gather": [part.tolist() for part in worker.gather(torch.arange(worker.rank * 2).reshape(-1, 2))],
        "broadcast": worker.broadcast(torch.tensor([worker.rank]), source=1).tolist(),
    }


def checkpoint_step(worker: ProcessGroupWorker, folders: list[Path], name: str, inputs: str) -> int | str | None:
    """The step of the checkpoint that this rank goes on from, in its own folder; its error as text."""
    from tgeokd_ray.errors import UserError
    from tgeokd_ray.events import Silent
    from tgeokd_ray.training.checkpoint import Checkpoints

    try:
        state = Checkpoints(folders[worker.rank], name, inputs).newest(worker, Silent())
    except UserError as error:
        return str(error)
    return None if state is None else state.step


def parameters(finished: Any) -> dict[str, torch.Tensor]:
    """The committed parameters of a run, student and fusion network."""
    from tgeokd_ray.artifacts import load_tensors

    folder = Path(finished.artifact)
    return {
        f"{name}/{key}": value
        for name in ("model", "fusion")
        for key, value in load_tensors(folder / f"{name}.safetensors").items()
    }
