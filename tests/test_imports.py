"""What the floors load when imported, in a fresh interpreter; the command line answers --help at once."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
HELP = ["-m", "tgeokd_ray.cli.main", "--help"]
HELP_CPU_SECONDS = 0.5
TIMEOUT_SECONDS = 100

# Every module of the floor, so that an import deep in one file counts too.
LOADED = """
import importlib, pkgutil, sys
floor = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(floor.__path__, floor.__name__ + "."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as absent:
        if absent.name != "triton":  # there with torch for CUDA alone; the one module that needs it is asked for there
            raise
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that must end well; its own complaint is shown when it does not."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("floor", "unwanted"),
    [
        ("objectives", {"ray", "polars", "pyarrow", "pydantic"}),
        ("metrics", {"ray", "polars", "pyarrow", "pydantic", "sklearn"}),
        ("artifacts", {"ray", "polars", "pyarrow", "torch", "numpy"}),
        ("models", {"ray", "polars", "pydantic"}),
        ("feed", {"ray", "polars", "pydantic"}),
        ("training", {"ray", "polars", "pydantic"}),
    ],
)
def test_a_floor_does_not_load(floor: str, unwanted: set[str]) -> None:
    loaded = set(python("-c", LOADED, f"tgeokd_ray.{floor}").stdout.split())
    assert "tgeokd_ray" in loaded
    assert not loaded & unwanted


def test_help_loads_neither_torch_nor_ray() -> None:
    trace = python("-X", "importtime", *HELP)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in trace.stderr.splitlines() if "|" in line}
    assert "tgeokd_ray" in loaded
    assert "distill" in trace.stdout
    assert not loaded & {"torch", "ray", "polars", "pyarrow", "numpy"}


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(*HELP)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) <= HELP_CPU_SECONDS
