"""What a step frees is not given back to the system, to be asked for again by the next one."""

from __future__ import annotations

import platform
import subprocess
import sys
import traceback
import weakref

import pytest
import torch

from tgeokd_ray.errors import DataError, ResourceError
from tgeokd_ray.training.memory import KEPT_BYTES, LARGEST_BYTES, enough_memory, let_go, memory_limit

# Memory that stays after a block was filled and freed, in a process that has allocated nothing large before.
PROGRAM = """
import sys
from pathlib import Path
from tgeokd_ray.training.memory import keep_freed_memory

def resident():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resident()
block = bytearray(int(sys.argv[2]))
block[::4096] = block[::4096].replace(b"\\0", b"1")
del block
print(resident() - before)
"""


def kept(how: str, size: int) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how, str(size)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_was_freed_stays_up_to_a_limit() -> None:
    size = LARGEST_BYTES * 3 // 4
    assert size < KEPT_BYTES
    assert kept("keep", size) > size // 2
    assert kept("leave", size) < size // 2
    assert kept("keep", 2 * LARGEST_BYTES) < LARGEST_BYTES


# What a process may allocate under a limit, and after it; `earlier` is a soft limit that it had before.
LIMITED = """
import re, resource, sys
from pathlib import Path
import numpy as np, torch
from tgeokd_ray.errors import ResourceError
from tgeokd_ray.training.memory import enough_memory, memory_limit

SMALL, LARGE = 60 << 20, 1 << 30
torch.set_num_threads(1)

def refused(allocate):
    try:
        with enough_memory("trial"):
            allocate()
    except ResourceError as error:
        return "trial: not enough memory" in str(error)
    return False

def by_torch(size):
    return refused(lambda: torch.ones(size, dtype=torch.uint8))

limits = lambda: resource.getrlimit(resource.RLIMIT_DATA)
has = int(re.findall(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0]) << 10
earlier, mib = (int(word) for word in sys.argv[1:])
if earlier:
    resource.setrlimit(resource.RLIMIT_DATA, (has + (earlier << 20), resource.RLIM_INFINITY))
before = limits()
with memory_limit(mib):
    told = [by_torch(SMALL), by_torch(LARGE)]
    told += [refused(lambda: np.ones(LARGE, dtype=np.uint8)), refused(lambda: bytearray(LARGE))]
try:
    with memory_limit(mib):
        raise KeyError
except KeyError:
    pass
print(*map(int, (*told, by_torch(LARGE), limits() == before)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process has")
@pytest.mark.parametrize(
    ("earlier", "mib", "told"),
    [
        (0, 300, "0 1 1 1 0 1"),
        (3000, 300, "0 1 1 1 0 1"),
        (300, 200_000, "0 1 1 1 1 1"),  # a limit is not made wider than one that was there
    ],
)
def test_more_memory_than_the_limit_is_refused_and_the_limit_ends(earlier: int, mib: int, told: str) -> None:
    command = [sys.executable, "-c", LIMITED, str(earlier), str(mib)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == told.split(), "60 MiB; 1 GiB by torch, numpy, Python; 1 GiB after it; restored"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 1 byte"
        ),
        RuntimeError("can't start new thread"),  # for its stack
    ],
)
def test_refused_memory_has_one_name(error: Exception) -> None:
    with pytest.raises(ResourceError, match="student a: not enough memory: ") as caught, enough_memory("student a"):
        raise error
    assert caught.value.exit_code == 6
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), DataError("row 3"), ValueError("x"), SystemExit(1)])
def test_other_errors_pass_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, enough_memory("student a"):
        raise error
    assert caught.value is error


def test_no_limit_is_none() -> None:
    with memory_limit(None):
        assert len(bytearray(1 << 20)) == 1 << 20


def test_an_error_that_is_kept_holds_no_memory() -> None:
    class Large:
        """Stands for the tensors of a run."""

    held: list[weakref.ref[Large]] = []

    def fails() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError

    with pytest.raises(ResourceError) as caught, enough_memory("student a"):
        fails()
    assert held[0]() is not None
    let_go(caught.value)
    assert held[0]() is None
    assert "in fails" in "".join(traceback.format_exception(caught.value))
