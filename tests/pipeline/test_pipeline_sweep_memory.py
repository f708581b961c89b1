"""What one trial may take bounds that trial, and nothing after it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sweep_runs import Sweeps

from tgeokd_ray.errors import ResourceError
from tgeokd_ray.pipeline.sweep_journal import Journal

# A process of its own: what this one has taken and given back would do for a trial.
PROGRAM = """
import sys
from tgeokd_ray.config.sweep import resolve_sweep
from tgeokd_ray.errors import ResourceError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place
from tgeokd_ray.pipeline.sweep import run_sweep

limited, free, root = sys.argv[1:]
try:
    run_sweep(resolve_sweep(limited, {"root": root}), Place(local=True), Silent())
except ResourceError as error:
    assert error.exit_code == 6
    run_sweep(resolve_sweep(free, {"root": root}), Place(local=True), Silent())
    print("both")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process has")
def test_t2_too_little_memory_ends_one_sweep_and_not_the_next_in_its_process(sweeps: Sweeps) -> None:
    space = {"rule": {"grid": ["labels"]}, "student.model.hidden": {"grid": [[2000, 2000]]}}
    base = {"student": {"model": {"hidden": [4]}, "training": {"epochs": 1, "batch_rows": 512}}}
    sweeps.resolved("little", space, search="grid", memory_mib=40, base=base)
    sweeps.resolved("enough", space, search="grid", base=base)
    files = [str(sweeps.root.parent / f"{name}.yaml") for name in ("little", "enough")]
    command = [sys.executable, "-c", PROGRAM, *files, str(sweeps.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["both"], done.stderr[-2000:]
    (little,), (enough,) = (Journal(sweeps.folder(name)).known().values() for name in ("little", "enough"))
    assert (little.status, little.code) == ("failed", ResourceError.code)
    assert "not enough memory: " in str(little.reason)
    assert (enough.status, enough.name) == ("finished", little.name)
