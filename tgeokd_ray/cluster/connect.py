"""Connecting: to the cluster that is named, else to a Ray of our own on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import ray
import torch
from ray._private.utils import get_num_cpus

from tgeokd_ray.cluster.capacity import Node
from tgeokd_ray.cluster.environment import PACKAGE, ensure_token, environment, inherited
from tgeokd_ray.cluster.jobs import in_submitted_job
from tgeokd_ray.errors import ConfigError, ResourceError, UserError

SPARE_CPUS = 2  # logical, beside the workers': tasks of a stage overlap also on the smallest machine
PROBE_SECONDS = 5.0
SUBMIT = "ray job submit --address http://... --working-dir . -- python jobs/ctr_distill.py"
LOGGERS = ("ray", "ray.data", "ray.train", "ray.tune")


@dataclass(frozen=True)
class Connection:
    """A Ray that answers. `local`: it was started for us on this machine; `owned`: this process connected here."""

    address: str
    local: bool
    owned: bool

    def nodes(self) -> list[Node]:
        """What each living node has, used or not: [{"CPU": 4.0, ...}, ...]."""
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def close(self) -> None:
        """Stop the Ray that we started, leave the one that we joined, and let be what was there before us."""
        if self.owned:
            ray.shutdown()


def cores() -> int:
    """The CPUs that this machine, or the container around this process, really has."""
    return int(get_num_cpus(override_docker_cpu_warning=True))


def this_machine() -> Node:
    """What a Ray that is started here would have of its own accord."""
    return {"CPU": float(cores()), "GPU": float(torch.cuda.device_count())}


def connect(address: str | None = None, *, workers: int, verbose: bool = False) -> Connection:
    """Join `address`, else RAY_ADDRESS (set in a submitted job), else start Ray here.

    A Ray started here has the CPUs of this machine, at least `workers` + 2. Never attaches to a cluster that was not
    named. A process that is connected already stays so. ConfigError for an address of the wrong kind, ResourceError
    where no Ray answers or none can be started.
    """
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" in target:
        raise ConfigError(f"--address {target}: a driver runs on a node of the cluster", fix=SUBMIT)
    if ray.is_initialized():
        return Connection(ray.get_runtime_context().gcs_address, local=False, owned=False)
    level = logging.INFO if verbose else logging.CRITICAL  # its errors reach us as exceptions and are told once
    logging.getLogger("ray").setLevel(level)
    try:
        with _own_handler():
            if target == "local":
                _start(workers, verbose, level)
            else:
                _probe(target)
                ray.init(address=target, log_to_driver=verbose, logging_level=level, runtime_env=_with_package())
    except UserError:
        raise
    except Exception as error:  # a start that takes too long is a bare Exception in Ray
        raise _unreachable(target, error) from error
    for name in LOGGERS:  # importing ray.data sets its own level again
        logging.getLogger(name).setLevel(level)
    return Connection(ray.get_runtime_context().gcs_address, local=target == "local", owned=True)


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Ray takes SIGTERM over in the process that connects, which would then abort without giving back what it holds: a
    handler that was set before is set again."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _unreachable(target: str, error: BaseException) -> ResourceError:
    """One line, and what to do: a driver shows its token only where RAY_AUTH_MODE says so, which Ray says at length."""
    cause: BaseException | None = error
    while cause is not None:
        if "AuthenticationError" in str(cause):
            fix = "RAY_AUTH_MODE=token with the cluster's RAY_AUTH_TOKEN or ~/.ray/auth_token"
            return ResourceError(f"Ray at {target} asks for a token that this driver does not show", fix=fix)
        cause = cause.__cause__
    line = str(error).strip().partition("\n")[0]
    if target == "local":
        fix = "run the same command again when the machine is less busy, or use --local"
        return ResourceError(f"Ray does not start on this machine: {line}", fix=fix)
    return ResourceError(f"Ray at {target}: {line}", fix="check --address and RAY_ADDRESS, or use --local")


def _probe(target: str) -> None:
    """OSError when nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = target.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()


def _start(workers: int, verbose: bool, level: int) -> None:
    ensure_token()
    with environment(inherited(verbose=verbose)):
        ray.init(
            address="local",
            num_cpus=max(workers + SPARE_CPUS, cores()),
            include_dashboard=False,
            log_to_driver=verbose,
            logging_level=level,
        )


def _with_package() -> dict[str, list[str]]:
    """Other nodes get this very package, unless a submitted job's working folder brings it."""
    return {} if in_submitted_job() else {"py_modules": [str(PACKAGE)]}
