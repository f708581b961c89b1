"""Whether every node sees the root: asked before work starts, not found out by a missing file hours later."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tgeokd_ray.errors import ResourceError

TIMEOUT_SECONDS = 60.0


def _read(path: str) -> str:
    """What the file holds on the node of this task, "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def check_root_visible(root: Path) -> None:
    """Write a token below `root` and let every alive node read it. ResourceError names the nodes that do not see it,
    and tells those that did not answer within a minute from them."""
    token = secrets.token_hex(16)
    probe = root / f".visible-{token}"
    try:
        probe.write_text(token, encoding="ascii")
        answers = _ask(probe)
    except OSError as error:
        raise ResourceError(f"root {root} cannot be written: {error.strerror}", fix="name another --root") from None
    finally:
        with contextlib.suppress(OSError):  # it was never there, or the root went away
            probe.unlink()
    problem = blind_nodes(root, token, answers)
    if problem is not None:
        raise problem


def _ask(probe: Path) -> dict[str, str | None]:
    """Answer per node; None for a node that gave none."""
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    tasks = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        read = ray.remote(num_cpus=0, scheduling_strategy=place)(_read)
        tasks[read.remote(str(probe))] = node
    ready, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=TIMEOUT_SECONDS)
    answers: dict[str, str | None] = {f"{nodes[node]} ({node[:8]})": None for node in nodes}
    for task in ready:
        node = tasks[task]
        try:
            answers[f"{nodes[node]} ({node[:8]})"] = ray.get(task)
        except RayError:
            continue  # the node went away: no answer
    return answers


def blind_nodes(root: Path, token: str, answers: Mapping[str, str | None]) -> ResourceError | None:
    """What is wrong when each node was asked for the token below `root`; None if all saw it."""
    silent = [node for node, answer in answers.items() if answer is None]
    blind = [node for node, answer in answers.items() if answer is not None and answer != token]
    parts = [f"not seen by {', '.join(blind)}"] if blind else []
    parts += [f"no answer from {', '.join(silent)}"] if silent else []
    if not parts:
        return None
    return ResourceError(
        f"root {root} must be one folder for all {len(answers)} nodes: {'; '.join(parts)}",
        fix="a --root on storage that every node mounts",
    )
