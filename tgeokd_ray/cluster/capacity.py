"""What fits: decided from numbers before anything starts. A plan that cannot be placed would wait for ever in Ray."""

from __future__ import annotations

from collections.abc import Mapping

from tgeokd_ray.errors import ConfigError, ResourceError

LANES = 12  # of the sampler: a number of workers that divides them serves the same global batches


def check_workers(workers: int) -> ConfigError | None:
    """What is wrong with the number of workers, None if nothing is."""
    if workers >= 1 and LANES % workers == 0:
        return None
    allowed = ", ".join(str(n) for n in range(1, LANES + 1) if LANES % n == 0)
    why = "must be at least 1" if workers < 1 else f"must divide the {LANES} lanes of the sampler"
    return ConfigError(f"--workers {why}, got {workers}", fix=f"one of {allowed}; --local needs no worker")


def check_plan(
    workers: int, cpus_per_worker: int, data_cpus: int, gpus: int, available: Mapping[str, float]
) -> ConfigError | ResourceError | None:
    """What keeps a group of `workers` with `cpus_per_worker` CPUs and `gpus` GPUs each, and tasks with `data_cpus`
    beside it, off a cluster that has `available` ({"CPU": 2.0, ...}) in all; None if it fits. The message counts."""
    wrong = check_workers(workers)
    if wrong is not None:
        return wrong
    num_gpus = int(available.get("GPU", 0))
    if workers * gpus > num_gpus:
        what = f"{_workers(workers)} x {gpus} GPU = {workers * gpus} GPUs, the cluster has {num_gpus}"
        fix = f"--workers {num_gpus}" if num_gpus and LANES % num_gpus == 0 else "--device cpu"
        return ResourceError(f"{what}: the workers would wait for ever", fix=fix)
    num_cpus, needed = int(available.get("CPU", 0)), workers * cpus_per_worker + data_cpus
    if needed > num_cpus:
        data = f" + {data_cpus} for data" if data_cpus else ""
        what = f"{_workers(workers)} x {cpus_per_worker} CPU{data} = {needed} CPUs, the cluster has {num_cpus}"
        return ResourceError(
            f"{what}: the workers would wait for ever", fix=_fewer(cpus_per_worker, data_cpus, num_cpus)
        )
    return None


def choose_device(device: str, workers: int, available: Mapping[str, float]) -> str:
    """`auto` is cuda where every worker gets a GPU, else cpu; anything else is itself."""
    if device != "auto":
        return device
    return "cuda" if available.get("GPU", 0) >= workers else "cpu"


def _workers(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _fewer(cpus_per_worker: int, data_cpus: int, num_cpus: int) -> str:
    fitting = [n for n in range(1, LANES + 1) if LANES % n == 0 and n * cpus_per_worker + data_cpus <= num_cpus]
    return f"--workers {fitting[-1]}" if fitting else "fewer threads, a larger cluster, or --local"
