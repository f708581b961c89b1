"""The environment that Ray finds: short waits, no usage statistics, quiet. What the user has set stays as it is."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tgeokd_ray

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a fit returns 1 s after its function, not 5 s
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_worker_maximum_startup_concurrency": "16",  # fewer, and the raylet warns on stdout
}
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
PACKAGE = Path(tgeokd_ray.__file__).resolve().parent


def prepare() -> None:
    """Set what is unset of SETTINGS in this process; Ray hands it on to the processes that it starts."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def inherited(*, verbose: bool) -> dict[str, str]:
    """Variables for the processes of a Ray that we start, beside this process's own.

    They find this package where it runs from, installed or not, and without `verbose` keep Python's warnings to
    themselves, unless the user has said which to show.
    """
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(PACKAGE.parent), *(path for path in known if path and path != str(PACKAGE.parent))]
    variables = {"PYTHONPATH": os.pathsep.join(paths)}
    if not verbose:
        variables["PYTHONWARNINGS"] = os.environ.get("PYTHONWARNINGS", "ignore")
    return variables


def ensure_token() -> None:
    """Ray protects a cluster that it starts by a token and keeps it below the home folder; where that can't be written
    the token lives in this process's environment, so that authentication stays on."""
    if not any(name in os.environ for name in TOKENS) and not _home_is_writable():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _home_is_writable() -> bool:
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder, os.W_OK)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """`variables` are set inside the block and as they were after it, in this process."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
