"""Memory that one training step frees is there for the next one."""

from __future__ import annotations

import ctypes
from functools import lru_cache

# Parameters of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 27
LARGEST_BYTES = 1 << 25  # of a block that comes from the heap; the most that glibc takes


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep up to 128 MiB of freed memory in this process; False where malloc knows no such setting.

    By itself glibc gives the end of its heap back when a few MiB of it are free, and the next pass pays page faults for
    every tensor: a third of the time of a Hessian-vector product (docs/performance.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return bool(mallopt(TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(MMAP_THRESHOLD, LARGEST_BYTES))
