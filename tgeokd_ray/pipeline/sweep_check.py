"""What of a sweep can't be done here, said before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

import torch

from tgeokd_ray.config.sweep import Resolved, Sweep
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.pipeline.engine import Engine
from tgeokd_ray.pipeline.job import Place, check_place
from tgeokd_ray.tables.inputs import raw_files


def check_sweep(resolved: Resolved, place: Place) -> None:
    """ConfigError for options that contradict each other, for what a sweep is not made for, and for more trials at once
    than this machine has room for, if they are to run here; DataError where a raw file is not there."""
    job, sweep = resolved.job, resolved.sweep
    check_place(job, place)
    problems = []
    if place.local and (sweep.search == "tpe" or sweep.scheduler != "none"):
        got = f"search {sweep.search}, scheduler {sweep.scheduler}"
        problems.append(Problem("--local tries a list of points, one after another", expected="no --local", got=got))
    if sweep.search == "tpe" and find_spec("optuna") is None:
        problems.append(Problem("search: tpe needs Optuna: pip install 'tgeokd-ray[tune]', or search: random"))
    if job.distill.channel == "on":
        problems.append(
            Problem(
                "base.distill.channel: a sweep compares on the labels as they are", expected="off or auto", got="on"
            )
        )
    if (job.device == "cuda") != (sweep.resources.gpu > 0) and job.device != "auto":
        got = f"device {job.device}, resources.gpu {sweep.resources.gpu:g}"
        problems.append(Problem("a trial on a GPU needs a part of one, any other none", got=got))
    if place.local and sweep.resources.gpu and not torch.cuda.is_available():
        got = f"resources.gpu {sweep.resources.gpu:g}"
        problems.append(Problem("there is no CUDA device here", expected="resources.gpu 0", got=got))
    problems += _not_for_groups(job.workers, sweep)
    if job.distill.ratios:
        got = ", ".join(job.distill.ratios)
        problems.append(Problem("base.distill.ratios: a trial learns its own ratio", got=got))
    if "train" not in job.logits.splits:
        problems.append(Problem("base.logits.splits lacks train, which students learn from"))
    if problems:
        raise ConfigError(problems, fix="correct the sweep file and run the same command again")
    raw_files(resolved.card, job.data)
    if not place.local and not _elsewhere(place):
        from tgeokd_ray.cluster.capacity import check_trials
        from tgeokd_ray.cluster.connect import this_machine

        wrong = check_trials(sweep.concurrency, sweep.resources.cpu, sweep.resources.gpu, [this_machine()], job.workers)
        if wrong is not None:
            raise wrong


def _not_for_groups(workers: int, sweep: Sweep) -> list[Problem]:
    """What trials of several workers can't be."""
    if workers == 1:
        return []
    problems = []
    if sweep.scheduler == "pbt":
        why = "scheduler: pbt moves students that one process trains"
        problems.append(Problem(why, expected="workers 1", got=f"workers {workers}"))
    if sweep.resources.gpu not in (0, 1):
        got = f"workers {workers}, resources.gpu {sweep.resources.gpu:g}"
        problems.append(Problem("each of several workers of a trial needs a GPU of its own, or none", got=got))
    return problems


def check_more(sweep: Sweep, add_trials: int) -> None:
    """ConfigError where more trials are asked for than there can be."""
    if add_trials and sweep.search == "grid":
        raise ConfigError("--add-trials: a grid has its own number", fix="leave it out, or search: random")


def check_cluster(sweep: Sweep, place: Place, engine: Callable[[], Engine]) -> None:
    """ConfigError where the cluster has no room for as many trials at once as the sweep asks for."""
    if not place.local and _elsewhere(place):
        engine().check_trials(sweep)


def _elsewhere(place: Place) -> bool:
    """Whether trials run on a cluster that is there already."""
    return place.address is not None or bool(os.environ.get("RAY_ADDRESS"))
