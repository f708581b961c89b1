"""Memory that one training step frees is there for the next one; what is said where there is too little."""

from __future__ import annotations

import ctypes
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from tgeokd_ray.errors import ResourceError

# Parameters of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 27
LARGEST_BYTES = 1 << 25  # of a block that comes from the heap; the most that glibc takes
# What torch says on a CPU, as a RuntimeError like many another.
REFUSED = re.compile(r"can't allocate memory|not enough memory|can't start new thread", re.IGNORECASE)


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


@contextmanager
def enough_memory(name: str) -> Iterator[None]:
    """A ResourceError in place of whatever numpy, Arrow or torch raises where memory for `name` is refused."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _too_little(name, error) from error
    except RuntimeError as error:
        if REFUSED.search(str(error)) is None:
            raise
        raise _too_little(name, error) from error


def _too_little(name: str, error: BaseException) -> ResourceError:
    told = str(error).strip().partition("\n")[0] or type(error).__name__
    fix = "a smaller batch_rows or model, micro_rows, or more memory"
    return ResourceError(f"{name}: not enough memory: {told}", fix=fix)


def let_go(error: BaseException) -> None:
    """Free what the frames hold that an error came through; it may be kept, with its lines, while other runs train."""
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__


@contextmanager
def memory_limit(mib: int | None) -> Iterator[None]:
    """This process may take at most so many MiB beyond what it has now, or than an earlier limit lets it; None: as many
    as there are. More is refused to whoever asks. ResourceError where the system can't say what a process has."""
    if mib is None:
        yield
        return
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [_data_bytes() + (mib << 20), *(one for one in (soft, hard) if one != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    try:
        told = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        raise ResourceError("memory_mib: this system does not say what a process has", fix="leave it out") from None
    return int(re.findall(r"VmData:\s+(\d+) kB", told)[0]) << 10
