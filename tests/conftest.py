"""What every test shares: one thread, fixed seeds, a quiet Ray, and the real data where there is some."""

from __future__ import annotations

import importlib.util
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import running

# Before anything imports ray: no usage statistics, short waits at the end of a fit, no attaching to somebody's cluster.
os.environ.pop("RAY_ADDRESS", None)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

REPOSITORY = Path(__file__).resolve().parent.parent
SEED = 20231224


def installed(module: str) -> bool:
    """Whether a module can be imported; GPU machines lack some."""
    return importlib.util.find_spec(module) is not None


if installed("torch"):
    import torch

    torch.set_num_threads(1)

if installed("hypothesis"):
    from hypothesis import settings

    # A busy machine is not a wrong result; the same examples on every run.
    settings.register_profile("repository", deadline=None, derandomize=True)
    settings.load_profile("repository")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The global generators start every test in one state; code under test uses generators of its own."""
    random.seed(SEED)
    if installed("numpy"):
        import numpy as np

        np.random.seed(SEED)
    if installed("torch"):
        torch.manual_seed(SEED)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real tables: TGEOKD_DATA, or `shared/data` beside the repository. Skips, by name, without it."""
    folder = Path(os.environ.get("TGEOKD_DATA") or REPOSITORY.parent / "shared" / "data")
    folder = folder if folder.is_absolute() else REPOSITORY / folder
    if not folder.is_dir():
        pytest.skip(f"real data absent: no folder {folder} (set TGEOKD_DATA)")
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of an S3 server, started when the first test asks for it; skips where packages of extras are absent."""
    for module in ("s3fs", "moto", "flask_cors"):
        pytest.importorskip(module)
    with running() as url:
        yield url


@pytest.fixture(autouse=True)
def _forks_without_polars(request: pytest.FixtureRequest) -> None:
    """A forked child would wait for ever for the threads of polars that it does not have."""
    if request.node.get_closest_marker("forks") is None:
        return
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    if any(re.match(r"polars-\d", name) for name in threads):
        pytest.skip("forks need a process in which polars has not worked: pytest -m forks")
