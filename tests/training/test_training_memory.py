"""What a step frees is not given back to the system, to be asked for again by the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tgeokd_ray.training.memory import KEPT_BYTES, LARGEST_BYTES

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
