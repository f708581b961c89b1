"""What fits: decided from numbers before anything starts. A plan that cannot be placed would wait for ever in Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tgeokd_ray.errors import ConfigError, ResourceError
from tgeokd_ray.feed import LANES

Node = Mapping[str, float]  # all that a node has, used or not: {"CPU": 4.0, "GPU": 1.0, ...}
DIVISORS = tuple(n for n in range(1, LANES + 1) if LANES % n == 0)

SMALLER = "a smaller part under resources; nodes that are still to join count when they are there"


def total(nodes: Sequence[Node], kind: str) -> int:
    """How many whole CPUs or GPUs all nodes have together."""
    return int(sum(node.get(kind, 0) for node in nodes))


def check_workers(workers: int) -> ConfigError | None:
    """What is wrong with the number of workers, None if nothing is."""
    if workers in DIVISORS:
        return None
    why = "must be at least 1" if workers < 1 else f"must divide the {LANES} lanes of the sampler"
    allowed = ", ".join(str(n) for n in DIVISORS)
    return ConfigError(f"--workers {why}, got {workers}", fix=f"one of {allowed}; --local needs no worker")


def check_plan(workers: int, cpus: int, gpus: int, nodes: Sequence[Node]) -> ConfigError | ResourceError | None:
    """What keeps a group of `workers` with `cpus` CPUs and `gpus` GPUs each off the nodes; None if it fits.

    A worker lies on one node, so the sum over the nodes is not enough. What other jobs hold now is no obstacle: the
    group waits for it. The message counts.
    """
    wrong = check_workers(workers)
    if wrong is not None:
        return wrong
    room = sum(_slots(node, cpus, gpus) for node in nodes)
    if room >= workers:
        return None
    fitting = [n for n in DIVISORS if n <= room]
    what = f"{_count(workers, gpus, cpus, nodes) or _spread(workers, gpus, cpus, room, nodes)}: it would wait for ever"
    if fitting:
        return ResourceError(what, fix=f"--workers {fitting[-1]}")
    if total(nodes, "GPU") < gpus:
        return ResourceError(what, fix="--device cpu")
    return ResourceError(what, fix="fewer threads, larger nodes, or --local")


def choose_device(device: str, workers: int, nodes: Sequence[Node]) -> str:
    """`auto` is cuda where every worker gets a GPU, else cpu; anything else is itself."""
    if device != "auto":
        return device
    return "cuda" if total(nodes, "GPU") >= workers else "cpu"


def _slots(node: Node, cpus: int, gpus: int) -> int:
    by_cpu = int(node.get("CPU", 0) // cpus)
    return min(by_cpu, int(node.get("GPU", 0) // gpus)) if gpus else by_cpu


def _count(workers: int, gpus: int, cpus: int, nodes: Sequence[Node]) -> str | None:
    """`4 workers x 1 GPU = 4 GPUs, the cluster has 3`, of the first kind that is scarce in sum."""
    for kind, each in (("GPU", gpus), ("CPU", cpus)):
        needed, there = workers * each, total(nodes, kind)
        if needed > there:
            return f"{_workers(workers)} x {each} {kind} = {needed} {kind}s, the cluster has {there}"
    return None


def _spread(workers: int, gpus: int, cpus: int, room: int, nodes: Sequence[Node]) -> str:
    """`2 workers x 4 CPUs, each on one node: room for 1 on 1 x 5 CPUs, 1 x 3 CPUs`."""
    shapes = Counter((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes)
    each = f"{cpus} CPUs" + (f" and {gpus} GPU" if gpus else "")
    told = ", ".join(
        f"{n} x {num_cpus} CPUs" + (f" and {num_gpus} GPUs" if gpus else "")
        for (num_cpus, num_gpus), n in sorted(shapes.items(), reverse=True)
    )
    return f"{_workers(workers)} x {each}, each on one node: room for {room} on {told}"


def _workers(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def check_trials(
    concurrency: int, cpu: float, gpu: float, nodes: Sequence[Node], workers: int = 1
) -> ConfigError | None:
    """What keeps so many trials at once, of `workers` with these parts of a CPU and a GPU each, off the nodes; None if
    they fit. A worker lies on one node, a trial of several need not."""
    room = sum(_parts(node, cpu, gpu) for node in nodes) // workers
    if room >= concurrency:
        return None
    each = f"{workers} workers x " * (workers > 1) + f"{cpu:g} CPU" + (f" and {gpu:g} GPU" if gpu else "")
    there = f"{sum(node.get('CPU', 0) for node in nodes):g} CPUs, {sum(node.get('GPU', 0) for node in nodes):g} GPUs"
    return ConfigError(
        f"concurrency {concurrency} x {each}: there is room for {room} on {len(nodes)} node(s) with {there}",
        fix=f"concurrency: {room}, or a smaller part under resources" if room else SMALLER,
    )


def _parts(node: Node, cpu: float, gpu: float) -> int:
    slack = 1e-9  # a third of a CPU three times is one
    by_cpu = int(node.get("CPU", 0) / cpu + slack)
    return min(by_cpu, int(node.get("GPU", 0) / gpu + slack)) if gpu else by_cpu
