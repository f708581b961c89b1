"""A plan is a function from finished runs to the next ones; one worker group executes it to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tgeokd_ray.artifacts import find, open_artifact
from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Progress, Silent
from tgeokd_ray.training.channel import fit_run
from tgeokd_ray.training.data import Source
from tgeokd_ray.training.memory import enough_memory, let_go
from tgeokd_ray.training.pack import Pack, packed
from tgeokd_ray.training.reuse import Plan, finished, lookup, run_inputs
from tgeokd_ray.training.run import train_run
from tgeokd_ray.training.spec import Finished, RunSpec
from tgeokd_ray.training.worker import Worker


def execute(plan: Plan, worker: Worker, source: Source, progress: Progress) -> list[Finished]:
    """Run what the plan asks for until it asks for nothing more; every worker returns the same list.

    Runs asked for at once are trained in packs. A run whose artifact exists is not repeated, so a group that starts
    again goes on where the last one ended. A UserError ends its own run and stands in its `Finished`; with several
    workers it may have struck one of them alone, so there it is raised and ends the group.
    """
    done: list[Finished] = []
    while specs := plan(done):
        done += _finish(specs, worker, source, progress if worker.rank == 0 else Silent())
    return done


def _finish(specs: Sequence[RunSpec], worker: Worker, source: Source, progress: Progress) -> list[Finished]:
    """The runs in the order of their specs; those that are missing are trained."""
    found: dict[str, Finished] = {}
    missing: list[RunSpec] = []
    for spec in specs:
        try:
            there = _there(spec, worker)
        except UserError as error:
            found[spec.name] = _failed(spec, worker, error, 0.0)
            continue
        if there is None:
            missing.append(spec)
        else:
            found[spec.name] = there
            progress.finished(spec.name, f"reused {open_artifact(Path(there.artifact)).label}")
    for pack in packed(missing):
        for run in _train(pack, worker, source, progress):
            found[run.name] = run
    return [found[spec.name] for spec in specs]


def _train(pack: Pack, worker: Worker, source: Source, progress: Progress) -> list[Finished]:
    """The runs of a pack. One that can not go on must not end the others: then each is tried alone."""
    began = time.monotonic()
    inputs = [run_inputs(spec) for spec in pack.specs]
    try:
        if pack.shared.kind != "channels":
            with enough_memory(pack.name):
                train_run(pack, inputs, worker, source, progress)
        elif worker.rank == 0:
            fit_run(pack.shared, progress)
        worker.barrier()
    except UserError as error:
        let_go(error)
        if len(pack.specs) == 1:
            return [_failed(pack.shared, worker, error, time.monotonic() - began)]
        if worker.size > 1:
            raise
        return [run for spec in pack.specs for run in _train(Pack((spec,)), worker, source, progress)]
    runs = []
    for spec, digest in zip(pack.specs, inputs, strict=True):
        artifact = find(spec.root, spec.kind, spec.artifact, digest)
        assert artifact is not None, f"{spec.kind}/{spec.artifact} was committed and is not there"
        progress.finished(spec.name, artifact.label)
        runs.append(finished(spec.name, artifact, reused=False, seconds=time.monotonic() - began))
    return runs


def _failed(spec: RunSpec, worker: Worker, error: UserError, seconds: float) -> Finished:
    """The run that its error ended; of several workers it may be the error of one alone, and ends them all."""
    if worker.size > 1:
        raise error
    return Finished(spec.name, "", "", {}, False, seconds, error=error)


def _there(spec: RunSpec, worker: Worker) -> Finished | None:
    """The run, if worker 0 finds its artifact."""
    run = lookup(spec)
    if not bool(worker.broadcast(torch.tensor([float(run is not None)], device=worker.device))):
        return None
    assert run is not None, f"{spec.kind}/{spec.artifact} is there for worker 0 alone"
    return run
