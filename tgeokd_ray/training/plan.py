"""A plan is a function from finished runs to the next ones; one worker group executes it to its end."""

from __future__ import annotations

import time

import torch

from tgeokd_ray.artifacts import find
from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Progress, Silent
from tgeokd_ray.training.data import Source
from tgeokd_ray.training.reuse import Plan, finished, lookup, run_inputs
from tgeokd_ray.training.run import train_run
from tgeokd_ray.training.spec import Finished, RunSpec
from tgeokd_ray.training.worker import Worker


def execute(plan: Plan, worker: Worker, source: Source, progress: Progress) -> list[Finished]:
    """Run what the plan asks for until it asks for nothing more; every worker returns the same list.

    A run whose artifact exists is not repeated, so a group that starts again goes on where the last one ended. A
    UserError ends its own run and stands in its `Finished`; with several workers it may have struck one of them
    alone, so there it is raised and ends the group.
    """
    done: list[Finished] = []
    while specs := plan(done):
        done += [_finish(spec, worker, source, progress if worker.rank == 0 else Silent()) for spec in specs]
    return done


def _finish(spec: RunSpec, worker: Worker, source: Source, progress: Progress) -> Finished:
    began = time.monotonic()
    try:
        inputs = run_inputs(spec)
        there = worker.broadcast(torch.tensor([float(lookup(spec, inputs) is not None)], device=worker.device))
        if not bool(there):
            train_run(spec, inputs, worker, source, progress)
            worker.barrier()
        artifact = find(spec.root, spec.kind, spec.artifact, inputs)
    except UserError as error:
        if worker.size > 1:
            raise
        return Finished(spec.name, "", "", {}, False, time.monotonic() - began, error=error)
    assert artifact is not None, f"{spec.kind}/{spec.artifact} was committed and is not there"
    progress.finished(spec.name, f"reused {artifact.label}" if bool(there) else artifact.label)
    return finished(spec.name, artifact, reused=bool(there), seconds=time.monotonic() - began)
