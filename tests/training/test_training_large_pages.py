"""Tables and freed memory lie in large pages where the system has them, and nothing but time depends on it."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tgeokd_ray.training.large_pages import TABLE_BYTES, for_freed_memory, for_tables

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HAS_THEM = SETTING.exists() and "[never]" not in SETTING.read_text()
needs_them = pytest.mark.skipif(not HAS_THEM, reason="large pages of Linux")

# KiB in large pages of a table of 64 MiB, of one too small to ask, and of what is written after freed memory asked;
# the flags of the pages that hold the last one.
PROGRAM = """
import ctypes, re, sys
import torch
from tgeokd_ray.training.large_pages import TABLE_BYTES, for_tables
from tgeokd_ray.training.memory import keep_freed_memory

def pages(tensor):
    place, found = tensor.data_ptr() + tensor.nbytes // 2, None
    for line in open("/proc/self/smaps"):
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            inside = int(bounds[1], 16) <= place < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags"):
            return "hg" in line.split()

torch.set_num_threads(1)
large, small = torch.ones(1 << 24), torch.ones(TABLE_BYTES // 8)
asked = for_tables([large, small])
earlier = pages(small)
if sys.argv[1] == "keep":
    keep_freed_memory()
written = torch.ones(1 << 22)
print(asked / large.nbytes, pages(large), earlier, pages(written), float(large.sum()) / large.numel())
"""


def flags(how: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split()


@needs_them
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_tables_and_kept_memory_ask_for_large_pages() -> None:
    asked, large, small, written, mean = flags("keep")
    assert 0.99 < float(asked) <= 1
    assert (large, small, written) == ("True", "False", "True")
    assert float(mean) == 1


@needs_them
def test_memory_that_is_not_kept_does_not() -> None:
    assert flags("leave")[3] == "False"


def test_tables_keep_their_numbers_and_small_or_absent_ones_are_left_alone() -> None:
    table = torch.arange(TABLE_BYTES // 4 + 5, dtype=torch.float32)
    before = table.clone()
    for_tables([table, torch.ones(3), torch.empty(0)])
    assert torch.equal(table, before)
    assert for_tables([torch.ones(3), torch.empty(0)]) == 0
    assert for_tables([]) == 0


def test_nothing_is_reserved_under_a_limit_of_memory() -> None:
    resource = pytest.importorskip("resource")
    program = (
        "import resource; from tgeokd_ray.training.large_pages import for_freed_memory;"
        "resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, resource.RLIM_INFINITY));"
        "print(for_freed_memory(1 << 27, 1 << 24))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert resource.getrlimit(resource.RLIMIT_DATA) is not None
    assert re.fullmatch(r"0\s*", done.stdout)
    assert for_freed_memory(1 << 20, 1 << 20) == 0  # a block is all that is kept
